"""V*Bench: attributes of small things, and where two of them stand.

Reference:
  Wu and Xie, 2023, "V*: Guided Visual Search as a Core Mechanism in Multimodal LLMs",
  arXiv:2312.14135; data of craigwu/vstar_bench.

Two metrics go by its name: the option of least loss, and the letter that is written. Here it is the
letter; the two cannot be compared.
"""

import functools
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from mres_jax.data.rows import QuestionRow
from mres_jax.data.rows.types import shown
from mres_jax.errors import BadRowError, MresError
from mres_jax.evaluation.benchmarks.shares import (
    field,
    id_of,
    read_json_file,
    read_rows,
    shares,
)
from mres_jax.evaluation.benchmarks.tables import picture_file
from mres_jax.geometry import Box
from mres_jax.protocols import Answer
from mres_jax.scoring import Interval

QUESTIONS = "test_questions.jsonl"
CATEGORIES = ("direct_attributes", "relative_position")
_OPTION = re.compile(r"^\(([A-D])\)\s*(.+?)\s*$", re.MULTILINE)


def load_vstar(directory: str | os.PathLike[str]) -> list[QuestionRow]:
    """Returns the rows of a copy: `test_questions.jsonl` and the folders of pictures.

    Rows of the two categories that count; others (OCR, GPT4V-hard) are left to their own files.
    Where a picture has its `.json` beside it, the boxes of its things become one box around all.

    Raises:
      MresError: no questions; rows without a field, their options or their picture, counted.
    """
    root = pathlib.Path(directory)
    contents = read_json_file(root / QUESTIONS, lines=True)
    rows = read_rows("vstar_bench", directory, contents, functools.partial(_row, root))
    counted = [row for row in rows if row.type in CATEGORIES]
    if not counted:
        raise MresError(f"vstar_bench {directory}: no question of {' or '.join(CATEGORIES)}.")
    return counted


def _row(root: pathlib.Path, where: str, content: Any) -> QuestionRow:
    row = id_of(content, "question_id", where)
    text, label = (field(content, name, str, row) for name in ("text", "label"))
    found = _OPTION.findall(text)
    letters = "".join(letter for letter, _ in found)
    if len(found) < 2 or letters != "ABCD"[: len(found)] or label not in letters:
        raise BadRowError(row, f"options {letters or 'none'} and label {label!r}", "no answer")
    path = root / field(content, "image", str, row)
    return QuestionRow(
        id=row,
        pictures=(picture_file(path, row),),
        question=text[: text.index("(A)")].strip(),
        answers=(label,),
        type=field(content, "category", str, row),
        options=tuple(option for _, option in found),
        scorer="choice",
        box=_box(path.with_suffix(".json"), row),
    )


def _box(file: pathlib.Path, row: str) -> Box | None:
    if not file.is_file():
        return None
    boxes = field(read_json_file(file), "bbox", list, row)
    try:
        corners = [(y, x, y + h, x + w) for x, y, w, h in boxes]
        tops, lefts, bottoms, rights = zip(*corners, strict=True)
        # outwards: a window that holds it holds all of the thing
        top, left = (math.floor(min(edges)) for edges in (tops, lefts))
        bottom, right = (math.ceil(max(edges)) for edges in (bottoms, rights))
        return Box(top, left, bottom, right)
    except (TypeError, ValueError):
        reason = f"bbox {shown(boxes)} is no list of left, top, width, height"
        raise BadRowError(row, reason, "unknown form") from None


def score_vstar(rows: Sequence[QuestionRow], answers: Sequence[Answer]) -> dict[str, Interval]:
    """Returns the share right: `average` over all rows, and each category."""
    right = [row.grade(answer) for row, answer in zip(rows, answers, strict=True)]
    return {
        **shares(rows, right, lambda row: "average"),
        **shares(rows, right, lambda row: row.type),
    }

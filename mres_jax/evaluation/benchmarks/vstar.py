"""V*Bench: attributes of small things, and where two of them stand.

Reference:
  Wu and Xie, 2023, "V*: Guided Visual Search as a Core Mechanism in Multimodal LLMs",
  arXiv:2312.14135; data of craigwu/vstar_bench.

Two metrics go by its name: the option of least loss, and the letter that is written. Here it is the
letter; the two cannot be compared.
"""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from mres_jax.data.images import read_size
from mres_jax.data.rows import QuestionRow
from mres_jax.errors import BadImageError, BadRowError, MresError
from mres_jax.evaluation.benchmarks.shares import field, read_json_file, shares
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
      BadRowError: a row without a field, its options or its picture.
      MresError: no questions.
    """
    root = pathlib.Path(directory)
    contents = read_json_file(root / QUESTIONS, lines=True)
    rows = [_row(content, f"#{i}", root) for i, content in enumerate(contents)]
    counted = [row for row in rows if row.type in CATEGORIES]
    if not counted:
        raise MresError(f"vstar_bench {directory}: no question of {' or '.join(CATEGORIES)}.")
    return counted


def _row(content: Any, where: str, root: pathlib.Path) -> QuestionRow:
    row = str(content.get("question_id", where)) if isinstance(content, dict) else where
    text, label = (field(content, name, str, row) for name in ("text", "label"))
    found = _OPTION.findall(text)
    letters = "".join(letter for letter, _ in found)
    if len(found) < 2 or letters != "ABCD"[: len(found)] or label not in letters:
        raise BadRowError(row, f"options {letters or 'none'} and label {label!r}")
    path = root / field(content, "image", str, row)
    try:
        read_size(path)
    except BadImageError as error:
        raise BadRowError(row, str(error)) from None
    return QuestionRow(
        id=row,
        pictures=(str(path),),
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
        return Box(int(min(tops)), int(min(lefts)), int(max(bottoms)), int(max(rights)))
    except (TypeError, ValueError):
        raise BadRowError(row, f"bbox {boxes} is no list of left, top, width, height") from None


def score_vstar(rows: Sequence[QuestionRow], answers: Sequence[Answer]) -> dict[str, Interval]:
    """Returns the share right: `average` over all rows, and each category."""
    right = [row.grade(answer) for row, answer in zip(rows, answers, strict=True)]
    return {
        **shares(rows, right, lambda row: "average"),
        **shares(rows, right, lambda row: row.type),
    }

"""ScreenSpot-Pro: where is the element of a high-resolution screenshot?

Reference:
  Li et al., 2025, "ScreenSpot-Pro: GUI Grounding for Professional High-Resolution Computer Use",
  arXiv:2504.07981; data and scorer of github likaixin2000/ScreenSpot-Pro-GUI-Grounding.
"""

import functools
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from mres_jax.data.images import read_size
from mres_jax.data.rows import QuestionRow
from mres_jax.data.rows.types import shown
from mres_jax.errors import BadRowError, MresError
from mres_jax.evaluation.benchmarks.shares import (
    field,
    id_of,
    only_view,
    read_list,
    read_rows,
    shares,
)
from mres_jax.evaluation.benchmarks.tables import picture_file
from mres_jax.geometry import Box
from mres_jax.protocols import Answer
from mres_jax.resolution.zoom import find_places
from mres_jax.scoring import Interval

UI_TYPES = ("text", "icon")


def load_screenspot_pro(
    directory: str | os.PathLike[str], *, language: str = "en"
) -> list[QuestionRow]:
    """Returns the rows of a copy: `annotations/*.json` and `images/`.

    Args:
      directory: of the copy.
      language: of the instructions, `en` or `cn`.

    Raises:
      MresError: no annotations; rows without a field or a picture, or whose picture has another
        size, counted.
    """
    root = pathlib.Path(directory)
    files = sorted((root / "annotations").glob("*.json"))
    if not files:
        raise MresError(f"screenspot_pro {directory}: no annotations/*.json.")
    name = {"en": "instruction", "cn": "instruction_cn"}.get(language)
    if name is None:
        raise MresError(f"screenspot_pro: no language {language!r}; have en, cn.")
    contents = (
        (f"{file.name}#{i}", content)
        for file in files
        for i, content in enumerate(read_list("screenspot_pro", file))
    )
    read = functools.partial(_row, root, name)
    return read_rows("screenspot_pro", directory, contents, read)


def _row(root: pathlib.Path, instruction: str, _: str, part: tuple[str, Any]) -> QuestionRow:
    where, content = part
    row = id_of(content, "id", where)
    path = root / "images" / field(content, "img_filename", str, row)
    box = field(content, "bbox", list, row)
    if len(box) != 4 or not all(isinstance(x, int | float) for x in box):
        reason = f"bbox {shown(box)} is not left, top, right, bottom in px"
        raise BadRowError(row, reason, "no answer")
    left, top, right, bottom = box
    if not (0 <= left < right and 0 <= top < bottom):
        reason = f"the corners of bbox {box} are reversed or outside"
        raise BadRowError(row, reason, "no answer")
    size = read_size(picture_file(path, row))
    said = field(content, "img_size", list, row)
    if said != [size.width, size.height]:
        raise BadRowError(row, f"img_size is {said}, its picture {[size.width, size.height]}")
    kind = field(content, "ui_type", str, row)
    if kind not in UI_TYPES:
        reason = f"ui_type {kind!r}; have {', '.join(UI_TYPES)}"
        raise BadRowError(row, reason, "unknown form")
    return QuestionRow(
        id=row,
        pictures=(str(path),),
        question=field(content, instruction, str, row),
        type=kind,
        scorer="point",
        tags=tuple(field(content, name, str, row) for name in ("group", "application", "platform")),
        # all released boxes are whole pixels; a part of one would count whole
        box=Box(math.floor(top), math.floor(left), math.ceil(bottom), math.ceil(right)),
    )


def hits_element(row: QuestionRow, answer: Answer) -> float:
    """Returns 1.0 where the point of an answer, or the centre of its box, is on the element.

    Edges count, as in the released scorer; an answer that cannot be read is wrong, and so is one
    without a look at the picture.

    Raises:
      MresError: the model looked at several views.
    """
    if not answer.views or row.box is None:
        return 0.0
    (size,) = row.sizes()
    view = only_view(row, answer, metric="element")
    found = find_places(answer.text, view=view, coord_frame=answer.coord_frame, picture=size).places
    if not found:
        return 0.0
    y, x = found[0].centre
    return float(row.box.top <= y <= row.box.bottom and row.box.left <= x <= row.box.right)


def score_screenspot_pro(
    rows: Sequence[QuestionRow], answers: Sequence[Answer]
) -> dict[str, Interval]:
    """Returns the share of elements hit: `average` over rows, `text`, `icon`, and each group."""
    right = [hits_element(row, answer) for row, answer in zip(rows, answers, strict=True)]
    return {
        **shares(rows, right, lambda row: "average"),
        **shares(rows, right, lambda row: row.type),
        **shares(rows, right, lambda row: row.tags[0]),
    }

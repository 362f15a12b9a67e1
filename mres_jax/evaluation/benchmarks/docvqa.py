"""DocVQA: questions about scanned pages.

Reference:
  Mathew et al., 2021, "DocVQA: A Dataset for VQA on Document Images", arXiv:2007.00398; scored by
  ANLS. The answers of the test split are with its organisers alone.
"""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

from mres_jax.data.rows import QuestionRow
from mres_jax.errors import MresError
from mres_jax.evaluation.benchmarks.shares import field, read_json_file
from mres_jax.evaluation.benchmarks.tables import (
    Pictures,
    parquet_files,
    picture_file,
    read_parquet,
    texts,
)

COLUMNS = ("questionId", "question", "question_types", "answers", "image")
FILES = ("val_v1.0_withQT.json", "val_v1.0.json")


def load_docvqa(path: str | os.PathLike[str]) -> list[QuestionRow]:
    """Returns the rows of the validation split; tags are the kinds of question, then the picture.

    Args:
      path: the released folder, with `val_v1.0_withQT.json` (or `val_v1.0.json`) and `documents/`;
        or parquet, a file or a folder of shards.

    Raises:
      BadRowError: a row without a field, an answer or its picture.
      MresError: neither is there.
    """
    return list(_rows(pathlib.Path(path)))


def _rows(root: pathlib.Path) -> Iterator[QuestionRow]:
    if files := parquet_files(root):
        pictures = Pictures()
        for content in read_parquet(files, COLUMNS, name="docvqa_val"):
            yield _row(content, *pictures.of_cell(content["image"], str(content["questionId"])))
        return
    found = [root / name for name in FILES if (root / name).is_file()]
    if not found:
        raise MresError(f"docvqa_val {root}: has no {' or '.join(FILES)} and no parquet.")
    for content in field(read_json_file(found[0]), "data", list, found[0].name):
        row = str(content.get("questionId"))
        image = field(content, "image", str, row)
        yield _row(content, picture_file(root / image, row), image)


def _row(content: Any, picture: str | bytes, key: str) -> QuestionRow:
    row = str(content.get("questionId"))
    kinds = content.get("question_types")
    return QuestionRow(
        id=row,
        pictures=(picture,),
        question=field(content, "question", str, row),
        answers=texts(content.get("answers"), "answers", row),
        scorer="anls",
        tags=(*(texts(kinds, "question_types", row) if kinds else ()), key),
    )

"""DocVQA: questions about scanned pages.

Reference:
  Mathew et al., 2021, "DocVQA: A Dataset for VQA on Document Images", arXiv:2007.00398; scored by
  ANLS. The answers of the test split are with its organisers alone.
"""

import functools
import os
import pathlib
from typing import Any

from mres_jax.data.rows import QuestionRow
from mres_jax.errors import MresError
from mres_jax.evaluation.benchmarks.shares import field, id_of, read_list, read_rows
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
      MresError: neither is there; rows without a field, an answer or their picture, counted.
    """
    root = pathlib.Path(path)
    if files := parquet_files(root, name="docvqa_val"):
        table = read_parquet(files, COLUMNS, name="docvqa_val")
        return read_rows("docvqa_val", path, table, functools.partial(_of_table, Pictures()))
    found = [root / name for name in FILES if (root / name).is_file()]
    if not found:
        raise MresError(f"docvqa_val {root}: has no {' or '.join(FILES)} and no parquet.")
    contents = read_list("docvqa_val", found[0], under="data")
    return read_rows("docvqa_val", path, contents, functools.partial(_of_folder, root))


def _of_table(pictures: Pictures, where: str, content: Any) -> QuestionRow:
    row = id_of(content, "questionId", where)
    return _row(row, content, *pictures.of_cell(content["image"], row))


def _of_folder(root: pathlib.Path, where: str, content: Any) -> QuestionRow:
    row = id_of(content, "questionId", where)
    image = field(content, "image", str, row)
    return _row(row, content, picture_file(root / image, row), image)


def _row(row: str, content: Any, picture: str | bytes, key: str) -> QuestionRow:
    kinds = content.get("question_types")
    return QuestionRow(
        id=row,
        pictures=(picture,),
        question=field(content, "question", str, row),
        answers=texts(content.get("answers"), "answers", row),
        scorer="anls",
        tags=(*(texts(kinds, "question_types", row) if kinds else ()), key),
    )

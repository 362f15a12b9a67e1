"""TextVQA: questions about text in photographs, each answered by ten people.

Reference:
  Singh et al., 2019, "Towards VQA Models That Can Read", arXiv:1904.08920; TextVQA 0.5.1.
"""

import functools
import os
import pathlib
from typing import Any

from mres_jax.data.rows import QuestionRow
from mres_jax.errors import BadRowError
from mres_jax.evaluation.benchmarks.shares import field, id_of, read_list, read_rows
from mres_jax.evaluation.benchmarks.tables import (
    Pictures,
    parquet_files,
    picture_file,
    read_parquet,
    texts,
)

QUESTIONS = "TextVQA_0.5.1_val.json"
COLUMNS = ("question_id", "image_id", "question", "answers", "image")
NUM_PEOPLE = 10  # that answered each question


def load_textvqa(path: str | os.PathLike[str]) -> list[QuestionRow]:
    """Returns the rows of the validation split, their picture's id as the last tag.

    Args:
      path: the released folder, with `TextVQA_0.5.1_val.json` and `train_images/`; or parquet, a
        file or a folder of shards.

    Raises:
      MresError: neither is there; rows without a field, their ten answers or their picture,
        counted.
    """
    root = pathlib.Path(path)
    if files := parquet_files(root, name="textvqa_val"):
        table = read_parquet(files, COLUMNS, name="textvqa_val")
        return read_rows("textvqa_val", path, table, functools.partial(_of_table, Pictures()))
    contents = read_list("textvqa_val", root / QUESTIONS, under="data")
    return read_rows("textvqa_val", path, contents, functools.partial(_of_folder, root))


def _of_table(pictures: Pictures, where: str, content: Any) -> QuestionRow:
    row = _id(content, where)
    picture, _ = pictures.of_cell(content["image"], row)
    return _row(row, content, picture)


def _of_folder(root: pathlib.Path, where: str, content: Any) -> QuestionRow:
    row = _id(content, where)
    image = field(content, "image_id", str, row)
    return _row(row, content, picture_file(root / "train_images" / f"{image}.jpg", row))


def _id(content: Any, where: str) -> str:
    row = id_of(content, "question_id", where)
    if row == where:
        raise BadRowError(row, "it has no question_id", "unknown form")
    return row


def _row(row: str, content: Any, picture: str | bytes) -> QuestionRow:
    return QuestionRow(
        id=row,
        pictures=(picture,),
        question=field(content, "question", str, row),
        answers=texts(content.get("answers"), "answers", row, least=NUM_PEOPLE),
        scorer="vqa",
        tags=(field(content, "image_id", str, row),),
    )

"""TextVQA: questions about text in photographs, each answered by ten people.

Reference:
  Singh et al., 2019, "Towards VQA Models That Can Read", arXiv:1904.08920; TextVQA 0.5.1.
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

QUESTIONS = "TextVQA_0.5.1_val.json"
COLUMNS = ("question_id", "image_id", "question", "answers", "image")
NUM_PEOPLE = 10  # that answered each question


def load_textvqa(path: str | os.PathLike[str]) -> list[QuestionRow]:
    """Returns the rows of the validation split, their picture's id as the last tag.

    Args:
      path: the released folder, with `TextVQA_0.5.1_val.json` and `train_images/`; or parquet, a
        file or a folder of shards.

    Raises:
      BadRowError: a row without a field, its ten answers or its picture.
      MresError: neither is there.
    """
    return list(_rows(pathlib.Path(path)))


def _rows(root: pathlib.Path) -> Iterator[QuestionRow]:
    if files := parquet_files(root):
        pictures = Pictures()
        for content in read_parquet(files, COLUMNS, name="textvqa_val"):
            picture, _ = pictures.of_cell(content["image"], str(content["question_id"]))
            yield _row(content, picture)
        return
    contents = read_json_file(root / QUESTIONS)
    for number, content in enumerate(field(contents, "data", list, QUESTIONS)):
        row = str(content.get("question_id", f"#{number}"))
        image = field(content, "image_id", str, row)
        yield _row(content, picture_file(root / "train_images" / f"{image}.jpg", row))


def _row(content: Any, picture: str | bytes) -> QuestionRow:
    row = str(content.get("question_id"))
    if row == "None":
        raise MresError("textvqa_val: a row has no question_id.")
    return QuestionRow(
        id=row,
        pictures=(picture,),
        question=field(content, "question", str, row),
        answers=texts(content.get("answers"), "answers", row, least=NUM_PEOPLE),
        scorer="vqa",
        tags=(field(content, "image_id", str, row),),
    )

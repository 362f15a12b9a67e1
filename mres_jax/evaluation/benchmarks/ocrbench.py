"""OCRBench: 1,000 questions from 29 sources about text in pictures.

Reference:
  Liu et al., 2023, "OCRBench: On the Hidden Mystery of OCR in Large Multimodal Models",
  arXiv:2305.07895; data of echo840/OCRBench and Yuliang-Liu/MultimodalOCR.
"""

import functools
import os
import pathlib
from typing import Any

from mres_jax.data.rows import QuestionRow
from mres_jax.evaluation.benchmarks.shares import field, read_list, read_rows
from mres_jax.evaluation.benchmarks.tables import (
    Pictures,
    parquet_files,
    picture_file,
    read_parquet,
    texts,
)

COLUMNS = ("dataset", "question", "question_type", "answer", "image")
FORMULAS = "HME100k"  # the source whose answers are formulas


def load_ocrbench(path: str | os.PathLike[str]) -> list[QuestionRow]:
    """Returns the rows; `type` is the kind of question, tags are the source and the picture.

    Args:
      path: the released folder, with `OCRBench.json` and `OCRBench_Images/`; or parquet, a file or
        a folder of shards.

    Raises:
      MresError: neither is there; rows without a field, an answer or their picture, counted.
    """
    root = pathlib.Path(path)
    if files := parquet_files(root, name="ocrbench"):
        contents = read_parquet(files, COLUMNS, name="ocrbench")
        return read_rows("ocrbench", path, contents, functools.partial(_of_table, Pictures()))
    contents = read_list("ocrbench", root / "OCRBench.json")
    return read_rows("ocrbench", path, contents, functools.partial(_of_folder, root))


def _of_table(pictures: Pictures, row: str, content: Any) -> QuestionRow:
    picture, key = pictures.of_cell(content["image"], row)
    names = ("dataset", "question", "question_type")
    source, question, kind = (field(content, name, str, row) for name in names)
    answers = texts(content["answer"], "answer", row)
    return _row(row, picture, question, answers, kind, source, key)


def _of_folder(root: pathlib.Path, row: str, content: Any) -> QuestionRow:
    names = ("dataset_name", "question", "type", "image_path")
    source, question, kind, image = (field(content, name, str, row) for name in names)
    picture = picture_file(root / "OCRBench_Images" / image, row)
    answers = texts(content.get("answers"), "answers", row)
    return _row(row, picture, question, answers, kind, source, image)


def _row(
    row: str,
    picture: str | bytes,
    question: str,
    answers: tuple[str, ...],
    kind: str,
    source: str,
    key: str,
) -> QuestionRow:
    return QuestionRow(
        id=row,
        pictures=(picture,),
        question=question.strip(),
        answers=answers,
        type=kind,
        scorer="formula" if source == FORMULAS else "contains",
        tags=(source, key),
    )

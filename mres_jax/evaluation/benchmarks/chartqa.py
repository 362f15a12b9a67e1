"""ChartQA: questions about charts, written by people or made from captions.

Reference:
  Masry et al., 2022, "ChartQA", arXiv:2203.10244; data of vis-nlp/ChartQA.
"""

import functools
import os
import pathlib
from collections.abc import Iterator
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

COLUMNS = ("type", "question", "answer", "image")
KINDS = ("human", "augmented")


def load_chartqa(path: str | os.PathLike[str]) -> list[QuestionRow]:
    """Returns the rows of the test split; `type` is `human` or `augmented`.

    Args:
      path: the released folder `test`, with `test_human.json`, `test_augmented.json` and `png/`;
        or parquet, a file or a folder of shards.

    Raises:
      MresError: neither is there; rows without a field or their picture, counted.
    """
    root = pathlib.Path(path)
    if files := parquet_files(root, name="chartqa"):
        contents = read_parquet(files, COLUMNS, name="chartqa")
        return read_rows("chartqa", path, contents, functools.partial(_of_table, Pictures()))
    return read_rows("chartqa", path, _folder(root), functools.partial(_of_folder, root))


def _of_table(pictures: Pictures, row: str, content: Any) -> QuestionRow:
    picture, key = pictures.of_cell(content["image"], row)
    kind = field(content, "type", str, row).removesuffix("_test")
    answers = texts(content["answer"], "answer", row)
    return _row(row, picture, field(content, "question", str, row), answers, kind, key)


def _folder(root: pathlib.Path) -> Iterator[tuple[str, str, Any]]:
    for kind in KINDS:
        for number, content in enumerate(read_list("chartqa", root / f"test_{kind}.json")):
            yield kind, f"{kind}#{number}", content


def _of_folder(root: pathlib.Path, where: str, part: tuple[str, str, Any]) -> QuestionRow:
    kind, row, content = part
    name = field(content, "imgname", str, row)
    picture = picture_file(root / "png" / name, row)
    answers = texts(content.get("label"), "label", row)
    return _row(row, picture, field(content, "query", str, row), answers, kind, name)


def _row(
    row: str, picture: str | bytes, question: str, answers: tuple[str, ...], kind: str, key: str
) -> QuestionRow:
    return QuestionRow(
        id=row,
        pictures=(picture,),
        question=question,
        answers=answers,
        type=kind,
        scorer="relaxed",
        tags=(key,),
    )

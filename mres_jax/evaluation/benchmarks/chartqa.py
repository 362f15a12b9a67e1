"""ChartQA: questions about charts, written by people or made from captions.

Reference:
  Masry et al., 2022, "ChartQA", arXiv:2203.10244; data of vis-nlp/ChartQA.
"""

import os
import pathlib
from collections.abc import Iterator

from mres_jax.data.rows import QuestionRow
from mres_jax.evaluation.benchmarks.shares import field, read_json_file
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
      BadRowError: a row without a field or its picture.
      MresError: neither is there.
    """
    root = pathlib.Path(path)
    files = parquet_files(root)
    return list(_table(files) if files else _folder(root))


def _table(files: list[pathlib.Path]) -> Iterator[QuestionRow]:
    pictures = Pictures()
    for number, content in enumerate(read_parquet(files, COLUMNS, name="chartqa")):
        row = f"#{number}"
        picture, key = pictures.of_cell(content["image"], row)
        kind = field(content, "type", str, row).removesuffix("_test")
        answers = texts(content["answer"], "answer", row)
        yield _row(row, picture, field(content, "question", str, row), answers, kind, key)


def _folder(root: pathlib.Path) -> Iterator[QuestionRow]:
    for kind in KINDS:
        for number, content in enumerate(read_json_file(root / f"test_{kind}.json")):
            row = f"{kind}#{number}"
            name = field(content, "imgname", str, row)
            picture = picture_file(root / "png" / name, row)
            answers = texts(content.get("label"), "label", row)
            yield _row(row, picture, field(content, "query", str, row), answers, kind, name)


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

"""HR-Bench 4K and 8K: multiple choice about small things in large pictures, four cycles each.

Reference:
  Wang et al., 2024, "Divide, Conquer and Combine", arXiv:2408.15556; data of DreamMr/HR-Bench.
"""

import base64
import binascii
import csv
import functools
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mres_jax.data.rows import QuestionRow
from mres_jax.errors import BadRowError, MresError
from mres_jax.evaluation.benchmarks.shares import field, id_of, read_rows, shares
from mres_jax.evaluation.benchmarks.tables import Pictures, check_columns, read_parquet
from mres_jax.protocols import Answer
from mres_jax.scoring import Interval, wilson_interval

CATEGORIES = ("single", "cross")
LETTERS = ("A", "B", "C", "D")
COLUMNS = ("index", "question", "answer", "category", *LETTERS, "cycle_category", "image")


def load_hr_bench(file: str | os.PathLike[str]) -> list[QuestionRow]:
    """Returns the rows of a released file: `.tsv`, or `.parquet` where pyarrow is installed.

    A picture that several rows share, as the cycles of a question do, is held once.

    Raises:
      MresError: no such file, columns that are missing, no pyarrow; rows without a field or whose
        picture is no base64, counted.
    """
    path, pictures = pathlib.Path(file), Pictures()
    if not path.is_file():
        raise MresError(f"hrbench {file}: no such file.")
    read = {".tsv": _read_tsv, ".parquet": _read_parquet}.get(path.suffix)
    if read is None:
        raise MresError(f"hrbench {file}: is no .tsv and no .parquet.")
    return read_rows("hrbench", file, read(path), functools.partial(_row, pictures))


def _read_tsv(path: pathlib.Path) -> Iterator[Mapping[str, Any]]:
    limit = csv.field_size_limit(sys.maxsize)  # a picture is one field
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines, delimiter="\t")
            check_columns("hrbench", path, reader.fieldnames or (), COLUMNS)
            yield from reader
    except (csv.Error, UnicodeDecodeError) as error:
        raise MresError(f"hrbench {path}: no table ({error}).") from None
    finally:
        csv.field_size_limit(limit)


def _read_parquet(path: pathlib.Path) -> Iterator[Mapping[str, Any]]:
    return read_parquet([path], COLUMNS, name="hrbench")


def _row(pictures: Pictures, where: str, content: Any) -> QuestionRow:
    row = id_of(content, "index", where)
    answer = field(content, "answer", str, row).strip()
    category = field(content, "category", str, row)
    if answer not in LETTERS or category not in CATEGORIES:
        reason = f"answer {answer!r} (A to D), category {category!r} ({', '.join(CATEGORIES)})"
        raise BadRowError(row, reason, "no answer")
    picture, key = pictures.of_bytes(_picture(content["image"], row))
    return QuestionRow(
        id=row,
        pictures=(picture,),
        question=field(content, "question", str, row),
        answers=(answer,),
        type=category,
        options=tuple(str(content[letter]) for letter in LETTERS),
        scorer="choice",
        tags=(str(content["cycle_category"]), key),
    )


def _picture(text: Any, row: str) -> bytes:
    try:
        picture = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        picture = b""
    if not picture:
        raise BadRowError(row, "its image is no base64")
    return picture


def score_hr_bench(rows: Sequence[QuestionRow], answers: Sequence[Answer]) -> dict[str, Interval]:
    """Returns the share right: `average` over all rows, `single`, `cross`, and `circular`.

    The benchmark's own numbers are the first three, means over cycles. `circular` is stricter:
    questions that are right in every cycle, of those whose four cycles are all there.
    """
    right = [row.grade(answer) for row, answer in zip(rows, answers, strict=True)]
    cycles: dict[tuple[str, str], list[float]] = {}
    for row, score in zip(rows, right, strict=True):
        cycles.setdefault((row.question, row.tags[1]), []).append(score)
    whole = [scores for scores in cycles.values() if len(scores) == len(LETTERS)]
    return {
        **shares(rows, right, lambda row: "average"),
        **shares(rows, right, lambda row: row.type),
        "circular": wilson_interval(sum(map(min, whole)), len(whole)),
    }

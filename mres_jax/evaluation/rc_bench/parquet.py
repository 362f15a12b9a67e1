"""Annotated pictures in a parquet file, as Hugging Face writes it; needs the extra `parquet`."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mres_jax.data.rows.sources.parquet import Table
from mres_jax.data.rows.types import Fault
from mres_jax.errors import MresError
from mres_jax.evaluation.rc_bench.annotations import NAMES, Annotated, collect, field, header_of
from mres_jax.geometry import Size


class ParquetSource:
    """Questions and pictures in one file; one row group is in memory at a time."""

    def __init__(self, file: pathlib.Path):
        self.name = str(file)
        self._table = Table(file, what="rcbench")
        names = [name for many in NAMES.values() for name in many]
        self._columns = [name for name in self._table.columns if name in {*names, "type"}]
        if missing := [name for name in ("picture", "question", "answers") if not self._has(name)]:
            raise MresError(
                f"rcbench {file}: no column for {', '.join(missing)}; it has "
                f"{', '.join(self._table.columns)}. A picture is in one of "
                f"{', '.join(NAMES['picture'])}, an answer in {', '.join(NAMES['answers'])}."
            )
        self.rows, self.bad = collect(self._contents(), _size_of)

    def picture(self, row: Annotated) -> bytes:
        """Returns the file of a row's picture."""
        at = row.number
        for group, count in enumerate(self._table.group_rows):
            if at < count:
                return picture_bytes(self._table.read(group, self._columns)[at])
            at -= count
        raise IndexError(row.number)

    def _has(self, name: str) -> bool:
        return any(key in self._columns for key in NAMES[name])

    def _contents(self) -> Iterator[tuple[int, Any]]:
        groups = range(len(self._table.group_rows))
        contents = (row for group in groups for row in self._table.read(group, self._columns))
        return enumerate(contents)


def _size_of(content: Any) -> Size:
    return header_of(picture_bytes(content), "of the row")


def picture_bytes(content: Any) -> bytes:
    """Returns the picture file that a row holds; raises `Fault` where it holds none."""
    value = field(content, "picture")
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    value = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(value, bytes) or not value:
        raise Fault("missing picture", "the row holds no bytes of a picture")
    return value

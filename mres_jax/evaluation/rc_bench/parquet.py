"""Annotated pictures in parquet files, as Hugging Face writes them; needs the extra `parquet`."""

import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mres_jax.data.rows.sources.parquet import Table
from mres_jax.data.rows.types import Fault
from mres_jax.errors import MresError
from mres_jax.evaluation.rc_bench.annotations import NAMES, Annotated, collect, field, header_of
from mres_jax.geometry import Size


class ParquetSource:
    """Questions and pictures in one or more files; one row group is in memory at a time.

    Args:
      place: the file, or the folder of the files.
      files: in the order of their rows.
    """

    def __init__(self, place: pathlib.Path, files: Sequence[pathlib.Path]):
        self.name = str(place)
        self._table = Table(files[0], what="rcbench")
        self._groups = [
            (file, group, rows)
            for file in files
            for group, rows in enumerate(self._checked(file).group_rows)
        ]
        self.rows, self.bad = collect(self._contents(), _look)

    def picture(self, row: Annotated) -> bytes:
        """Returns the file of a row's picture."""
        at = row.number
        for file, group, count in self._groups:
            if at < count:
                return picture_bytes(self._read(file, group)[at])
            at -= count
        raise IndexError(row.number)

    def _checked(self, file: pathlib.Path) -> Table:
        """The table of a file, with what is needed of it."""
        table = self._open(file)
        names = _columns(table)
        needed = ("picture", "question", "answers")
        if missing := [each for each in needed if not set(NAMES[each]) & set(names)]:
            raise MresError(
                f"rcbench {file}: no column for {', '.join(missing)}; it has "
                f"{', '.join(table.columns)}. A picture is in one of "
                f"{', '.join(NAMES['picture'])}, an answer in {', '.join(NAMES['answers'])}."
            )
        return table

    def _open(self, file: pathlib.Path) -> Table:
        """The table of a file; the last is kept, with its last group."""
        if self._table.file != file:
            self._table = Table(file, what="rcbench")
        return self._table

    def _read(self, file: pathlib.Path, group: int) -> list[dict[str, Any]]:
        table = self._open(file)
        return table.read(group, _columns(table))

    def _contents(self) -> Iterator[tuple[int, Any]]:
        contents = (row for file, group, _ in self._groups for row in self._read(file, group))
        return enumerate(contents)


def _columns(table: Table) -> list[str]:
    """Those that are read."""
    names = [name for many in NAMES.values() for name in many]
    return [name for name in table.columns if name in {*names, "type"}]


def _look(content: Any) -> tuple[str, Size]:
    """A name that rows of one picture share, and its size."""
    picture = picture_bytes(content)
    return f"sha256 {hashlib.sha256(picture).hexdigest()}", header_of(picture, "of the row")


def picture_bytes(content: Any) -> bytes:
    """Returns the picture file that a row holds; raises `Fault` where it holds none."""
    value = field(content, "picture")
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    value = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(value, bytes) or not value:
        raise Fault("missing picture", "the row holds no bytes of a picture")
    return value

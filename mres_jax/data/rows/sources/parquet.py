"""Rows in parquet files, as Hugging Face writes them; needs the extra `parquet`."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mres_jax.data.rows.files import Contained
from mres_jax.data.rows.scan import Found
from mres_jax.data.rows.sources.addresses import Address
from mres_jax.data.rows.sources.holding import hold, renamed
from mres_jax.data.rows.sources.source import FrontToBack
from mres_jax.data.rows.types import Fault
from mres_jax.errors import MresError


class Table:
    """One parquet file; a row group is in memory at a time.

    Args:
      file: the file.
      what: begins messages.

    Raises:
      MresError: pyarrow is missing, or the file is no whole parquet file.
    """

    def __init__(self, file: pathlib.Path | Address, *, what: str = "rows"):
        self.file, self.what = file, what
        self._parquet = _open(file, what)
        self._group: tuple[int, tuple[str, ...], list[Any]] = (-1, (), [])

    @property
    def columns(self) -> list[str]:
        """Their names."""
        return self._parquet.schema_arrow.names

    @property
    def group_rows(self) -> list[int]:
        """Rows of each group."""
        file = self._parquet
        return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]

    def read(self, group: int, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Returns the rows of one group; the last is kept.

        Raises:
          MresError: they cannot be read.
        """
        key = (group, tuple(columns or ()))
        if self._group[:2] != key:
            try:
                table = self._parquet.read_row_group(group, columns=columns)
                self._group = *key, table.to_pylist()
            except (OSError, ValueError) as error:  # pyarrow's own are both of these
                counts = self.group_rows
                raise MresError(
                    f"{self.what} {self.file}: the {counts[group]} rows of group {group} (of "
                    f"{len(counts)}) cannot be read: {_reason(error)}. Copy the file anew."
                ) from None
        return self._group[2]


class ParquetRows(FrontToBack):
    """Rows of one or more parquet files, in the order of their names.

    The columns are the fields of a row. A row group that cannot be read counts as bad rows.

    Args:
      place: the file, or the directory of the files.
      paths: of the files.
      fields: our name of a field -> its column.
    """

    files = Contained({})

    def __init__(
        self,
        place: pathlib.Path | Address,
        paths: Sequence[pathlib.Path | Address],
        *,
        fields: Mapping[str, str] | None = None,
    ):
        self.name, self.place, self.fields = place.name, str(place), dict(fields or {})
        self.paths = list(paths)
        for path in self.paths:
            columns = Table(path).columns
            if missing := [name for name in self.fields.values() if name not in columns]:
                raise MresError(
                    f"rows {path}: no column {', '.join(missing)}; it has {', '.join(columns)}."
                )

    def scan(self) -> Iterator[Found]:
        number = 0
        for path in self.paths:
            for content in _rows(Table(path)):
                yield hold(number, content if isinstance(content, Fault) else self._named(content))
                number += 1

    def way(self) -> Mapping[str, Any]:
        return {"parquet": self.fields}

    def _named(self, content: Mapping[str, Any]) -> Mapping[str, Any] | Fault:
        return renamed(content, self.fields)


def _rows(table: Table) -> Iterator[dict[str, Any] | Fault]:
    for group, count in enumerate(table.group_rows):
        try:
            yield from table.read(group)
        except MresError as error:
            fault = Fault("unreadable", str(error).removeprefix("rows ").rstrip("."))
            yield from (fault for _ in range(count))


def _open(file: pathlib.Path | Address, what: str) -> Any:
    try:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports], an extra
    except ImportError:
        raise MresError(
            f"{what} {file}: parquet needs pyarrow. pip install 'mres-jax[parquet]'."
        ) from None
    try:
        return parquet.ParquetFile(file.open() if isinstance(file, Address) else file)
    except (OSError, ValueError) as error:
        raise MresError(f"{what} {file}: no whole parquet file: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120].rstrip(".")

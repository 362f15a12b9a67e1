"""Annotated pictures in a parquet file, as Hugging Face writes it; needs the extra `parquet`."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mres_jax.data.rows.types import Fault
from mres_jax.errors import MresError
from mres_jax.evaluation.rc_bench.annotations import NAMES, Annotated, collect, field, header_of
from mres_jax.geometry import Size


class ParquetSource:
    """Questions and pictures in one file; one row group is in memory at a time."""

    def __init__(self, file: pathlib.Path):
        self.name = str(file)
        self._file = _open(file)
        names = [name for many in NAMES.values() for name in many]
        self._columns = [name for name in self._file.schema_arrow.names if name in {*names, "type"}]
        if missing := [name for name in ("picture", "question", "answers") if not self._has(name)]:
            raise MresError(
                f"rcbench {file}: no column for {', '.join(missing)}; it has "
                f"{', '.join(self._file.schema_arrow.names)}. A picture is in one of "
                f"{', '.join(NAMES['picture'])}, an answer in {', '.join(NAMES['answers'])}."
            )
        self._group: tuple[int, list[Any]] = (-1, [])
        self.rows, self.bad = collect(self._contents(), _size_of)

    def picture(self, row: Annotated) -> bytes:
        """Returns the file of a row's picture."""
        at = row.number
        for group in range(self._file.num_row_groups):
            count = self._file.metadata.row_group(group).num_rows
            if at < count:
                return picture_bytes(self._read(group)[at])
            at -= count
        raise IndexError(row.number)

    def _has(self, name: str) -> bool:
        return any(key in self._columns for key in NAMES[name])

    def _contents(self) -> Iterator[tuple[int, Any]]:
        number = 0
        for group in range(self._file.num_row_groups):
            for content in self._read(group):
                yield number, content
                number += 1

    def _read(self, group: int) -> list[Any]:
        if self._group[0] != group:
            try:
                table = self._file.read_row_group(group, columns=self._columns)
                self._group = group, table.to_pylist()
            except (OSError, ValueError) as error:  # pyarrow's own are both of these
                count = self._file.metadata.row_group(group).num_rows
                raise MresError(
                    f"rcbench {self.name}: the {count} rows of group {group} (of "
                    f"{self._file.num_row_groups}) cannot be read: {_reason(error)}. "
                    "Copy the file anew."
                ) from None
        return self._group[1]


def _open(file: pathlib.Path) -> Any:
    try:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports], an extra
    except ImportError:
        raise MresError(
            f"rcbench {file}: parquet needs pyarrow. pip install 'mres-jax[parquet]'."
        ) from None
    try:
        return parquet.ParquetFile(file)
    except (OSError, ValueError) as error:
        raise MresError(f"rcbench {file}: no whole parquet file: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120].rstrip(".")


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

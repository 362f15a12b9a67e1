"""Tables and pictures of benchmarks as hubs keep them: parquet, a picture in each row."""

import hashlib
import importlib
import importlib.util
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mres_jax.data.images import read_size
from mres_jax.errors import BadImageError, BadRowError, MresError
from mres_jax.files import check_shards

BATCH = 16  # rows read at a time: each holds a picture


def parquet_files(path: pathlib.Path, *, name: str) -> list[pathlib.Path]:
    """Returns the parquet files that a path names or holds, in order; none where there are none.

    Args:
      path: a file or a folder.
      name: of the benchmark, for errors.

    Raises:
      MresError: shards of the folder are missing.
    """
    if path.suffix == ".parquet":
        return [path]
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else []
    check_shards(files, what=f"{name} {path}")
    return files


def read_parquet(
    files: Sequence[pathlib.Path], columns: Sequence[str], *, name: str
) -> Iterator[Mapping[str, Any]]:
    """Yields the rows of parquet files.

    Args:
      files: shards of one table.
      columns: that must be there; only they are read.
      name: of the benchmark, for errors.

    Raises:
      MresError: no pyarrow, no such file, no parquet, columns that are missing.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise MresError(
            f"{name} {files[0]}: parquet needs pyarrow (pip install 'mres-jax[parquet]')."
        )
    parquet: Any = importlib.import_module("pyarrow.parquet")
    errors = importlib.import_module("pyarrow").ArrowException
    for file in files:
        if not file.is_file():
            raise MresError(f"{name} {file}: no such file.")
        try:
            table = parquet.ParquetFile(file)
            check_columns(name, file, table.schema_arrow.names, columns)
            for batch in table.iter_batches(BATCH, columns=list(columns)):
                yield from batch.to_pylist()
        except (errors, OSError) as error:
            raise MresError(f"{name} {file}: no parquet ({error}).") from None


def check_columns(
    name: str, file: pathlib.Path, names: Sequence[str], columns: Sequence[str]
) -> None:
    """Raises `MresError` that names the columns which a table lacks."""
    missing = [column for column in columns if column not in names]
    if missing:
        raise MresError(f"{name} {file}: no columns {', '.join(missing)}.")


class Pictures:
    """Pictures by their contents, each held once however many rows show it."""

    def __init__(self):
        self._held: dict[str, bytes] = {}

    def of_bytes(self, content: bytes) -> tuple[bytes, str]:
        """Returns the bytes of a picture's file and a name for them."""
        key = hashlib.sha256(content).hexdigest()[:16]
        return self._held.setdefault(key, content), key

    def of_cell(self, cell: Any, row: str) -> tuple[bytes, str]:
        """Returns what a cell of a parquet table holds, `{bytes, path}`.

        Raises:
          BadRowError: it holds no bytes.
        """
        content = cell.get("bytes") if isinstance(cell, Mapping) else cell
        if not isinstance(content, bytes) or not content:
            raise BadRowError(row, "its image holds no bytes")
        return self.of_bytes(content)


def picture_file(path: pathlib.Path, row: str) -> str:
    """Returns the path of a picture that can be opened.

    Raises:
      BadRowError: it cannot.
    """
    try:
        read_size(path)
    except BadImageError as error:
        kind = "bad picture" if path.is_file() else "missing picture"
        raise BadRowError(row, str(error), kind) from None
    return str(path)


def texts(value: Any, name: str, row: str, *, least: int = 1) -> tuple[str, ...]:
    """Returns a field that is a text or a list of texts.

    Raises:
      BadRowError: it is neither, or holds fewer than `least`.
    """
    several = (value,) if isinstance(value, str) else value
    ok = isinstance(several, list | tuple) and all(isinstance(text, str) for text in several)
    if not ok or len(several) < least:
        raise BadRowError(row, f"{name} is no list of at least {least} texts", "no answer")
    return tuple(several)

"""ArrayRecord shards, one behind the other: a shard has its name only when it is whole."""

import contextlib
import errno
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator

from mres_jax.data.rows.sources.facts import crc32_of
from mres_jax.data.rows.sources.prepared import OPTIONS, Shard, open_records, read_records
from mres_jax.data.rows.sources.records import unpack_record
from mres_jax.data.rows.types import Fault
from mres_jax.errors import MresError

_AT_ONCE = 64  # records read again at a time


class ShardWriter:
    """Writes records into shards of a directory, behind those that are there.

    Args:
      directory: of the shards.
      shard_bytes: a shard ends with the record that makes it so large.
      log: receives a line for each shard.

    Attributes:
      shards: that are whole.
      lengths: of all their records, bytes.
      checksums: CRC-32 of all their records.
    """

    def __init__(self, directory: pathlib.Path, shard_bytes: int, log: Callable[[str], None]):
        self.directory, self.shard_bytes, self.log = directory, shard_bytes, log
        self.shards: list[Shard] = []
        self.lengths: list[int] = []
        self.checksums: list[int] = []

    def go_on(self) -> None:
        """Takes the shards that stand there; every record of them is read and checked.

        Raises:
          MresError: one is damaged.
        """
        while (path := self._path()).is_file():
            try:
                self._take(path)
            except Fault as fault:
                raise MresError(
                    f"prepare {self.directory}: {path.name} is damaged ({fault.reason}). Remove it "
                    "and the shards behind it, and start again."
                ) from None
        if self.shards:
            self.log(
                f"{self.directory}: {len(self.lengths):,} rows in {len(self.shards)} shards are "
                "there; going on"
            )

    def write(self, records: Iterator[bytes]) -> None:
        """Writes all records.

        Raises:
          OSError: the disk is full or refuses; whole shards stay.
        """
        waiting = next(records, None)
        while waiting is not None:
            path, size, start = self._path(), 0, len(self.lengths)
            scratch = path.with_name(f".{path.name}.tmp")
            with _shard(scratch) as add:
                while waiting is not None and size < self.shard_bytes:
                    add(waiting)
                    self._note(waiting)
                    size += len(waiting)
                    waiting = next(records, None)
            _bring_to_disk(scratch)
            scratch.replace(path)
            _bring_to_disk(self.directory)
            self._add(path, len(self.lengths) - start)
            self.log(f"{path.name}: {self.shards[-1].rows:,} rows, {size / 1e6:,.1f} MB")

    def _take(self, path: pathlib.Path) -> None:
        reader, rows = open_records(path)
        for first in range(0, rows, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, rows))
            for record in read_records(reader, list(numbers)):
                self._note(unpack_record(len(self.lengths), record).source)
        self._add(path, rows)

    def _path(self) -> pathlib.Path:
        return self.directory / f"rows-{len(self.shards):05d}.array_record"

    def _note(self, record: bytes) -> None:
        self.lengths.append(len(record))
        self.checksums.append(zlib.crc32(record))

    def _add(self, path: pathlib.Path, rows: int) -> None:
        self.shards.append(Shard(path.name, rows, path.stat().st_size, crc32_of(path)))


@contextlib.contextmanager
def _shard(path: pathlib.Path) -> Iterator[Callable[[bytes], None]]:
    """Opens a shard to write records to; all that fails is an OSError."""
    from array_record.python.array_record_module import ArrayRecordWriter

    path.unlink(missing_ok=True)
    writer = ArrayRecordWriter(os.fspath(path), OPTIONS)

    def add(record: bytes) -> None:
        with _as_os_error():
            writer.write(record)

    try:
        yield add
        with _as_os_error():
            writer.close()
    except BaseException:
        with contextlib.suppress(RuntimeError):
            writer.close()
        path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # the library says everything with this
        text = " ".join(str(error).split())[:120]
        full = any(word in text.lower() for word in ("no space", "too large", "quota"))
        raise OSError(errno.ENOSPC if full else errno.EIO, text) from None


def _bring_to_disk(path: pathlib.Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)

"""Rows in ArrayRecord shards, each with the bytes of its files; written by `prepare_rows`.

A directory of `rows-00000.array_record` and so on, `index/` and `card.json`, which is written last:
without it the directory is not whole.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mres_jax.data.rows.files import Contained
from mres_jax.data.rows.scan import Found
from mres_jax.data.rows.sources.addresses import Address
from mres_jax.data.rows.sources.facts import digest_of, facts_of
from mres_jax.data.rows.sources.fetching import COPY_ANEW
from mres_jax.data.rows.sources.records import unpack_record
from mres_jax.data.rows.sources.source import Source
from mres_jax.data.rows.types import Fault
from mres_jax.errors import MresError

CARD, INDEX, BEGUN = "card.json", "index", "begun.json"
FORMAT = 1
MAX_OPEN = 64  # shards of a process, which may open some 1,000 files
OPTIONS = "group_size:1,uncompressed"  # pictures are compressed, and rows are read one by one


class Shard(NamedTuple):
    """One file of records.

    Attributes:
      name: of the file.
      rows: in it.
      bytes: of the file.
      crc32: of the file, hexadecimal; "" of a card that has none.
    """

    name: str
    rows: int
    bytes: int
    crc32: str = ""


class PreparedRows(Source):
    """A prepared directory.

    It is a random-access source as grain takes them: records by number.

    Args:
      directory: with a card.
      place: what messages call it; the directory itself by default.

    Raises:
      MresError: no whole set, or one of a later version; a shard is missing or was changed.
    """

    files = Contained({})  # each row has its own

    def __init__(self, directory: pathlib.Path, *, place: str | None = None):
        self.directory, self.place = directory, place or str(directory)
        self.name = os.path.basename(self.place)
        self.card = parse_card(read_card(directory), self.place)
        self.shards = [Shard(**shard) for shard in self.card["shards"]]
        self._starts = np.cumsum([0, *(shard.rows for shard in self.shards)])
        self._readers: dict[int, Any] = {}
        for shard in self.shards:
            self._check(shard)

    def __len__(self) -> int:
        """Records."""
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> bytes:
        """Returns one record; raises `Fault` where it cannot be read."""
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        if not 0 <= number < len(self):
            raise IndexError(number)
        return read_records(self._reader(shard), [number - int(self._starts[shard])])[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": {}}  # another process opens the files itself

    def scan(self) -> Iterator[Found]:
        for number in range(len(self)):
            try:
                record = self[number]
                yield self.decode(number, record)
            except Fault as fault:
                yield Found(number, b"", fault, self.files)

    def read(self, offset: int, length: int) -> bytes:
        return self[offset]

    def decode(self, offset: int, content: bytes) -> Found:
        return unpack_record(offset, content)

    def facts(self) -> dict[str, int]:
        return facts_of(self.directory / CARD)

    def digest(self) -> str:
        return digest_of(self.directory / CARD)

    def way(self) -> Mapping[str, Any]:
        return prepared_way()

    def index_folders(self) -> tuple[pathlib.Path, ...]:
        return (self.directory / INDEX, *super().index_folders())

    def _check(self, shard: Shard) -> None:
        found = self._bytes_of(shard)
        if found is None:
            raise MresError(f"rows {self.place}: {shard.name} is missing.{COPY_ANEW}")
        if found != shard.bytes:
            have = f"{shard.name} has {found:,} of {shard.bytes:,} bytes"
            raise MresError(f"rows {self.place}: {have}.{COPY_ANEW}")

    def _bytes_of(self, shard: Shard) -> int | None:
        """Of its file; None where there is none."""
        try:
            return self._path(shard).stat().st_size
        except OSError:
            return None

    def _path(self, shard: Shard) -> pathlib.Path:
        """Its file, on a disk of this machine."""
        return self.directory / shard.name

    def _reader(self, number: int) -> Any:
        reader = self._readers.get(number)
        if reader is None:
            shard = self.shards[number]
            reader, count = open_records(self._path(shard))
            if count != shard.rows:
                have = f"{shard.name} has {count:,} of {shard.rows:,} rows"
                raise Fault("changed", f"{have}. Prepare the rows again")
            if len(self._readers) >= MAX_OPEN:
                self._readers.pop(next(iter(self._readers)), None)
            self._readers[number] = reader
        return reader


def prepared_way() -> dict[str, Any]:
    """What `PreparedRows.way` returns: the rows are all that counts."""
    return {"prepared": FORMAT}


def read_card(directory: pathlib.Path | Address) -> bytes:
    """Returns the card of a prepared directory as it is.

    Raises:
      MresError: there is none, or none that can be read.
    """
    path = directory / CARD
    if not path.is_file():
        unfinished = (directory / BEGUN).is_file()
        what = "was not finished; go on with the same command" if unfinished else "has no card.json"
        raise MresError(f"rows {directory}: {what}.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unread_card(directory, error) from None


def parse_card(content: bytes, place: str) -> dict[str, Any]:
    """Returns what a card says; raises `MresError` where that is nothing of ours."""
    try:
        card = json.loads(content)
        shards, version = card["shards"], card["format"]
        known = [Shard(**shard) for shard in shards]
        if not all(type(n) is int and n > 0 for shard in known for n in shard[1:3]):
            raise ValueError("a shard has no rows or no bytes")
    except (ValueError, KeyError, TypeError) as error:
        raise _unread_card(place, error) from None
    if version != FORMAT:
        raise MresError(f"rows {place}: is of format {version}; this version reads {FORMAT}.")
    if any(os.path.basename(shard.name) != shard.name for shard in known):
        raise MresError(f"rows {place}: {CARD} names a shard in another directory.")
    return card


def _unread_card(place: object, error: Exception) -> MresError:
    reason = " ".join(str(error).split())[:120]
    return MresError(f"rows {place}: {CARD} cannot be read ({reason}).")


def open_records(path: pathlib.Path) -> tuple[Any, int]:
    """Returns the reader of a shard, and how many records it has.

    Raises:
      Fault: it has none, as a damaged file does.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(os.fspath(path), options="readahead_buffer_size:0")
    count = reader.num_records() if reader.ok() else 0  # a damaged file says 0, and no more
    if not count:
        raise Fault("changed", f"{path} has no records that could be read")
    return reader, count


def read_records(reader: Any, numbers: Sequence[int]) -> list[bytes]:
    """Returns records of a shard; raises `Fault` where they are damaged."""
    try:
        return reader.read(numbers)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise Fault("changed", f"record {numbers[0]} cannot be read ({reason})") from None

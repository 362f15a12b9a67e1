"""Prepared rows at an address: shards come whole onto a disk of this machine, once.

ArrayRecord's reader (0.8.6) opens local paths and, by a client of its own, `gs://`: one request a
record, no other store, and no end where it has no network. So shards are read from copies.
"""

import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from mres_jax.data.rows.scan import Found
from mres_jax.data.rows.sources.addresses import Address
from mres_jax.data.rows.sources.caches import cache_folder
from mres_jax.data.rows.sources.fetching import fetch_all, fetch_file
from mres_jax.data.rows.sources.prepared import (
    CARD,
    INDEX,
    PreparedRows,
    Shard,
    read_card,
)
from mres_jax.errors import MresError
from mres_jax.files import write_together

_INDEX_NAME = re.compile(r"[0-9a-f]+\.npz")


def _say_nothing(line: str) -> None:
    del line


class FetchedRows(PreparedRows):
    """A prepared directory at an address.

    Card and indexes are fetched when it is opened, a shard when a row of it is first read, by
    whichever process reads it. Copies stand in a folder of the user's caches that belongs to this
    address and this card, so what is prepared anew is fetched anew.

    Args:
      address: with a card.
      log: receives a line for each shard that is fetched.

    Raises:
      MresError: as `PreparedRows`; or the card has no checksums.
      RunError: the address cannot be reached, or the disk refuses.
    """

    def __init__(self, address: Address, log: Callable[[str], None] = _say_nothing):
        self._address, self._log = address, log
        card, self._found = read_card(address), address.listing()
        directory = cache_folder("shards", str(address).encode() + card)
        if not (directory / CARD).is_file():
            write_together(directory, {CARD: card})
        super().__init__(directory, place=str(address))
        if not all(shard.crc32 for shard in self.shards):
            raise MresError(
                f"rows {address}: {CARD} has no checksums of the shards, as earlier versions wrote "
                "it. Prepare the rows again."
            )
        for name, size in (address / INDEX).listing().items():
            if _INDEX_NAME.fullmatch(name) and not (directory / INDEX / name).is_file():
                fetch_file(address / INDEX / name, directory / INDEX, size)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_log": _say_nothing}  # a log may be of one process

    def fetch(self) -> None:
        """Brings all shards here, several at a time; raises as `fetch_file`."""
        shards = {shard.name: shard for shard in self.shards}
        sizes = {name: shard.bytes for name, shard in shards.items()}
        fetch_all(
            self.directory,
            sizes,
            lambda name: self._path(shards[name]),
            what=self.place,
            log=self._log,
        )

    def scan(self) -> Iterator[Found]:
        self.fetch()
        return super().scan()

    def _bytes_of(self, shard: Shard) -> int | None:
        return self._found.get(shard.name)

    def _path(self, shard: Shard) -> pathlib.Path:
        return fetch_file(
            self._address / shard.name,
            self.directory,
            shard.bytes,
            crc32=shard.crc32,
            log=self._log,
        )

"""What the index and a set of rows need of the place where rows are."""

import abc
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mres_jax.data.rows.files import Files
from mres_jax.data.rows.scan import Found
from mres_jax.data.rows.sources.addresses import Address
from mres_jax.data.rows.sources.caches import cache_folder
from mres_jax.data.rows.sources.facts import digest_of, facts_of
from mres_jax.errors import MresError


class Source(abc.ABC):
    """Rows in an order, with the files that they name.

    It goes to worker processes, so it can be pickled, and is small then.

    Attributes:
      name: in messages, short.
      place: in messages, whole.
      files: that rows name where they hold none themselves.
    """

    name: str
    place: str
    files: Files

    @abc.abstractmethod
    def scan(self) -> Iterator[Found]:
        """Yields all rows in order, the bad ones with their `Fault` as content.

        Raises:
          MresError: it holds no rows, or breaks off.
        """

    @abc.abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """Returns the bytes that a row was found with.

        Raises:
          Fault: they are not there any more.
          MresError: rows can only be scanned here.
        """

    @abc.abstractmethod
    def decode(self, offset: int, content: bytes) -> Found:
        """Returns the row that `read` gave the bytes of; raises `Fault` where they are none."""

    @abc.abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """Returns what tells cheaply that the rows are others."""

    @abc.abstractmethod
    def digest(self) -> str:
        """Returns the SHA-256 of all rows; asked only where `facts` differ in time alone."""

    def way(self) -> Mapping[str, Any]:
        """Returns what an index of these rows depends on beside the rows."""
        return {}

    def index_folders(self) -> tuple[pathlib.Path, ...]:
        """Returns where indexes may stand, the best place first."""
        return (cache_folder("rows", os.fsencode(self.place)),)


class FrontToBack(Source):
    """Rows of files that are only read from front to back, such as tar files.

    Attributes:
      paths: of the files, in the order of their rows.
    """

    paths: list[pathlib.Path | Address]

    def facts(self) -> dict[str, Any]:
        return facts_of(*self.paths)

    def digest(self) -> str:
        """Where stores tell versions, their SHA-256: the rows are not read once more for it."""
        return self.facts().get("versions") or digest_of(*self.paths)

    def read(self, offset: int, length: int) -> bytes:
        raise MresError(
            f"rows {self.place}: its rows are read from front to back only. Bring them into "
            f"shards first: mres data prepare {self.place} DIRECTORY"
        )

    def decode(self, offset: int, content: bytes) -> Found:
        raise NotImplementedError

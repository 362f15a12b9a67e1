"""Rows in a JSON file in a bucket, such as `gs://bucket/rows.json`, and pictures beside it.

Every picture is one request, for its header too: rows that are read more than once had better be
prepared into shards.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mres_jax.data.rows.files import Files
from mres_jax.data.rows.pictures import PictureFolder, check_name
from mres_jax.data.rows.scan import Found, decode_row, scan_rows
from mres_jax.data.rows.sources.addresses import Address
from mres_jax.data.rows.sources.facts import digest_of, facts_of
from mres_jax.data.rows.sources.source import Source
from mres_jax.data.rows.types import Fault, shown
from mres_jax.data.video.frames import in_order


class BucketFolder(Files):
    """Pictures and clips by name, under one address.

    Args:
      root: the address.
    """

    def __init__(self, root: Address):
        self.root = root

    def find(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            raise Fault("missing picture", f"{shown(name, 300)}: no such file") from None

    def has(self, name: str) -> bool:
        return self._path(name).exists()

    def frames_in(self, name: str) -> list[str] | None:
        path = self._path(name)
        return in_order(path.listing()) if path.is_dir() else None

    def _path(self, name: str) -> Address:
        check_name(name)
        return self.root / name


class BucketRows(Source):
    """A JSON list of rows, or JSON lines, at an address; rows are read from it by their place.

    Args:
      path: of the file.
      folder: that pictures and clips are named from.
    """

    def __init__(self, path: Address, folder: BucketFolder | PictureFolder):
        self.path, self.files, self._folder = path, folder, folder
        self.name, self.place = path.name, str(path)

    def scan(self) -> Iterator[Found]:
        return scan_rows(self.path)

    def read(self, offset: int, length: int) -> bytes:
        return self.path.read_bytes(offset, offset + length)

    def decode(self, offset: int, content: bytes) -> Found:
        return Found(offset, content, decode_row(content))

    def facts(self) -> dict[str, Any]:
        return facts_of(self.path)

    def digest(self) -> str:
        return digest_of(self.path)

    def way(self) -> Mapping[str, Any]:
        return {"folder": str(self._folder.root)}

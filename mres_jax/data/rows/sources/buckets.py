"""Rows in a JSON file in a bucket, such as `gs://bucket/rows.json`, and pictures beside it.

Every picture is one request, for its header too: rows that are read more than once had better be
prepared into shards on a disk.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from mres_jax.data.rows.files import Files
from mres_jax.data.rows.pictures import check_name
from mres_jax.data.rows.scan import Found, decode_row, scan_rows
from mres_jax.data.rows.sources.facts import digest_of
from mres_jax.data.rows.sources.source import Source
from mres_jax.data.rows.types import Fault, shown
from mres_jax.data.video.frames import in_order
from mres_jax.errors import MresError


class BucketFolder(Files):
    """Pictures and clips by name, under one address.

    Args:
      root: the address.
    """

    def __init__(self, root: epath.Path):
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
        return in_order(file.name for file in path.iterdir()) if path.is_dir() else None

    def _path(self, name: str) -> epath.Path:
        check_name(name)
        return self.root / name


class BucketRows(Source):
    """A JSON list of rows, or JSON lines, at an address.

    Args:
      path: address of the file.
      images: address that pictures and clips are named from; None: that of the file's folder.

    Raises:
      MresError: it is not there, cannot be reached, or is of a kind that is read from disks only.
    """

    def __init__(self, path: str, images: str | os.PathLike[str] | None):
        self.place, self.path = path, epath.Path(path)
        self.name = self.path.name
        if not self.name.endswith((".json", ".jsonl")):
            raise MresError(
                f"rows {path}: only .json and .jsonl are read from a bucket; copy others to a disk."
            )
        try:
            found = self.path.exists()
        except Exception as error:  # each kind of bucket has errors of its own
            reason = f"{type(error).__name__}: {shown(error)}"
            raise MresError(f"rows {path}: cannot be reached ({reason}).") from None
        if not found:
            raise MresError(f"rows {path}: no such file.")
        self._root = epath.Path(images or self.path.parent)
        self.files = BucketFolder(self._root)

    def scan(self) -> Iterator[Found]:
        return scan_rows(self.path)

    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def decode(self, offset: int, content: bytes) -> Found:
        return Found(offset, content, decode_row(content))

    def facts(self) -> dict[str, int]:
        status = self.path.stat()
        return {"bytes": status.length, "modified_ns": int(1e9 * (status.mtime or 0))}

    def digest(self) -> str:
        return digest_of(self.path)

    def way(self) -> Mapping[str, Any]:
        return {"folder": os.fspath(self._root)}

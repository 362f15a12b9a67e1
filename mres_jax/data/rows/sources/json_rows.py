"""Rows in a JSON file, beside a folder of pictures."""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.scan import Found, decode_row, scan_rows
from mres_jax.data.rows.sources.facts import digest_of, facts_of
from mres_jax.data.rows.sources.source import Source


class JsonRows(Source):
    """A JSON list of rows, or JSON lines; rows are read from the file by their place.

    Args:
      path: the file.
      folder: that pictures and clips are named from.
    """

    def __init__(self, path: pathlib.Path, folder: PictureFolder):
        self.path, self.files, self._folder = path, folder, folder
        self.name, self.place = path.name, str(path)

    def scan(self) -> Iterator[Found]:
        return scan_rows(self.path)

    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    def decode(self, offset: int, content: bytes) -> Found:
        return Found(offset, content, decode_row(content))

    def facts(self) -> dict[str, int]:
        return facts_of(self.path)

    def digest(self) -> str:
        return digest_of(self.path)

    def way(self) -> Mapping[str, Any]:
        """The picture folder counts by its place beside the rows: a data set can be moved."""
        return {
            "folder": os.path.relpath(self._folder.root, self.path.parent),
            "follow_links": self._folder.follow_links,
        }

    def index_folders(self) -> tuple[pathlib.Path, ...]:
        return (self.path.with_name(f"{self.path.name}.index"), *super().index_folders())

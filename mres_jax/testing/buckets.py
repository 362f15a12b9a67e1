"""A bucket in memory: what `gs://` is in tests."""

import contextlib
import pathlib
from collections.abc import Iterator

from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry as known


class Bucket(MemoryFileSystem):
    """All buckets of this process; they forget everything at the end of `bucket`."""

    protocol = ("gcs", "gs")
    store = {}  # noqa: RUF012, as the parent has it
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(str(path).removeprefix("gs:/").removeprefix("/"))

    def upload_folder(self, folder: pathlib.Path, address: str) -> None:
        """Copies all files of a folder to an address."""
        for file in folder.rglob("*"):
            if file.is_file():
                self.pipe(f"{address}/{file.relative_to(folder)}", file.read_bytes())


@contextlib.contextmanager
def bucket() -> Iterator[Bucket]:
    """Puts a `Bucket` in the place of `gs://`; other processes have none."""
    before = known.get("gs")
    known["gs"] = Bucket
    try:
        yield Bucket()
    finally:
        Bucket.store.clear()
        Bucket.pseudo_dirs[:] = [""]
        known.pop("gs")
        if before is not None:
            known["gs"] = before

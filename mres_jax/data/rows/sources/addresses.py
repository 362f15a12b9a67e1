"""Files and folders in a bucket or on a server, as fsspec reaches them."""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from mres_jax.data.rows.types import shown
from mres_jax.errors import MresError, RunError

# What stores call the version of a file, in the order of how well they tell it.
_VERSIONS = (
    "generation",
    "etag",
    "ETag",
    "md5Hash",
    "content_md5",
    "mtime",
    "updated",
    "LastModified",
    "last_modified",
    "created",
)


class Stat(NamedTuple):
    """What a store says of a file.

    Attributes:
      size: bytes.
      version: another text where the file is another one; "" where the store tells none.
    """

    size: int
    version: str


class Address:
    """A file or folder, such as `gs://bucket/rows.json`; the part of `pathlib.Path` that we use.

    It goes to other processes as its text. What fsspec needs for a kind of store (gcsfs for `gs://`,
    s3fs for `s3://`) has to be installed.

    Args:
      text: the whole address.

    Raises:
      MresError: from all that looks there: no such kind of store, or its package is missing.
      RunError: likewise: the store does not answer, or refuses.
    """

    def __init__(self, text: str):
        self.text = text.rstrip("/")

    def __str__(self) -> str:
        return self.text

    def __fspath__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> "Address":
        return Address(f"{self.text}/{name}")

    @property
    def name(self) -> str:
        """Its last part."""
        return self.text.rpartition("/")[2]

    @property
    def parent(self) -> "Address":
        """The folder that it is in."""
        return Address(self.text.rpartition("/")[0])

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self._kind() == "directory"

    def exists(self) -> bool:
        """Whether there is anything."""
        return self._kind() is not None

    def stat(self) -> Stat:
        """Returns bytes and version of a file; raises FileNotFoundError where there is none."""
        info = self._info()
        found = {name: str(info[name]) for name in _VERSIONS if info.get(name)}
        return Stat(int(info["size"] or 0), repr(found) if found else "")

    def listing(self) -> dict[str, int]:
        """Returns the bytes of a folder's files by name, sorted; none where there is no folder."""
        system, path = self._place()
        with _one_line(self.text):
            system.invalidate_cache()
            try:
                entries = system.ls(path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        files = {
            entry["name"].rpartition("/")[2]: int(entry["size"] or 0)
            for entry in entries
            if entry["type"] == "file" and entry["name"].rstrip("/") != path.rstrip("/")
        }
        return dict(sorted(files.items()))

    def iterdir(self) -> Iterator["Address"]:
        """Yields the files of a folder, sorted."""
        yield from (self / name for name in self.listing())

    def all_named(self, name: str) -> list["Address"]:
        """Returns the files of a name in a folder and in all that are in it, sorted."""
        system, path = self._place()
        with _one_line(self.text):
            system.invalidate_cache()
            found = sorted(each for each in system.find(path) if each.endswith(f"/{name}"))
        return [self / each[len(path) :].strip("/") for each in found]

    def read_bytes(self, start: int = 0, end: int | None = None) -> bytes:
        """Returns a file, or the part of it from one byte to before another, in one request.

        Raises:
          FileNotFoundError: there is none.
        """
        system, path = self._place()
        part = {} if end is None else {"start": start, "end": end}
        with _one_line(self.text):
            return system.cat_file(path, **part)

    def open(self, mode: str = "rb", /) -> io.RawIOBase:
        """Opens a file for reading; raises FileNotFoundError where there is none."""
        system, path = self._place()
        with _one_line(self.text):
            return _Reader(self.text, system.open(path, mode))

    def upload(self, file: os.PathLike[str], name: str) -> None:
        """Copies a file of this machine to a name in this folder, over what is there."""
        system, path = (self / name)._place()
        with _one_line(self.text):
            system.put_file(os.fspath(file), path)

    def _kind(self) -> str | None:
        try:
            return self._info()["type"]
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _info(self) -> dict[str, Any]:
        system, path = self._place()
        with _one_line(self.text):
            system.invalidate_cache()  # what was there a minute ago does not count
            return system.info(path)

    def _place(self) -> tuple[Any, str]:
        """The store, and the path in it."""
        from fsspec.core import url_to_fs  # slow, and rows are mostly on disks

        try:
            with _one_line(self.text):
                return url_to_fs(self.text)
        except RunError as error:
            if isinstance(error.__cause__, ImportError | ValueError):  # of the user's machine
                raise MresError(str(error)) from None
            raise


class _Reader(io.RawIOBase):
    """A file of a store whose errors are ours; it has its place to itself."""

    def __init__(self, text: str, file: Any):
        super().__init__()
        self._text, self._file, self._at = text, file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset, whence = self._at + offset, io.SEEK_SET
        with _one_line(self._text):
            self._file.seek(offset, whence)
            self._at = self._file.tell()
        return self._at

    def readinto(self, buffer: Any) -> int:
        with _one_line(self._text):
            self._file.seek(self._at)
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextlib.contextmanager
def _one_line(text: str) -> Iterator[None]:
    """Whatever a kind of store raises becomes one line, but that something is not there."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {shown(error, 160).rstrip('.')}"
        raise RunError(f"rows {text}: cannot be reached ({reason}).") from error

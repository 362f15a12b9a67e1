"""What the names in a row stand for: files of a folder, or files that the row itself holds."""

import abc
import os
import pathlib
from collections.abc import Mapping, Sequence

from mres_jax.data.images import Header, read_header
from mres_jax.data.rows.types import Fault, shown
from mres_jax.data.video.frames import frame_names, in_order
from mres_jax.data.wire import is_data_url, read_data_url
from mres_jax.errors import BadImageError
from mres_jax.geometry import Size

_EXTENSIONS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WebP",
    ".bmp": "BMP",
    ".gif": "GIF",
}


class Files(abc.ABC):
    """Files by the names that rows give them."""

    @property
    def num_bytes(self) -> int:
        """Bytes of them that are in memory."""
        return 0

    @abc.abstractmethod
    def find(self, name: str) -> str | bytes:
        """Returns the path of a file or folder that may be missing, or the bytes of a file.

        Raises:
          Fault: the name is none that may be followed.
        """

    @abc.abstractmethod
    def has(self, name: str) -> bool:
        """Whether a file or a folder has this name."""

    @abc.abstractmethod
    def frames_in(self, name: str) -> Sequence[str] | None:
        """Returns the names of the frames in a folder, in order; None where it is no folder.

        Raises:
          BadVideoError: the folder holds something else than frames.
        """

    def picture(self, name: str) -> str | bytes:
        """Returns a picture, as `find` does; a data URL holds it itself."""
        if not is_data_url(name):
            return self.find(name)
        try:
            return read_data_url(name, name=shown(name, 40))
        except BadImageError as error:
            raise Fault("bad picture", str(error).rstrip(".")) from None

    def header(self, name: str) -> tuple[Size, bool]:
        """Returns the upright size of a picture, and whether its extension says what it is.

        Raises:
          Fault: it is missing, unreadable, or not among these files.
        """
        header = self.read_header(name)
        suffix = "" if is_data_url(name) else os.path.splitext(name)[1].lower()
        return header.size, _EXTENSIONS.get(suffix, header.format) == header.format

    def read_header(self, name: str) -> Header:
        """Returns the header of a picture; raises as `header`."""
        picture = self.picture(name)
        try:
            return read_header(picture, name=label(name))
        except BadImageError as error:
            raise self.fault(name, error) from None

    def fault(self, name: str, error: BadImageError) -> Fault:
        """What a picture that cannot be read is counted under."""
        is_there = is_data_url(name) or self.has(name)
        return Fault("bad picture" if is_there else "missing picture", str(error).rstrip("."))


class Contained(Files):
    """Files that a row holds.

    Args:
      content: bytes by name; a frame of a folder is named `folder/frame`.
    """

    def __init__(self, content: Mapping[str, bytes]):
        self._content = dict(content)

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self._content.values()))

    def find(self, name: str) -> bytes:
        if name not in self._content:
            raise Fault("missing picture", f"the row holds no file {shown(name, 300)}")
        return self._content[name]

    def has(self, name: str) -> bool:
        return name in self._content or self.frames_in(name) is not None

    def frames_in(self, name: str) -> list[str] | None:
        inside = f"{name.rstrip('/')}/"
        found = [each.removeprefix(inside) for each in self._content if each.startswith(inside)]
        return in_order(found) or None


def label(name: str) -> str:
    """What messages call a file."""
    return shown(name, 40 if is_data_url(name) else 300)


def folder_frames(path: str) -> list[str] | None:
    """Returns the frames in a folder on disk, see `Files.frames_in`."""
    return frame_names(pathlib.Path(path)) if os.path.isdir(path) else None

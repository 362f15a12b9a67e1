"""The picture folder of a data set: names that stay inside it, and sizes from headers alone."""

import os
import pathlib

from mres_jax.data.images import ADDRESS, Header, read_header
from mres_jax.data.rows.types import Fault, shown
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


class PictureFolder:
    """Pictures by name, under one folder.

    Args:
      root: the folder.
      follow_links: let symbolic links lead out of it.
    """

    def __init__(self, root: pathlib.Path, *, follow_links: bool = False):
        self.root, self.follow_links = root, follow_links
        self._real_root = os.path.realpath(root)
        self._real_folders: dict[str, str] = {}

    def path(self, name: str) -> str:
        """Returns the file of a picture.

        Raises:
          Fault: the name is absolute, an address, or leads out of the folder.
        """
        if not name.strip() or "\0" in name:
            raise Fault("unsafe path", "a picture has no name")
        if ADDRESS.match(name):
            raise Fault("unsafe path", f"{shown(name)} is an address; download it first")
        if os.path.isabs(name):
            raise Fault("unsafe path", f"{shown(name)} is absolute; name it from the folder on")
        if ".." in name.replace("\\", "/").split("/"):
            raise Fault("unsafe path", f"{shown(name)} has .. in it")
        folder, base = os.path.split(os.path.join(self.root, name))
        return os.path.join(folder, base) if self.follow_links else self._inside(folder, base, name)

    def _inside(self, folder: str, base: str, name: str) -> str:
        real = self._real_folders.get(folder)
        if real is None:
            real = self._real_folders[folder] = os.path.realpath(folder)
        path = os.path.join(real, base)
        if os.path.islink(path):
            path = os.path.realpath(path)
        if not f"{path}/".startswith(f"{self._real_root.rstrip('/')}/"):
            raise Fault(
                "unsafe path",
                f"{shown(name)} is a link out of {self.root}; follow_links=True allows it",
            )
        return path

    def header(self, name: str) -> tuple[Size, bool]:
        """Returns the upright size of a picture, and whether its extension says what it is.

        Raises:
          Fault: it is missing, unreadable, or not in the folder.
        """
        _, header = self._read(name)
        suffix = os.path.splitext(name)[1].lower()
        return header.size, _EXTENSIONS.get(suffix, header.format) == header.format

    def located(self, name: str) -> str:
        """Returns the file of a picture whose header can be read; raises as `header`."""
        return self._read(name)[0]

    def _read(self, name: str) -> tuple[str, Header]:
        path = self.path(name)
        try:
            return path, read_header(path, name=shown(name, 300))
        except BadImageError as error:
            raise picture_fault(path, error) from None


def picture_fault(path: str, error: BadImageError) -> Fault:
    """What a picture that cannot be read is counted under."""
    kind = "bad picture" if os.path.lexists(path) else "missing picture"
    return Fault(kind, str(error).rstrip("."))

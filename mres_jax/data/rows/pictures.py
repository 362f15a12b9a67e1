"""The picture folder of a data set: names that stay inside it."""

import os
import pathlib

from mres_jax.data.images import ADDRESS
from mres_jax.data.rows.files import Files, folder_frames
from mres_jax.data.rows.types import Fault, shown


class PictureFolder(Files):
    """Pictures and clips by name, under one folder.

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
        check_name(name)
        folder, base = os.path.split(os.path.join(self.root, name))
        return os.path.join(folder, base) if self.follow_links else self._inside(folder, base, name)

    def find(self, name: str) -> str:
        return self.path(name)

    def has(self, name: str) -> bool:
        return os.path.lexists(self.path(name))

    def frames_in(self, name: str) -> list[str] | None:
        return folder_frames(self.path(name))

    def located(self, name: str) -> str:
        """Returns the file of a picture whose header can be read; raises as `header`."""
        self.read_header(name)
        return self.path(name)

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


def check_name(name: str) -> None:
    """Raises `Fault` for a name that is absolute, an address, or leads upwards."""
    if not name.strip() or "\0" in name:
        raise Fault("unsafe path", "a picture has no name")
    if ADDRESS.match(name):
        raise Fault("unsafe path", f"{shown(name)} is an address; download it first")
    if os.path.isabs(name):
        raise Fault("unsafe path", f"{shown(name)} is absolute; name it from the folder on")
    if ".." in name.replace("\\", "/").split("/"):
        raise Fault("unsafe path", f"{shown(name)} has .. in it")

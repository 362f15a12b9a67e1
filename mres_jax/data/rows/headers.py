"""Headers of the pictures and clips of many rows."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from mres_jax.data.rows.clips import clip_size
from mres_jax.data.rows.files import Files
from mres_jax.data.rows.types import Fault, Moving
from mres_jax.data.video import FrameSampling
from mres_jax.geometry import Extent

_THREADS = 8  # they wait for a disk, the work itself is done by one at a time


class Headers:
    """Headers of pictures and clips by name, each read once, several at a time.

    Args:
      files: that they are named from, the same for all rows.
      sampling: frames of clips that are looked at.
    """

    def __init__(self, files: Files, sampling: FrameSampling):
        self._files, self._sampling = files, sampling
        self._known: dict[str | Moving, tuple[Extent, bool] | Fault] = {}
        self._pool = ThreadPoolExecutor(_THREADS, "headers")

    def __enter__(self) -> "Headers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def read(self, names: Iterable[str | Moving]) -> None:
        """Reads the headers that are not known yet."""
        new = [name for name in dict.fromkeys(names) if name not in self._known]
        self._known.update(zip(new, self._pool.map(self._read, new), strict=True))

    def of(self, name: str | Moving, files: Files | None = None) -> tuple[Extent, bool]:
        """Returns an extent, and whether the file's extension says what it is; raises `Fault`.

        Args:
          name: that was read; of `files` any.
          files: in place of those that all rows share.
        """
        if files is not None:
            return read_extent(name, files, self._sampling)
        found = self._known[name]
        if isinstance(found, Fault):
            raise found
        return found

    def _read(self, name: str | Moving) -> tuple[Extent, bool] | Fault:
        try:
            return read_extent(name, self._files, self._sampling)
        except Fault as fault:
            return fault


def read_extent(name: str | Moving, files: Files, sampling: FrameSampling) -> tuple[Extent, bool]:
    """Returns what `Headers.of` does of one picture or clip, and raises as it does."""
    if isinstance(name, Moving):
        return clip_size(name, files, sampling), True
    return files.header(name)

"""Features of frozen eyes, computed once and kept on disk."""

import hashlib
import io
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from mres_jax.files import write_together
from mres_jax.protocols import FeatureExtractor

FOLDER = "features"


class FeatureCache:
    """A `FeatureExtractor` that looks at the same frames with the same question once.

    Files are named by the contents of what is looked at: a clip that changed is looked at again.

    Attributes:
      looked: clips that the eyes had to look at.
    """

    def __init__(self, eyes: FeatureExtractor, directory: pathlib.Path, *, name: str):
        """Opens a cache.

        Args:
          eyes: what looks.
          directory: of the files, made if need be.
          name: of the eyes; others of another name share no file with them.
        """
        self.eyes, self.directory, self.name = eyes, directory, name
        self.looked = 0

    def features(
        self, frames: Sequence[np.ndarray], question: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns `[t, 64, d]` and `[q, d]`, float32; see `protocols.FeatureExtractor`."""
        file = self.directory / f"{self._key(frames, question)}.npz"
        try:
            with np.load(file) as kept:
                return kept["frames"], kept["question"]
        except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # not there, or cut short
        found = [np.asarray(x, np.float32) for x in self.eyes.features(frames, question)]
        self.looked += 1
        self._write(file, *found)
        return found[0], found[1]

    def _write(self, file: pathlib.Path, frames: np.ndarray, question: np.ndarray) -> None:
        content = io.BytesIO()
        np.savez(content, frames=frames, question=question)
        write_together(self.directory, {file.name: content.getvalue()})

    def _key(self, frames: Sequence[np.ndarray], question: str) -> str:
        digest = hashlib.blake2b(f"{self.name}\0{question}".encode(), digest_size=16)
        for frame in frames:
            digest.update(str(frame.shape).encode())
            digest.update(np.ascontiguousarray(frame).data)
        return digest.hexdigest()


def cache_bytes(num_frames: int, frame_size: int, *, tokens: int = 64) -> int:
    """Returns bytes that the features of so many frames take on disk, questions left out."""
    return 4 * num_frames * tokens * frame_size

"""Whatever a clip comes as -> a `Clip`, and telling clips from pictures."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from mres_jax.data.video.containers import HEAD, container_of
from mres_jax.data.video.decode import SUFFIXES, decode_video
from mres_jax.data.video.frames import clip_of, read_frames
from mres_jax.data.video.sampling import FrameSampling
from mres_jax.protocols import Clip

Source = str | os.PathLike | bytes | Sequence[np.ndarray] | Clip


def open_clip(source: Source, sampling: FrameSampling | None = None, *, fps: float = 2.0) -> Clip:
    """Returns the frames of a clip that are looked at.

    Args:
      source: a video file or its bytes; a folder of frames; arrays; or a clip, which is returned.
      sampling: which frames of a video file; of frames that lie ready all are taken, up to its
        `max_frames`.
      fps: of frames that lie ready, per second.

    Raises:
      BadVideoError: it cannot be read, or makes no clip; one line with name and reason.
    """
    sampling = sampling or FrameSampling()
    if isinstance(source, Clip):
        return source
    if isinstance(source, str | os.PathLike | bytes):
        if not isinstance(source, bytes) and pathlib.Path(source).is_dir():
            return read_frames(source, fps=fps, max_frames=sampling.max_frames)
        return decode_video(source, sampling)
    return clip_of(list(source), fps=fps, max_frames=sampling.max_frames)


def is_clip(source: object) -> bool:
    """Whether something is a clip rather than a picture, by its contents.

    A folder is one, and so is a file that begins as a video does. One that says so by its name
    alone is one too, and `open_clip` tells what is wrong with it.
    """
    if isinstance(source, Clip):
        return True
    if isinstance(source, bytes):
        return container_of(source[:HEAD]) is not None
    if not isinstance(source, str | os.PathLike):
        return False
    path = pathlib.Path(source)
    try:
        if path.is_dir():
            return True
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return container_of(file.read(HEAD)) is not None or path.suffix.lower() in SUFFIXES
    except OSError:
        return False

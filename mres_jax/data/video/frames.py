"""Frames that lie ready, as arrays or as picture files in a folder -> clips."""

import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from mres_jax.data.images import decode_image
from mres_jax.data.video.sampling import MAX_FPS, FrameSampling
from mres_jax.errors import BadImageError, BadVideoError
from mres_jax.protocols import Clip

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
_NUMBER = re.compile(r"(\d+)")


def clip_of(
    frames: Sequence[np.ndarray],
    *,
    fps: float = 2.0,
    max_frames: int | None = None,
    name: str = "given",
) -> Clip:
    """Returns a clip of frames at a steady rate.

    Args:
      frames: upright RGB, `uint8 [h w 3]`, two or more, all of one size.
      fps: of these frames, per second.
      max_frames: where there are more, so many of them, spread evenly.
      name: what errors call it.

    Raises:
      BadVideoError: a rate that cannot be, or frames that make no clip.
    """
    _check_rate(fps, name)
    chosen = _thinned(len(frames), max_frames)
    return Clip(
        frames=[frames[i] for i in chosen],
        times=[int(i) / fps for i in chosen],
        frame_seconds=len(frames) / (fps * max(len(chosen), 1)),
        name=name,
    )


def read_frames(
    folder: str | os.PathLike[str], *, fps: float = 2.0, max_frames: int | None = None
) -> Clip:
    """Returns a folder of pictures as a clip, in the order of the numbers in their names.

    `frame2.png` comes before `frame10.png`. Files whose name begins with a point are left out.

    Args:
      folder: with pictures of one size and nothing else.
      fps: at which the frames were taken, per second.
      max_frames: as for `clip_of`; the others are not read.

    Raises:
      BadVideoError: no such folder; no pictures in it, or something else; a picture that cannot be
        read, or of another size.
    """
    place = pathlib.Path(folder)
    _check_rate(fps, str(folder))
    files = _picture_files(place)
    chosen = [files[i] for i in _thinned(len(files), max_frames)]
    try:
        pictures = [decode_image(file) for file in chosen]
    except BadImageError as error:
        raise BadVideoError(f"video {folder}: {error}") from None
    for file, picture in zip(chosen, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            (height, width), (h0, w0) = picture.shape[:2], pictures[0].shape[:2]
            raise BadVideoError(
                f"video {folder}: {file.name} is {width} x {height} px, but {chosen[0].name} "
                f"{w0} x {h0} px. Bring the frames to one size."
            )
    whole = len(files) / (fps * len(chosen))
    times = [int(i) / fps for i in _thinned(len(files), max_frames)]
    return Clip(frames=pictures, times=times, frame_seconds=whole, name=str(folder))


def _picture_files(folder: pathlib.Path) -> list[pathlib.Path]:
    if not folder.is_dir():
        raise BadVideoError(f"video {folder}: no such folder of frames.")
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    for file in sorted(files):
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            raise BadVideoError(
                f"video {folder}: {file.name} is no picture by its name ({', '.join(SUFFIXES)}). "
                "Leave the frames alone in the folder."
            )
    if not files:
        raise BadVideoError(f"video {folder}: the folder has no frames.")
    return sorted(files, key=_natural)


def _natural(file: pathlib.Path) -> list[tuple[int, str]]:
    """Sorts runs of digits by their value."""
    parts = _NUMBER.split(file.name)
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)]


def _thinned(count: int, max_frames: int | None) -> list[int]:
    if max_frames is None:
        return list(range(count))
    sampling = FrameSampling(min_frames=min(4, max_frames), max_frames=max_frames)
    return sampling.thin(count).tolist()


def _check_rate(fps: float, name: str) -> None:
    if not 0 < fps <= MAX_FPS:  # not a number either
        raise BadVideoError(f"video {name}: fps={fps} must be above 0, and {MAX_FPS:.0f} at most.")

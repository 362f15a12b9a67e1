"""Frames that lie ready, as arrays or as picture files in a folder -> clips."""

import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mres_jax.data.images import decode_image
from mres_jax.data.video.sampling import MAX_FPS, FrameSampling
from mres_jax.errors import BadImageError, BadVideoError
from mres_jax.geometry import Size
from mres_jax.protocols import Clip, check_num_frames

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
    chosen = choose_frames(len(frames), fps=fps, max_frames=max_frames, name=name)
    return Clip(
        frames=[frames[i] for i in chosen.places],
        times=chosen.times,
        frame_seconds=chosen.frame_seconds,
        name=name,
    )


class Chosen(NamedTuple):
    """Frames at a steady rate that are looked at.

    Attributes:
      places: among all frames.
      times: seconds.
      frame_seconds: as of `Clip`.
    """

    places: tuple[int, ...]
    times: tuple[float, ...]
    frame_seconds: float


def choose_frames(count: int, *, fps: float, max_frames: int | None, name: str) -> Chosen:
    """Returns which of so many frames a clip has; arguments and errors are those of `clip_of`."""
    if not 0 < fps <= MAX_FPS:  # not a number either
        raise BadVideoError(f"video {name}: fps={fps} must be above 0, and {MAX_FPS:.0f} at most.")
    places = range(count)
    if max_frames is not None:
        sampling = FrameSampling(min_frames=min(4, max_frames), max_frames=max_frames)
        places = sampling.thin(count).tolist()
    check_num_frames(len(places), name)
    return Chosen(tuple(places), tuple(i / fps for i in places), count / (fps * len(places)))


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
    place, name = pathlib.Path(folder), str(folder)
    files = [place / file for file in frame_names(place)]
    chosen = choose_frames(len(files), fps=fps, max_frames=max_frames, name=name)
    return read_pictures(files, chosen, name=name)


def read_pictures(
    files: Sequence[str | os.PathLike[str] | bytes],
    chosen: Chosen,
    *,
    name: str,
    names: Sequence[str] | None = None,
) -> Clip:
    """Returns the chosen ones of picture files as a clip; errors are those of `read_frames`.

    Args:
      files: all of them, in order.
      chosen: which are looked at.
      name: of the clip, for errors.
      names: of the files, for errors; their paths by default.
    """
    names = [str(file) for file in files] if names is None else names
    some = [names[i] for i in chosen.places]
    try:
        pictures = [decode_image(files[i], name=names[i]) for i in chosen.places]
    except BadImageError as error:
        raise BadVideoError(f"video {name}: {error}") from None
    check_one_size(some, [Size(*picture.shape[:2]) for picture in pictures], name=name)
    return Clip(frames=pictures, times=chosen.times, frame_seconds=chosen.frame_seconds, name=name)


def check_one_size(
    files: Sequence[str | os.PathLike[str]], sizes: Sequence[Size], *, name: str
) -> None:
    """Raises `BadVideoError` unless all frames have the size of the first."""
    for file, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            this, first = (os.path.basename(each) for each in (file, files[0]))
            raise BadVideoError(
                f"video {name}: {this} is {size.width} x {size.height} px, but {first} "
                f"{sizes[0].width} x {sizes[0].height} px. Bring the frames to one size."
            )


def frame_names(folder: pathlib.Path) -> list[str]:
    """Returns the names of the pictures in a folder of frames, in order; see `read_frames`."""
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
    return in_order(file.name for file in files)


def in_order(names: Iterable[str]) -> list[str]:
    """Sorts names of frames by the numbers in them.

    Example:
      >>> in_order(["f10.png", "f9.png"])
      ['f9.png', 'f10.png']
    """
    return sorted(names, key=_natural)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts runs of digits by their value."""
    parts = _NUMBER.split(name)
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)]

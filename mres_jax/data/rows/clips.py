"""Clips that rows name -> their sizes and times, and their frames."""

import os
import pathlib

from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.types import Fault, Moving, shown
from mres_jax.data.video import FrameSampling, decode_video, read_clip_size
from mres_jax.data.video.decode import has_pyav
from mres_jax.data.video.frames import (
    Chosen,
    check_one_size,
    choose_frames,
    frame_names,
    read_pictures,
)
from mres_jax.errors import BadVideoError, MresError
from mres_jax.geometry import ClipSize
from mres_jax.protocols import Clip


def clip_size(clip: Moving, folder: PictureFolder, sampling: FrameSampling) -> ClipSize:
    """Returns size and times of the frames that are looked at, from headers.

    Args:
      clip: of a row.
      folder: that it is named from.
      sampling: which frames; of frames that lie ready all are taken, up to its `max_frames`.

    Raises:
      Fault: it is missing, unreadable, no clip, or not in the folder.
      MresError: PyAV is missing, without which no row with a video file could be used.
    """
    name = shown(clip.name, 300)
    try:
        if path := _video_file(clip, folder):
            return read_clip_size(path, sampling, name=name)
        files, chosen = _frames(clip, folder, sampling, name)
        some = [files[i] for i in chosen.places]
        sizes = [folder.header(file)[0] for file in some]
        check_one_size(some, sizes, name=name)
    except BadVideoError as error:
        raise _clip_fault(clip, folder, error) from None
    return ClipSize(sizes[0], chosen.times)


def read_clip(clip: Moving, folder: PictureFolder, sampling: FrameSampling) -> Clip:
    """Returns the frames that are looked at; arguments and errors are those of `clip_size`."""
    name = shown(clip.name, 300)
    try:
        if path := _video_file(clip, folder):
            return decode_video(path, sampling, name=name)
        files, chosen = _frames(clip, folder, sampling, name)
        return read_pictures([folder.path(file) for file in files], chosen, name=name)
    except BadVideoError as error:
        raise _clip_fault(clip, folder, error) from None


def _video_file(clip: Moving, folder: PictureFolder) -> str | None:
    """The path of a video file; None for frames."""
    if clip.frames:
        return None
    path = folder.path(clip.video)
    if os.path.isdir(path):
        return None
    if not has_pyav():
        raise MresError(
            f"rows: video {shown(clip.video)}: reading video files needs PyAV: pip install "
            "'mres-jax[video]'. Folders and lists of frames are read without."
        )
    return path


def _frames(
    clip: Moving, folder: PictureFolder, sampling: FrameSampling, name: str
) -> tuple[list[str], Chosen]:
    """Names of all frames, and which are looked at."""
    files = list(clip.frames)
    if not files:
        found = frame_names(pathlib.Path(folder.path(clip.video)))
        files = [os.path.join(clip.video, file) for file in found]
    for file in files:
        folder.path(file)  # those that are not looked at may not lead elsewhere either
    chosen = choose_frames(len(files), fps=clip.fps, max_frames=sampling.max_frames, name=name)
    return files, chosen


def _clip_fault(clip: Moving, folder: PictureFolder, error: BadVideoError) -> Fault:
    """What a clip that cannot be read is counted under."""
    is_there = bool(clip.frames) or os.path.lexists(folder.path(clip.video))
    return Fault("bad video" if is_there else "missing video", str(error).rstrip("."))

"""Clips that rows name -> their sizes and times, and their frames."""

import os
from collections.abc import Sequence

from mres_jax.data.rows.files import Files, label
from mres_jax.data.rows.types import Fault, Moving, shown
from mres_jax.data.video import FrameSampling, decode_video, read_clip_size
from mres_jax.data.video.decode import has_pyav
from mres_jax.data.video.frames import Chosen, check_one_size, choose_frames, read_pictures
from mres_jax.errors import BadVideoError, MresError
from mres_jax.geometry import ClipSize
from mres_jax.protocols import Clip


def clip_size(clip: Moving, files: Files, sampling: FrameSampling) -> ClipSize:
    """Returns size and times of the frames that are looked at, from headers.

    Args:
      clip: of a row.
      files: that it is named from.
      sampling: which frames; of frames that lie ready all are taken, up to its `max_frames`.

    Raises:
      Fault: it is missing, unreadable, no clip, or not in the folder.
      MresError: PyAV is missing, without which no row with a video file could be used.
    """
    name = shown(clip.name, 300)
    try:
        if (video := _video_file(clip, files)) is not None:
            return read_clip_size(video, sampling, name=name)
        frames, chosen = _frames(clip, files, sampling, name)
        some = [frames[i] for i in chosen.places]
        sizes = [files.header(frame)[0] for frame in some]
        check_one_size(some, sizes, name=name)
    except BadVideoError as error:
        raise _clip_fault(clip, files, error) from None
    return ClipSize(sizes[0], chosen.times, chosen.frame_seconds * len(chosen.places))


def read_clip(clip: Moving, files: Files, sampling: FrameSampling) -> Clip:
    """Returns the frames that are looked at; arguments and errors are those of `clip_size`."""
    name = shown(clip.name, 300)
    try:
        if (video := _video_file(clip, files)) is not None:
            return decode_video(video, sampling, name=name)
        frames, chosen = _frames(clip, files, sampling, name)
        found = [files.find(frame) for frame in frames]
        names = [
            each if isinstance(each, str) else label(frame)
            for each, frame in zip(found, frames, strict=True)
        ]
        return read_pictures(found, chosen, name=name, names=names)
    except BadVideoError as error:
        raise _clip_fault(clip, files, error) from None


def clip_files(clip: Moving, files: Files) -> list[str]:
    """Returns the names of all files of a clip: a video, or its frames; raises as `clip_size`."""
    if clip.frames:
        return list(clip.frames)
    try:
        frames = files.frames_in(clip.video)
    except BadVideoError as error:
        raise _clip_fault(clip, files, error) from None
    return [clip.video] if frames is None else _inside(clip.video, frames)


def _video_file(clip: Moving, files: Files) -> str | bytes | None:
    """A video file; None for frames."""
    if clip.frames or files.frames_in(clip.video) is not None:
        return None
    if not has_pyav():
        raise MresError(
            f"rows: video {shown(clip.video)}: reading video files needs PyAV: pip install "
            "'mres-jax[video]'. Folders and lists of frames are read without."
        )
    if not files.has(clip.video):
        raise Fault("missing video", f"video {shown(clip.video, 300)}: no such file or directory")
    return files.find(clip.video)


def _frames(
    clip: Moving, files: Files, sampling: FrameSampling, name: str
) -> tuple[list[str], Chosen]:
    """Names of all frames, and which are looked at."""
    frames = list(clip.frames) or _inside(clip.video, files.frames_in(clip.video) or ())
    for frame in frames:
        files.find(frame)  # those that are not looked at may not lead elsewhere either
    chosen = choose_frames(len(frames), fps=clip.fps, max_frames=sampling.max_frames, name=name)
    return frames, chosen


def _inside(folder: str, frames: Sequence[str]) -> list[str]:
    return [os.path.join(folder, frame) for frame in frames]


def _clip_fault(clip: Moving, files: Files, error: BadVideoError) -> Fault:
    """What a clip that cannot be read is counted under."""
    is_there = bool(clip.frames) or files.has(clip.video)
    return Fault("bad video" if is_there else "missing video", str(error).rstrip("."))

"""Video files -> upright RGB frames with the times that the file gives them, by PyAV.

The container is told by the file's first bytes and asked for by name, so that no playlist or script
that FFmpeg knows as well can make it open anything else.
"""

import contextlib
import importlib
import importlib.util
import io
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mres_jax.data.images import ADDRESS, MAX_PIXELS
from mres_jax.data.video.containers import HEAD, container_of, missing_bytes
from mres_jax.data.video.sampling import FrameSampling
from mres_jax.errors import BadVideoError
from mres_jax.geometry import ClipSize, Size
from mres_jax.protocols import Clip, check_num_frames

MAX_CLIP_PIXELS = 1_200_000_000  # of all frames that are kept, 3.6 GB
MAX_FILE_FRAMES = 2_000_000  # nine hours at 60 frames per second
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".ts", ".mpg", ".mpeg", ".ogv")


class VideoHeader(NamedTuple):
    """What a video says without being decoded.

    Attributes:
      size: of its frames, upright, pixels.
      times: of its frames, seconds from the first one, ascending.
    """

    size: Size
    times: tuple[float, ...]

    @property
    def fps(self) -> float:
        """Frames per second, on average."""
        if len(self.times) < 2:
            return 1.0
        return (len(self.times) - 1) / (self.times[-1] - self.times[0])


def decode_video(
    source: str | os.PathLike[str] | bytes,
    sampling: FrameSampling | None = None,
    *,
    name: str | None = None,
    max_clip_pixels: float = MAX_CLIP_PIXELS,
) -> Clip:
    """Returns the frames of a video that are looked at.

    Their times are those of the file, counted from its first frame, so they are right for videos of
    varying rate too. Frames are turned as the file says; samples are taken as square.

    Args:
      source: path, or the bytes of a file: MP4, MOV, Matroska, WebM, AVI, FLV, Ogg, MPEG.
      sampling: which frames.
      name: what errors call the video; its path by default.
      max_clip_pixels: of all frames together; more are refused before anything is decoded.

    Raises:
      BadVideoError: PyAV is missing; no such file; no video; damaged, truncated, too large; no
        frame is left. The message names file and reason.
    """
    sampling, name = sampling or FrameSampling(), _name(source, name)
    with _opened(source, name) as (container, stream):
        stamps = _read_index(container, stream)
        header = _header(_coded_size(stream), stamps, stream)
    chosen = _choose(header, sampling, name, max_clip_pixels)
    with _opened(source, name) as (container, stream):
        frames = _decode(container, stream, [stamps[i] for i in chosen])
    return Clip(
        frames=frames,
        times=[header.times[i] for i in chosen],
        frame_seconds=_frame_seconds(header, len(chosen)),
        name=name,
    )


def _choose(
    header: VideoHeader, sampling: FrameSampling, name: str, max_clip_pixels: float
) -> np.ndarray:
    chosen = sampling.choose(len(header.times), header.fps, name=name)
    check_num_frames(len(chosen), name)
    if header.size.area * len(chosen) > max_clip_pixels:
        raise BadVideoError(
            f"video {name}: {len(chosen)} frames of {header.size.width} x {header.size.height} px "
            f"are more than {max_clip_pixels:.0f} px. Look at fewer frames (fps, max_frames), or "
            "make the video smaller."
        )
    return chosen


def read_clip_size(
    source: str | os.PathLike[str] | bytes,
    sampling: FrameSampling | None = None,
    *,
    name: str | None = None,
) -> ClipSize:
    """Returns size and times of the clip that `decode_video` makes, of which it takes arguments.

    Raises:
      BadVideoError: as `decode_video`, but for what only decoding shows.
    """
    name = _name(source, name)
    header = read_video_header(source, name=name)
    chosen = _choose(header, sampling or FrameSampling(), name, MAX_CLIP_PIXELS)
    seconds = _frame_seconds(header, len(chosen)) * len(chosen)
    return ClipSize(header.size, tuple(header.times[i] for i in chosen), seconds)


def _frame_seconds(header: VideoHeader, count: int) -> float:
    """Seconds of the video for each of so many of its frames."""
    return len(header.times) / (header.fps * count)


def read_video_header(
    source: str | os.PathLike[str] | bytes, *, name: str | None = None
) -> VideoHeader:
    """Returns size and times of a video; only its first frame is decoded, to see how it is turned.

    Arguments are those of `decode_video`.

    Raises:
      BadVideoError: as `decode_video`, but for what only decoding shows.
    """
    name = _name(source, name)
    with _opened(source, name) as (container, stream):
        stamps = _read_index(container, stream)
    with _opened(source, name) as (container, stream):
        (first,) = _decode(container, stream, [stamps[0]])
        return _header(Size(*first.shape[:2]), stamps, stream)


def _read_index(container: Any, stream: Any) -> tuple[int, ...]:
    """The time stamps of all frames, ascending, in units of the stream's time base."""
    stamps, seen = [], 0
    for packet in container.demux(stream):
        if not packet.size:  # the end of the stream
            continue
        seen += 1
        if packet.is_corrupt:
            raise _Refused("damaged or truncated (a part of it is marked as such)")
        if packet.pts is None:
            raise _Refused("its frames have no times. Convert it to MP4")
        if not packet.is_discard:
            stamps.append(packet.pts)
        if seen > MAX_FILE_FRAMES:
            raise _Refused(f"more than {MAX_FILE_FRAMES:,} frames. Cut it, or thin it out")
    if not stamps:
        raise _Refused("it has no frames")
    return tuple(sorted(set(stamps)))


def _header(size: Size, stamps: tuple[int, ...], stream: Any) -> VideoHeader:
    if size.area > MAX_PIXELS:
        raise _Refused(
            f"frames of {size.width} x {size.height} px, more than {MAX_PIXELS} px. Make it smaller"
        )
    above, below = stream.time_base.numerator, stream.time_base.denominator
    return VideoHeader(size, tuple((stamp - stamps[0]) * above / below for stamp in stamps))


def _coded_size(stream: Any) -> Size:
    return Size(stream.codec_context.height, stream.codec_context.width)


def _decode(container: Any, stream: Any, stamps: list[int]) -> list[np.ndarray]:
    stream.thread_type = "AUTO"
    wanted, found = set(stamps), {}
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise _Refused(f"damaged or truncated (the frame at {frame.time:.2f} s)")
        if frame.pts in wanted:
            found[frame.pts] = _upright(frame)
            if len(found) == len(wanted):
                break
    for stamp in stamps:
        if stamp not in found:
            seconds = float((stamp - stamps[0]) * stream.time_base)
            raise _Refused(f"damaged or truncated (no frame comes out at {seconds:.2f} s)")
    return [found[stamp] for stamp in stamps]


def _upright(frame: Any) -> np.ndarray:
    """`uint8 [h w 3]`, turned as the file says."""
    pixels = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90) % 4  # anticlockwise
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels


@contextlib.contextmanager
def _opened(source: str | os.PathLike[str] | bytes, name: str) -> Iterator[tuple[Any, Any]]:
    """A container and its first video stream; all that fails is a BadVideoError."""
    av = _pyav(name)
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(_stream(source))
            head = file.read(HEAD)
            file.seek(0)
            if not head:
                raise _Refused("the file is empty")
            kind = container_of(head)
            if kind is None:
                raise _Refused(
                    "its contents are no video that is read; MP4, MOV, Matroska, WebM, AVI, FLV, "
                    "Ogg and MPEG are"
                )
            if missing := missing_bytes(file, kind):
                raise _Refused(
                    f"damaged or truncated (by its own account {missing} bytes are missing)"
                )
            container = stack.enter_context(av.open(file, format=kind, metadata_errors="replace"))
            if not container.streams.video:
                raise _Refused("it has no pictures")
            yield container, container.streams.video[0]
    except _Refused as error:
        raise BadVideoError(f"video {name}: {error}.") from None
    except BadVideoError:
        raise
    except Exception as error:  # parsers of hostile bytes raise whatever they like
        text = " ".join(re.sub(r"<[^>]*>|0x[0-9a-fA-F]+", "", str(error)).split())
        reason = text[:120] or type(error).__name__
        raise BadVideoError(f"video {name}: damaged or truncated ({reason}).") from None


class _Refused(Exception):
    """A reason of our own, in words."""


def _stream(source: str | os.PathLike[str] | bytes) -> io.BufferedIOBase:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if ADDRESS.match(os.fspath(source)):
        raise _Refused("it is a URL, but videos are read from files. Download it first")
    path = pathlib.Path(source)
    if not path.exists():
        raise _Refused("no such file")
    if not path.is_file():
        raise _Refused("it is not a regular file")
    return path.open("rb")


def has_pyav() -> bool:
    """Whether video files can be read here."""
    return importlib.util.find_spec("av") is not None


def _pyav(name: str) -> Any:
    try:
        return importlib.import_module("av")
    except ImportError:
        raise BadVideoError(
            f"video {name}: reading video files needs PyAV: pip install 'mres-jax[video]'. A "
            "folder of frames is read without."
        ) from None


def _name(source: str | os.PathLike[str] | bytes, name: str | None) -> str:
    if name is not None:
        return name
    return f"of {len(source)} bytes" if isinstance(source, bytes) else os.fspath(source)

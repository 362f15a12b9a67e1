"""Pictures and clips that a row names, and the places of clips among its marks."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mres_jax.data.rows.types import (
    CLIP_PLACEHOLDER,
    PLACEHOLDER,
    UNMARKED,
    UNNAMED,
    Fault,
    Moving,
    as_text,
    shown,
)
from mres_jax.data.video.sampling import MAX_FPS

Named = list[str | Moving]
Turns = list[tuple[str, str]]
_MARKS = re.compile(f"{PLACEHOLDER}|{CLIP_PLACEHOLDER}")


def image_names(content: Mapping[str, Any]) -> list[str]:
    """Names of a row's pictures, in `images` or `image`; raises `Fault`."""
    return _texts(content.get("images") or content.get("image") or [], "pictures")


def clips_of(content: Mapping[str, Any]) -> list[Moving]:
    """The clips of a row: files in `video` or `videos`, or one in `frames`; raises `Fault`."""
    videos = _texts(content.get("videos") or content.get("video") or [], "videos")
    if content.get("frames") is None:
        return [Moving(video=name) for name in videos]
    if videos:
        raise Fault("unknown form", "a clip is named by its file or by its frames, not by both")
    return [_clip_of_frames(content["frames"], content.get("fps"))]


def named_in(part: Mapping[str, Any], kind: str) -> str | Moving | None:
    """The picture (`kind="image"`) or clip (`"video"`) that a part of a message names, if any.

    A clip may be a list of frames, as in Qwen's messages, with their `fps`.

    Raises:
      Fault: it is named by something else.
    """
    name = part.get(kind) or part.get("path") or part.get(f"{kind}_url") or part.get("url")
    name = name.get("url") if isinstance(name, Mapping) else name
    if kind == "video" and isinstance(name, list):
        return _clip_of_frames(name, part.get("fps"))
    if not isinstance(name, str):
        return None
    return as_text(name) if kind == "image" else Moving(video=as_text(name))


def place_clips(turns: Turns, named: Named) -> tuple[Turns, Named]:
    """Returns turns with one kind of mark, and pictures and clips in the order of these marks.

    `<video>` is a clip and `<image>` a picture; where there is no picture, `<image>` may stand for
    clips, as it does in LLaVA-Video's rows. Without any clip `<video>` is text.

    Raises:
      Fault: the marks do not say where which of them stands.
    """
    pictures = [item for item in named if isinstance(item, str)]
    clips = [item for item in named if not isinstance(item, str)]
    marks = [mark for role, text in turns if role == "user" for mark in _MARKS.findall(text)]
    if not clips or not marks:
        return turns, named
    moving = marks.count(CLIP_PLACEHOLDER)
    still = len(marks) - moving
    if moving or pictures:
        if (still, moving) != (len(pictures), len(clips)):
            raise Fault(
                UNMARKED if len(marks) < len(named) else UNNAMED,
                f"{still} {PLACEHOLDER} and {moving} {CLIP_PLACEHOLDER} placeholders, but "
                f"{len(pictures)} pictures and {len(clips)} clips",
            )
        waiting = {PLACEHOLDER: iter(pictures), CLIP_PLACEHOLDER: iter(clips)}
        named = [next(waiting[mark]) for mark in marks]
    placed = [
        (role, text.replace(CLIP_PLACEHOLDER, PLACEHOLDER) if role == "user" else text)
        for role, text in turns
    ]
    return placed, named


def _clip_of_frames(names: Any, fps: Any) -> Moving:
    frames = _texts(names, "frames")
    fps = Moving().fps if fps is None else fps
    if not isinstance(fps, int | float) or isinstance(fps, bool) or not 0 < fps <= MAX_FPS:
        reason = f"fps={shown(fps)} of its frames must be above 0, and {MAX_FPS:.0f} at most"
        raise Fault("bad video", reason)
    if not frames:
        raise Fault("bad video", "'frames' names none")
    return Moving(frames=tuple(frames), fps=float(fps))


def _texts(names: Any, what: str) -> list[str]:
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise Fault("unknown form", f"{what} are names of files: a text or a list of texts")
    return [as_text(name) for name in names]

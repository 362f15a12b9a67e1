"""Views as JSON: for people, and in a form that gives the view back."""

from collections.abc import Mapping
from typing import Any

from mres_jax.data.spec import ProcessorSpec
from mres_jax.geometry import Box, Size, View


def view_to_json(view: View, spec: ProcessorSpec) -> dict[str, Any]:
    """Returns what matters of a view; one of a clip has its frames and their time beside the rest.

    Args:
      view: what a model looked at.
      spec: of the model, for its visual tokens.
    """
    content = {
        "item": view.item,
        "crop_px": list(view.crop),
        "size_px": list(view.encoded_size),
        "tokens": spec.num_visual_tokens(spec.grid(view.encoded_size)),
    }
    moving = {"frames": list(view.frames), "time_s": view.time} if view.frames else {}
    return content | moving


def whole_view_to_json(view: View, spec: ProcessorSpec) -> dict[str, Any]:
    """Returns `view_to_json` with everything else that `view_from_json` needs."""
    rest = {
        "resized_px": None if view.size == view.encoded_size else list(view.size),
        "through_px": [list(size) for size in view.through] or None,
        "canvas_px": view.canvas and list(view.canvas),
        "window_px": view.window and list(view.window),
        "clip_s": view.clip_seconds,
        "group": view.group or None,
        "tile": view.tile,
    }
    return view_to_json(view, spec) | {k: v for k, v in rest.items() if v is not None}


def view_from_json(content: Mapping[str, Any]) -> View:
    """Returns the view that `whole_view_to_json` wrote.

    Raises:
      KeyError, TypeError, ValueError: anything else.
    """
    canvas, window = content.get("canvas_px"), content.get("window_px")
    item, tile = content["item"], content.get("tile")
    return View(
        item=_whole_number(item),
        crop=_box(content["crop_px"]),
        size=_size(content.get("resized_px", content["size_px"])),
        through=tuple(_size(size) for size in content.get("through_px", ())),
        canvas=None if canvas is None else _size(canvas),
        window=None if window is None else _box(window),
        time=_seconds(content.get("time_s")),
        clip_seconds=_seconds(content.get("clip_s")),
        frames=tuple(_whole_number(frame) for frame in content.get("frames", ())),
        group=_whole_number(content.get("group", 0)),
        tile=None if tile is None else _whole_number(tile),
    )


def _whole_number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no whole number from 0 on")
    return value


def _size(value: Any) -> Size:
    height, width = map(_whole_number, value)
    if not (height and width):
        raise ValueError(f"{value} is no height and width")
    return Size(height, width)


def _box(value: Any) -> Box:
    top, left, bottom, right = map(_whole_number, value)
    if not (top < bottom and left < right):
        raise ValueError(f"{value} is no top, left, bottom, right")
    return Box(top, left, bottom, right)


def _seconds(value: Any) -> float | None:
    if value is not None and type(value) not in (int, float):
        raise TypeError(f"{value!r} is no number of seconds")
    return value

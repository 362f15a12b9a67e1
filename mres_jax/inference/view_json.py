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
    return View(
        item=content["item"],
        crop=Box(*content["crop_px"]),
        size=Size(*content.get("resized_px", content["size_px"])),
        through=tuple(Size(*size) for size in content.get("through_px", ())),
        canvas=canvas and Size(*canvas),
        window=window and Box(*window),
        time=content.get("time_s"),
        clip_seconds=content.get("clip_s"),
        frames=tuple(content.get("frames", ())),
        group=content.get("group", 0),
        tile=content.get("tile"),
    )

"""Places in an answer, as the model writes them -> as the harness's task reads them.

A task's scorer knows the picture alone: neither how large the model saw it, nor how the model
writes coordinates. Those of lmms-eval 0.7.3 want shares of the picture's sides, from 0 to 1.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from mres_jax.errors import ConfigError
from mres_jax.geometry import Size
from mres_jax.protocols import Answer, Item, extent_of
from mres_jax.resolution.zoom import find_places

Kind = Literal["point", "box"]
# How names of tasks begin whose scorers read places, and what they read.
TASKS: Mapping[str, Kind] = {
    "screenspot_pro": "point",
    "screenspot_v2": "point",
    "screenspot_rec": "box",
    **dict.fromkeys(("refcoco_bbox_rec", "refcoco+_bbox_rec", "refcocog_bbox_rec"), "box"),
}
SPACES = ("task", "model")


def check_space(space: str) -> None:
    """Raises `ConfigError` unless there is such a space."""
    if space not in SPACES:
        raise ConfigError(f"coord_space={space!r}; have {', '.join(SPACES)}.")


def kind_for(task: str) -> Kind | None:
    """Returns what the scorer of a task reads; None where it reads no places."""
    return next((kind for name, kind in TASKS.items() if task.startswith(name)), None)


def for_task(answer: Answer, items: Sequence[Item], kind: Kind) -> str:
    """Returns the text of an answer with its first place as shares of the picture's sides.

    Numbers that are all at most 1 are read as shares of what the model saw, since tasks ask for
    such, all others in the model's own frame. An answer without a place, about several views or
    about a clip is returned as it is, and so is a point where the task reads boxes.

    Args:
      answer: of the model.
      items: what it was asked about.
      kind: what the task reads.
    """
    if len(answer.views) != 1 or answer.views[0].frames:
        return answer.text
    (view,) = answer.views
    size = extent_of(items[view.item])
    if not isinstance(size, Size):
        return answer.text
    for frame in ("relative_1", answer.coord_frame):
        found = find_places(answer.text, view=view, coord_frame=frame, picture=size).places
        if not found:
            continue
        top, left, bottom, right = found[0]
        if kind == "point":
            y, x = found[0].centre
            return _written([x / size.width, y / size.height])
        if right > left and bottom > top:
            width, height = size.width, size.height
            return _written([left / width, top / height, right / width, bottom / height])
    return answer.text


def _written(shares: Sequence[float]) -> str:
    return "[" + ", ".join(f"{share:.6f}" for share in shares) + "]"

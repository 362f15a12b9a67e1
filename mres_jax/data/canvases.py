"""Views on canvases of a few static shapes, for a pathway that convolves.

Axes: n canvases of one shape, H and W its extents, pixels.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mres_jax.data.types import Canvases, Rung
from mres_jax.errors import PackingError


def fill_canvases(pictures: Sequence[np.ndarray], rung: Rung) -> tuple[Canvases, ...]:
    """Returns the views of a pack, each on the smallest canvas of the rung that holds it.

    A rung has `max_views` canvases of each of its shapes, so that any mix of views fits.

    Args:
      pictures: `uint8 [h w 3]`, one per view of the pack, in order.
      rung: shapes of the canvases.

    Raises:
      PackingError: a view that no canvas holds.
    """
    shapes = _by_area(rung)
    filled = {shape: _empty(shape, rung.max_views) for shape in shapes}
    used = dict.fromkeys(shapes, 0)
    for number, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        shape = next((s for s in shapes if height <= s[0] and width <= s[1]), None)
        if shape is None:
            have = ", ".join(f"{w} x {h}" for h, w in shapes) or "no canvas at all"
            raise PackingError(
                f"pack: view {number} is {width} x {height} px, but the rung has {have}. Name a "
                "canvas that holds it in `Rung.canvases`."
            )
        place, canvases = used[shape], filled[shape]
        canvases.pixels[place, :height, :width] = picture
        canvases.sizes[place] = height, width
        canvases.views[place] = number + 1
        used[shape] += 1
    return tuple(filled[height, width] for height, width in rung.canvases)


def narrowed(rung: Rung, pictures: Sequence[np.ndarray]) -> Rung:
    """Returns the rung with one shape of canvases alone, where the views fill all of that shape.

    A rung with several shapes runs for any mix of views, but compiles the pathway for each shape.
    The canvas that holds the largest of views that are alike serves all of them.

    Args:
      rung: with any number of shapes.
      pictures: as for `fill_canvases`.
    """
    if len(rung.canvases) < 2 or len(pictures) != rung.max_views:
        return rung
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    shape = next((s for s in _by_area(rung) if height <= s[0] and width <= s[1]), None)
    return rung if shape is None else dataclasses.replace(rung, canvases=(shape,))


def _by_area(rung: Rung) -> list[tuple[int, int]]:
    return sorted(rung.canvases, key=lambda shape: shape[0] * shape[1])


def _empty(shape: tuple[int, int], count: int) -> Canvases:
    return Canvases(
        pixels=np.zeros((count, *shape, 3), np.uint8),
        sizes=np.zeros((count, 2), np.int32),
        views=np.zeros(count, np.int32),
    )

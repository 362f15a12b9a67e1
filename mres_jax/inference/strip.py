"""Pictures of a request side by side, each drawn at the size that it was given.

Axes: H, W of the strip; 3 colour channels, pixels.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from mres_jax.data.views import render_view
from mres_jax.geometry import Size, View
from mres_jax.inference.show import GRID_COLOUR

CELL = 200  # px, longer side of the largest picture
GAP = 12  # px
COLUMNS = 8
PAPER, OUTLINE = (255, 255, 255), (190, 190, 190)


def draw_strip(
    images: Sequence[np.ndarray], views: Sequence[View], native: Sequence[Size]
) -> np.ndarray:
    """Returns a strip: in each cell the native outline in grey, inside it what is looked at.

    All cells have one scale, so sizes compare across pictures. What is enlarged reaches beyond its
    outline; of a picture that is left out the outline alone is drawn.

    Args:
      images: upright pictures, `uint8 [h w 3]`.
      views: at most one whole view per picture.
      native: sizes at native resolution, pixels.
    """
    chosen = {view.item: view for view in views}
    extents = [
        max(*size, *(chosen[i].size if i in chosen else size)) for i, size in enumerate(native)
    ]
    factor = CELL / max(extents)
    cell = CELL + GAP
    rows = -(-len(images) // COLUMNS)
    columns = min(COLUMNS, len(images))
    strip = np.full((rows * cell + GAP, columns * cell + GAP, 3), PAPER, np.uint8)
    for i, (image, size) in enumerate(zip(images, native, strict=True)):
        top, left = (GAP + n * cell for n in divmod(i, COLUMNS))
        _outline(strip, top, left, _scaled(size, factor), OUTLINE)
        if i in chosen:
            target = _scaled(chosen[i].size, factor)
            seen = Image.fromarray(render_view(image, chosen[i]))
            pixels = seen.resize((target.width, target.height), Image.Resampling.NEAREST)
            y, x = _corner(top, left, target)
            strip[y : y + target.height, x : x + target.width] = np.asarray(pixels)
            _outline(strip, top, left, target, GRID_COLOUR)
    return strip


def _scaled(size: Size, factor: float) -> Size:
    return Size(*(max(2, round(extent * factor)) for extent in size))


def _corner(top: int, left: int, size: Size) -> tuple[int, int]:
    """Where a picture stands in the middle of its cell."""
    return top + (CELL - size.height) // 2, left + (CELL - size.width) // 2


def _outline(
    strip: np.ndarray, top: int, left: int, size: Size, colour: tuple[int, int, int]
) -> None:
    y, x = _corner(top, left, size)
    strip[y - 1 : y + size.height + 1, [x - 1, x + size.width]] = colour
    strip[[y - 1, y + size.height], x - 1 : x + size.width + 1] = colour

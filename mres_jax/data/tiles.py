"""Pictures in tiles, as LLaVA-NeXT reads them: which grid, which pixels, which tokens where.

The picture is resized into the best of a few canvases that are whole tiles, with its ratio kept,
padded, and cut into tiles; before them stands the whole picture, squashed to one tile. Behind the
tokens of the whole come the rows of all tiles put together, without those that show padding alone,
each row with a learned end.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import NEWLINE
from mres_jax.errors import PromptError
from mres_jax.geometry import Box, Size, View


@dataclasses.dataclass(frozen=True)
class TileLayout:
    """What stands at the place of a picture in tiles.

    Attributes:
      slots: for each position, one of the picture's visual tokens or `NEWLINE`.
      num_encoded: visual tokens that its views give; not all have a position.
    """

    slots: tuple[int, ...]
    num_encoded: int

    def __len__(self) -> int:
        return len(self.slots)

    def shifted(self, start: int) -> list[int]:
        """Slots where the picture's first visual token is number `start`."""
        return [slot + start if slot >= 0 else slot for slot in self.slots]


def best_canvas(size: Size, canvases: Iterable[Size]) -> Size:
    """Returns the canvas that shows most pixels of a picture, and of those the one wasting least.

    No more pixels count than the picture has; of equals the first is taken.

    Reference:
      `select_best_resolution` of `transformers` 5.23, whose order of operations this keeps.
    """
    chosen, most, least = None, 0, math.inf
    for canvas in canvases:
        scale = min(canvas.width / size.width, canvas.height / size.height)
        shown = min(int(size.width * scale) * int(size.height * scale), size.area)
        wasted = canvas.area - shown
        if shown > most or (shown == most and wasted < least):
            chosen, most, least = canvas, shown, wasted
    if chosen is None:
        raise ValueError("best_canvas: no canvases.")
    return chosen


def inner_size(size: Size, canvas: Size) -> Size:
    """Returns what a picture becomes inside its canvas, pixels; a fraction is rounded up."""
    wide, tall = canvas.width / size.width, canvas.height / size.height
    if wide < tall:
        return Size(min(math.ceil(size.height * wide), canvas.height), canvas.width)
    return Size(canvas.height, min(math.ceil(size.width * tall), canvas.width))


def tile_views(item: int, size: Size, canvas: Size, *, side: int) -> list[View]:
    """Returns the whole picture squashed to one tile, then the tiles of its canvas by row."""
    crop, square = Box(0, 0, *size), Size(side, side)
    views = [View(item=item, crop=crop, size=square, group=item)]
    inner = inner_size(size, canvas)
    for top in range(0, canvas.height, side):
        for left in range(0, canvas.width, side):
            views.append(
                View(
                    item=item,
                    crop=crop,
                    size=inner,
                    canvas=canvas,
                    window=Box(top, left, top + side, left + side),
                    group=item,
                    tile=len(views) - 1,
                )
            )
    return views


def tile_layout(views: Sequence[View], spec: ProcessorSpec) -> TileLayout:
    """Returns where the visual tokens of the views of one picture stand.

    Raises:
      PromptError: the views are not the whole picture and then all tiles of one canvas.
    """
    assert spec.tiles is not None
    side, patches = spec.tiles.side, spec.tiles.side // spec.stride
    _check_tiles(views, side)
    whole = list(range(patches**2))
    canvas = views[-1].canvas
    if len(views) == 1 or canvas is None:
        return TileLayout((*whole, NEWLINE), len(whole))
    rows, columns = canvas.height // side, canvas.width // side
    numbers = patches**2 + np.arange(rows * columns * patches**2)
    grid = numbers.reshape(rows, columns, patches, patches).transpose(0, 2, 1, 3)
    grid = grid.reshape(rows * patches, columns * patches)
    grid = grid[unpadded(views[0].crop.size, Size(*grid.shape))]
    grid = np.pad(grid, ((0, 0), (0, 1)), constant_values=NEWLINE)
    return TileLayout((*whole, *grid.reshape(-1).tolist()), len(whole) + len(numbers))


def unpadded(size: Size, grid: Size) -> tuple[slice, slice]:
    """Returns the rows and columns of a grid of visual tokens that show a picture, not padding.

    Reference:
      `unpad_image` of `transformers` 5.23, whose rounding this keeps.
    """
    if size.width / size.height > grid.width / grid.height:
        rows = int(round(size.height * (grid.width / size.width), 7))
        border = (grid.height - rows) // 2
        return slice(border, grid.height - border), slice(0, grid.width)
    columns = int(round(size.width * (grid.height / size.height), 7))
    border = (grid.width - columns) // 2
    return slice(0, grid.height), slice(border, grid.width - border)


def _check_tiles(views: Sequence[View], side: int) -> None:
    item, first, tiles = views[0].item, views[0], views[1:]
    canvases = {view.canvas for view in tiles}
    canvas = tiles[0].canvas if tiles else None
    expected = tile_views(item, first.crop.size, canvas, side=side)[1:] if canvas else []
    if (
        first.tile is not None
        or first.encoded_size != (side, side)
        or len(canvases) > 1
        or [view.window for view in tiles] != [view.window for view in expected]
    ):
        raise PromptError(
            f"assemble: the {len(views)} views of picture {item} are not the whole picture at "
            f"{side} x {side} px and then all tiles of one canvas, as the model takes them. Use "
            "the policy tiles."
        )

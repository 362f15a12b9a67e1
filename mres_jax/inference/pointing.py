"""Where a model looks: the visual tokens that its answer hangs on, as places of the picture.

A model that reads need not be able to say where it reads. What its first token hangs on tells: one
prefill and its reverse through the decoder, and nothing is generated.

Reference:
  Zhang et al., 2025, "MLLMs Know Where to Look", ICLR, arXiv:2502.17422, "pure gradient". Theirs is
  taken at the pixels and divided by that of a general question; ours at the visual tokens, which
  needs no way back through the encoder, and as it is.
"""

import numpy as np
from jaxtyping import Float

from mres_jax.coordinates import from_picture, to_picture
from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import PolicyError
from mres_jax.geometry import Size, View

PLACES = 8  # that are named; a zoom takes the first of those that are apart


def relevance_map(
    relevance: Float[np.ndarray, " v"], view: View, spec: ProcessorSpec
) -> Float[np.ndarray, "rows columns"]:
    """Returns the relevance of one view's visual tokens as they lie on it; 0 outside the picture.

    Raises:
      PolicyError: its tokens are not one for each cell of the view.
    """
    grid = spec.grid(view.encoded_size)
    rows, columns = grid.h // spec.merge_size, grid.w // spec.merge_size
    if rows * columns != len(relevance):
        raise PolicyError(
            f"policy zoom: source=gradient needs a grid of visual tokens, but a view has "
            f"{len(relevance)} of them in {rows} rows and {columns} columns. Use source=model."
        )
    grid_map = relevance.reshape(rows, columns).copy()
    for row, column in np.ndindex(rows, columns):
        y, x = _middle(row, column, Size(rows, columns), view)
        if not (view.crop.top <= y < view.crop.bottom and view.crop.left <= x < view.crop.right):
            grid_map[row, column] = 0.0
    return grid_map


def places_text(grid_map: Float[np.ndarray, "rows columns"], view: View, coord_frame: str) -> str:
    """Returns the middles of the cells that stand out among their neighbours, the highest first.

    It is written as models write places, `(x, y)`, in the coordinates of `coord_frame`; "" where
    nothing is relevant.
    """
    size = Size(*grid_map.shape)
    padded = np.pad(grid_map, 1)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).max(axis=(2, 3))
    peaks = np.argwhere((grid_map == around) & (grid_map > 0))
    order = sorted(peaks.tolist(), key=lambda cell: -grid_map[tuple(cell)])
    middles = [_middle(row, column, size, view) for row, column in order[:PLACES]]
    named = [from_picture(*middle, view=view, coord_frame=coord_frame) for middle in middles]
    digits = 4 if coord_frame == "relative_1" else 1
    return "\n".join(f"({x:.{digits}f}, {y:.{digits}f})" for x, y in named)


def _middle(row: int, column: int, size: Size, view: View) -> tuple[float, float]:
    """(y, x) of the middle of a cell, px of the upright picture."""
    x, y = (column + 0.5) / size.width, (row + 0.5) / size.height
    return to_picture(x, y, view=view, coord_frame="relative_1")

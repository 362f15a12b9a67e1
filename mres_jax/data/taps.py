"""Where the patches of a view read a square table of learned positions.

Axes: p patches; 4 entries of the table around a place.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mres_jax.data.patches import block_positions
from mres_jax.geometry import Grid


class Taps(NamedTuple):
    """Entries of a table of positions, and what they count.

    Attributes:
      index: `int32 [p 4]`, into the table, row by row.
      weight: `float32 [p 4]`, sums to 1; 0 where a pack is padding.
    """

    index: Any
    weight: Any


def position_taps(grids: Sequence[Grid], *, side: int, merge_size: int) -> Taps:
    """Returns the bilinear taps of views that stand one behind the other, patches in block order.

    The corners of a view read the corners of the table, whatever its size. A side of one patch
    reads its first row or column.

    Args:
      grids: of the views, whole merge blocks.
      side: of the table.
      merge_size: patches per side of one visual token.

    Example:
      >>> taps = position_taps([Grid(1, 1, 3)], side=2, merge_size=1)
      >>> taps.index.tolist()
      [[0, 1, 2, 3], [0, 1, 2, 3], [1, 1, 3, 3]]
      >>> taps.weight.tolist()
      [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]

    Reference:
      Bai et al., 2025, "Qwen3-VL Technical Report", arXiv:2511.21631, section 2; corners as read
      in `get_vision_interpolation_indices_and_weights` of `transformers` 5.23.
    """
    indices, weights = [np.zeros((0, 4), np.int32)], [np.zeros((0, 4), np.float32)]
    for grid in grids:
        places = np.tile(block_positions(grid, merge_size=merge_size), (grid.t, 1))
        (rows, down), (columns, right) = (
            _along(places[:, axis], length, side) for axis, length in enumerate((grid.h, grid.w))
        )
        indices.append((rows[:, :, None] * np.int32(side) + columns[:, None]).reshape(-1, 4))
        weights.append((down[:, :, None] * right[:, None]).reshape(-1, 4))
    return Taps(np.concatenate(indices), np.concatenate(weights))


def _along(places: np.ndarray, length: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The two entries next to each place along one axis, `[p 2]`, and their weights."""
    # float32 in this order of operations, so that a place on an entry reads that entry alone
    at = places.astype(np.float32) * np.float32(side - 1) / np.float32(max(length - 1, 1))
    first = np.floor(at)
    entries = np.stack([first, first + 1], axis=1).astype(np.int32)
    return np.minimum(entries, side - 1), np.stack([1 - (at - first), at - first], axis=1)

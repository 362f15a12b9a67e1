"""Windows of a vision tower that looks at its neighbourhood: their order and their lengths.

Attention inside windows is attention of packed segments, once the patches of a window stand
together. Axes: p patches, w windows.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mres_jax.geometry import Grid


class Windows(NamedTuple):
    """How the patches of an example or a pack are brought together, window by window.

    Attributes:
      order: `int32 [p]`, the patch that stands at each place when windows follow each other. Every
        frame keeps its places and every merge block its inner order; padding stays where it is.
      segment_ids: `int32 [p]` in that order, 1..w per window, 0 = padding.
    """

    order: Any
    segment_ids: Any


def window_layout(grids: Sequence[Grid], *, side: int, merge_size: int) -> Windows:
    """Returns the windows of views that stand one behind the other, patches in block order.

    Windows are laid from the top left corner of each frame; those at its right and lower edge are
    what is left over. They follow each other by row, and so do the merge blocks within one.

    Args:
      grids: of the views, whole merge blocks.
      side: of a window, visual tokens.
      merge_size: patches per side of one visual token.

    Example:
      >>> windows = window_layout([Grid(1, 2, 5)], side=2, merge_size=1)
      >>> windows.order.tolist()
      [0, 1, 5, 6, 2, 3, 7, 8, 4, 9]
      >>> windows.segment_ids.tolist()
      [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]

    Reference:
      Bai et al., 2025, "Qwen2.5-VL Technical Report", arXiv:2502.13923, section 2.1.1; the order
      as read in `get_vision_window_index` of `transformers` 5.23.
    """
    orders, lengths, start = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], 0
    for grid in grids:
        order, counts = _frame(grid.h // merge_size, grid.w // merge_size, side, merge_size**2)
        for _ in range(grid.t):
            orders.append(order + np.int32(start))
            lengths.append(counts)
            start += len(order)
    each = np.concatenate(lengths)
    ids = np.repeat(np.arange(1, len(each) + 1, dtype=np.int32), each)
    return Windows(np.concatenate(orders), ids)


def pack_windows(parts: Sequence[Windows], num_patches: int) -> Windows:
    """Returns the windows of examples that stand one behind the other in `num_patches` patches."""
    order = np.arange(num_patches, dtype=np.int32)
    segment_ids = np.zeros(num_patches, np.int32)
    start = windows = 0
    for part in parts:
        here = slice(start, start + len(part.order))
        order[here] = part.order + np.int32(start)
        segment_ids[here] = part.segment_ids + np.int32(windows)
        start = here.stop
        windows += int(part.segment_ids.max(initial=0))
    return Windows(order, segment_ids)


def _frame(rows: int, columns: int, side: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Patches of one frame in the order of windows, and the patches of each window."""
    across = -(-columns // side)
    row, column = np.divmod(np.arange(rows * columns, dtype=np.int32), columns)
    window = row // side * across + column // side
    blocks = np.argsort(window, kind="stable").astype(np.int32)
    order = blocks[:, None] * np.int32(block) + np.arange(block, dtype=np.int32)
    return order.reshape(-1), np.bincount(window) * block

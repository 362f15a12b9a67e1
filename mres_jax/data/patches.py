"""Pixels <-> patch rows in block order.

Axes: H, W of the view; p patches; r = 3 * patch_size**2 values of one row (channel, row, column),
or, of frames that are seen together, 3 * frames * patch_size**2 (channel, frame, row, column).
"""

from collections.abc import Sequence

import numpy as np

from mres_jax.data._pixels import check_image
from mres_jax.errors import MresError
from mres_jax.geometry import Grid, block_order


def patchify(
    image: np.ndarray, *, patch_size: int, merge_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a view into patches.

    Args:
      image: `uint8 [H W 3]`; sides are multiples of `patch_size * merge_size`.
      patch_size: pixels.
      merge_size: patches per side of one visual token.

    Returns:
      `patches`: `uint8 [p r]` in block order.
      `positions`: `int32 [p 2]`, row and column of each patch in its view.

    Raises:
      MresError: not such an array, or a size that is not whole visual tokens.
    """
    check_image(image, where="patchify")
    height, width = image.shape[:2]
    stride = patch_size * merge_size
    if height % stride or width % stride:
        raise MresError(
            f"patchify: a view of {width} x {height} px is not whole visual tokens of {stride} px "
            f"(patch_size={patch_size}, merge_size={merge_size}). Choose its size with fit_size."
        )
    grid = Grid(1, height // patch_size, width // patch_size)
    patches = patch_rows(image, patch_size=patch_size, merge_size=merge_size)
    return patches, block_positions(grid, merge_size=merge_size)


def patch_rows(image: np.ndarray, *, patch_size: int, merge_size: int) -> np.ndarray:
    """Cuts `[H W 3]` of any dtype and a size that fits into patch rows `[p r]` in block order."""
    height, width = image.shape[:2]
    stride = patch_size * merge_size
    blocks = image.reshape(
        height // stride, merge_size, patch_size, width // stride, merge_size, patch_size, 3
    )
    return blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3 * patch_size**2)


def patchify_frames(
    frames: Sequence[np.ndarray], *, patch_size: int, merge_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts frames that are seen together into patches, each of which shows all of them.

    Args:
      frames: `uint8 [H W 3]`, one size; sides are multiples of `patch_size * merge_size`.
      patch_size: pixels.
      merge_size: patches per side of one visual token.

    Returns:
      `patches`: `uint8 [p r]` in block order.
      `positions`: `int32 [p 2]`, row and column of each patch in its view.

    Raises:
      MresError: as `patchify`.
    """
    cut = [patchify(frame, patch_size=patch_size, merge_size=merge_size) for frame in frames]
    rows = np.stack([patches.reshape(len(patches), 3, -1) for patches, _ in cut], axis=2)
    return rows.reshape(len(rows), -1), cut[0][1]


def widen(patches: np.ndarray, row_size: int) -> np.ndarray:
    """Returns still patches as rows of several frames, of which all but the first are empty.

    Args:
      patches: `[p r]`, one frame.
      row_size: values of a row of all frames.

    Example:
      >>> widen(np.arange(1, 4, dtype=np.uint8)[None], 6).tolist()
      [[1, 0, 2, 0, 3, 0]]
    """
    count, pixels = len(patches), patches.shape[1] // 3
    out = np.zeros((count, 3, row_size // patches.shape[1], pixels), patches.dtype)
    out[:, :, 0] = patches.reshape(count, 3, pixels)
    return out.reshape(count, row_size)


def unpatchify(patches: np.ndarray, grid: Grid, *, patch_size: int, merge_size: int) -> np.ndarray:
    """Puts the patches of one still view together again: the inverse of `patchify`.

    Args:
      patches: `[p r]` in block order, of any dtype.
      grid: of the view.
      patch_size: pixels.
      merge_size: patches per side of one visual token.

    Returns:
      `[H W 3]` of the same dtype.

    Raises:
      MresError: patches that are not those of such a view.
    """
    if patches.shape != (grid.num_patches, 3 * patch_size**2) or grid.t != 1:
        raise MresError(
            f"unpatchify: patches of shape {list(patches.shape)} are not a still view of grid_thw="
            f"{tuple(grid)} with patch_size={patch_size}, which has "
            f"{[grid.num_patches, 3 * patch_size**2]}."
        )
    raster = np.empty_like(patches)
    raster[block_order(grid.h, grid.w, merge_size)] = patches
    rows = raster.reshape(grid.h, grid.w, 3, patch_size, patch_size)
    return rows.transpose(0, 3, 1, 4, 2).reshape(grid.h * patch_size, grid.w * patch_size, 3)


def block_positions(grid: Grid, *, merge_size: int) -> np.ndarray:
    """Returns row and column of each patch of a still view, in block order, `int32 [p 2]`.

    Raises:
      MresError: a side that is not whole visual tokens.

    Example:
      >>> block_positions(Grid(1, 2, 4), merge_size=2).tolist()
      [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
    """
    return np.stack(np.divmod(block_order(grid.h, grid.w, merge_size), max(grid.w, 1)), axis=1)

"""Learned position tables brought to another grid, as torch's bicubic interpolation does it.

Axes: p positions of the old table, q of the new, d width.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mres_jax.errors import MresError

SHARPNESS = -0.75  # of the cubic kernel; `jax.image.resize` has -0.5, 8 to 51 % off in such tables
Table = TypeVar("Table", np.ndarray, jax.Array)


def resize_position_table(
    table: Table, *, old: tuple[int, int], new: tuple[int, int], prefix: int = 0
) -> Table:
    """Returns a table of positions for another grid; on the same grid the same bits.

    Reference:
      `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`, which Hugging Face's
      towers use; equal to 1e-5.

    Args:
      table: `[prefix + rows * columns, width]`, raster order, numpy's or jax's.
      old: rows and columns of its grid.
      new: rows and columns wanted.
      prefix: rows before the grid that are kept as they are, such as that of a class token.

    Raises:
      MresError: a table that is not of the old grid, or an empty grid.
    """
    (rows, columns), (tall, wide) = old, new
    if min(*old, *new) < 1 or table.ndim != 2 or len(table) != prefix + rows * columns:
        raise MresError(
            f"position table: {list(table.shape)} is not {prefix} + {rows} x {columns} rows of one "
            f"width, to be brought to {tall} x {wide}."
        )
    if old == new:
        return table
    xp = np if isinstance(table, np.ndarray) else jnp
    grid = table[prefix:].astype(np.float32).reshape(rows, columns, -1)
    down, across = (bicubic_weights(n, m) for n, m in ((rows, tall), (columns, wide)))
    if xp is np:
        resized = np.einsum("yr,xc,rcd->yxd", down, across, grid, optimize=True)
    else:
        down, across = (jnp.asarray(w, jnp.float32) for w in (down, across))
        exact = jax.lax.Precision.HIGHEST
        resized = jnp.einsum("yr,xc,rcd->yxd", down, across, grid, precision=exact)
    flat = resized.reshape(tall * wide, -1).astype(table.dtype)
    return xp.concatenate([table[:prefix], flat])  # pyright: ignore[reportReturnType]


def bicubic_weights(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Returns what each of `new` places takes of each of `old`; rows sum to 1, edges are repeated.

    Reference:
      Keys, 1981, "Cubic convolution interpolation for digital image processing", with -0.75.
    """
    # torch reckons places in float32, and up to 1e-5 of the values hangs on their rounding
    at = np.float32(old / new) * (np.arange(new, dtype=np.float32) + np.float32(0.5))
    at = (at - np.float32(0.5)).astype(np.float64)
    first = np.floor(at).astype(np.int64)
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        place = np.clip(first + tap, 0, old - 1)
        np.add.at(weights, (np.arange(new), place), _kernel(np.abs(at - first - tap)))
    return weights


def _kernel(distance: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    a, x = SHARPNESS, distance
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

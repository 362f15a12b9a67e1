"""Maps on canvases: convolution over each channel, resizing, and the way from packs and back.

Axes: n canvases, y rows, x columns, z channels of a map; p packed patches, d vision width; b rows
and a columns after a resize.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from mres_jax.nn.depthwise import Map, depthwise

Mask = Bool[Array, "n y x"]


class DepthwiseConv(nnx.Module):
    """Each channel convolved with a square of its own; nothing beyond a mask is seen."""

    def __init__(self, size: int, *, width: int = 7, dtype: DTypeLike, rngs: nnx.Rngs):
        self.width, self.dtype = width, dtype
        bound = (6 / (width**2 * (1 + size))) ** 0.5  # Xavier's, as torch counts the fans
        shape = (width**2, size)
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
        )
        self.bias = nnx.Param(jnp.zeros(size))

    def __call__(self, x: Map, mask: Mask) -> Map:
        kernel = self.kernel[...].astype(self.dtype)
        out = depthwise(masked(x, mask).astype(self.dtype), kernel)
        return out + self.bias[...].astype(self.dtype)[None, None, None]


def masked(x: Map, mask: Mask) -> Map:
    """The map with zeros wherever the mask is False."""
    return jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))


def canvas_mask(sizes: Int[Array, "n 2"], height: int, width: int, *, stride: int) -> Mask:
    """Which cells of a map of `stride` pixels show a view of `sizes` pixels."""
    cells = sizes // stride
    rows = jnp.arange(height)[None] < cells[:, :1]
    columns = jnp.arange(width)[None] < cells[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


def masked_mean(x: Map, mask: Mask) -> Float[Array, "n z"]:
    """Mean of each channel over the cells of the mask, float32; zeros where there are none."""
    total = masked(x.astype(jnp.float32), mask).sum((1, 2))
    count = mask.sum((1, 2)).astype(jnp.float32)
    return total / jnp.maximum(count, 1.0)[:, None]


class Resize(NamedTuple):
    """Matrices of float32 for rows and for columns, constants of a program."""

    rows: np.ndarray  # [b y]
    columns: np.ndarray  # [a x]

    def __call__(self, x: Map) -> Float[Array, "n b a z"]:
        """The map at the new size, computed in float32."""
        wide = x.astype(jnp.float32)
        rows, columns = jnp.asarray(self.rows), jnp.asarray(self.columns)
        exact = jax.lax.Precision.HIGHEST
        wide = jnp.einsum("by,nyxz->nbxz", rows, wide, precision=exact)
        return jnp.einsum("ax,nbxz->nbaz", columns, wide, precision=exact).astype(x.dtype)


class Cells(NamedTuple):
    """Where the patches of a pack stand on maps of one shape.

    Attributes:
      cells: `int32 [p]`, cell of each patch, row by row of canvas by canvas; past the end for
        patches that are on none of these canvases.
      shape: canvases, rows and columns; static.
    """

    cells: Int[Array, " p"]
    shape: tuple[int, int, int]

    @classmethod
    def of(
        cls,
        positions: Int[Array, "p 2"],
        segment_ids: Int[Array, " p"],
        views: Int[Array, " n"],
        *,
        max_views: int,
        height: int,
        width: int,
    ) -> "Cells":
        """Places the patches of the views that stand on `n` canvases of `height` x `width` cells.

        Args:
          positions: row and column of each patch in its view.
          segment_ids: view of each patch, 1..max_views, 0 = padding.
          views: view on each canvas, 0 = none.
          max_views: views of the pack.
          height: cells.
          width: cells.
        """
        count = views.shape[0]
        canvas = jnp.full(max_views + 1, -1).at[views].set(jnp.arange(count)).at[0].set(-1)
        canvas = canvas[segment_ids]
        cell = (canvas * height + positions[:, 0]) * width + positions[:, 1]
        index = jnp.where(canvas >= 0, cell, count * height * width)
        return cls(index.astype(jnp.int32), (count, height, width))

    def spread(self, x: Float[Array, "p d"]) -> Float[Array, "n y x d"]:
        """The patches on their canvases; zeros elsewhere."""
        count, height, width = self.shape
        out = jnp.zeros((count * height * width, x.shape[1]), x.dtype)
        out = out.at[self.cells].set(x, mode="drop")
        return out.reshape(count, height, width, -1)

    def gather(self, x: Float[Array, "n y x d"]) -> Float[Array, "p d"]:
        """The cells of the patches; zeros for patches that are on none of these canvases."""
        flat = x.reshape(-1, x.shape[-1])
        return flat.at[self.cells].get(mode="fill", fill_value=0)

    def has(self) -> Bool[Array, " p"]:
        """Which patches are on one of these canvases."""
        count, height, width = self.shape
        return self.cells < count * height * width

    def mask(self) -> Mask:
        """Which cells hold a patch."""
        count, height, width = self.shape
        out = jnp.zeros(count * height * width, bool).at[self.cells].set(True, mode="drop")
        return out.reshape(self.shape)

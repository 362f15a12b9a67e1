"""Learned positions on a square grid, read between its points.

Axes: p packed patches, o rows or columns of the table, d vision width.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class PositionTable(nnx.Module):
    """A table of `side * side` learned vectors, row by row; see `read_positions`."""

    def __init__(self, side: int, size: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.normal(0.02)
        self.embedding = nnx.Param(init(rngs.params(), (side**2, size)))

    def __call__(self, weights: Float[Array, "p 2 o"]) -> Float[Array, "p d"]:
        """Positions of the patches, float32."""
        return read_positions(self.embedding[...], weights)


@jax.checkpoint  # else the backward pass keeps the weights of all cells, `p * o * o` of them
def read_positions(
    table: Float[Array, "cells d"], weights: Float[Array, "p 2 o"]
) -> Float[Array, "p d"]:
    """Weighted sums of a table's vectors, float32.

    What each row and column counts comes from the host (`mres_jax.data.position_weights`): no
    shape here depends on the size of a picture. A product with the whole table, since accelerators
    gather and scatter rows more slowly than they multiply by zeros.

    Args:
      table: `o * o` vectors, row by row.
      weights: of the rows and of the columns, for each patch.
    """
    rows, columns = weights[:, 0], weights[:, 1]
    cells = (rows[:, :, None] * columns[:, None, :]).reshape(rows.shape[0], -1)
    exact = jax.lax.Precision.HIGHEST
    return jnp.matmul(cells, table.astype(jnp.float32), precision=exact)

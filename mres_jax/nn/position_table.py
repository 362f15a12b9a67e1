"""Learned positions on a grid, read between its points.

Axes: p packed patches, d vision width.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int


class PositionTable(nnx.Module):
    """A square table of `side * side` learned vectors, row by row.

    Which entries a patch reads, and with which weights, comes from the host
    (`mres_jax.data.taps`): no shape here depends on the size of a picture.
    """

    def __init__(self, side: int, size: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.normal(0.02)
        self.embedding = nnx.Param(init(rngs.params(), (side**2, size)))

    def __call__(
        self, index: Int[Array, "p 4"], weight: Float[Array, "p 4"]
    ) -> Float[Array, "p d"]:
        """Weighted sums of four entries each, float32."""
        entries = self.embedding[...][index].astype(jnp.float32)
        return (entries * weight[..., None]).sum(axis=1)

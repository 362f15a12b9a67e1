"""Keys and values of what has been read so far, in static shapes."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class KVCache(NamedTuple):
    """Cache of all layers, one row per running answer.

    Attributes:
      keys: `[layers, rows, max_len, kv_heads, head_dim]`, rotary already applied.
      values: the same shape.
      lengths: `int32 [rows]`, positions filled; what lies behind is never read.
    """

    keys: Float[Array, "l m max_len g k"]
    values: Float[Array, "l m max_len g k"]
    lengths: Int[Array, " m"]

    def extended(self, keys: Float[Array, "l m g k"], values: Float[Array, "l m g k"]) -> "KVCache":
        """With one position more in every row, written once for all layers.

        Layer by layer XLA on the CPU would copy the whole cache for each of them.
        """
        rows = jnp.arange(self.lengths.shape[0])
        return KVCache(
            self.keys.at[:, rows, self.lengths].set(keys),
            self.values.at[:, rows, self.lengths].set(values),
            self.lengths + 1,
        )

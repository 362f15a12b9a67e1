"""From the keys and values of a packed prefill to the rows of a cache, in static shapes.

Axes: l layers, t packed positions, g key/value heads, k head width, m rows of a cache.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mres_jax.nn import KVCache


def cache_rows(
    keys: Float[Array, "l t g k"],
    values: Float[Array, "l t g k"],
    starts: Int[Array, " m"],
    lengths: Int[Array, " m"],
    *,
    max_len: int,
) -> KVCache:
    """Returns a cache whose row `i` holds `lengths[i]` packed positions, from `starts[i]` on.

    Rows may repeat a prompt, so several answers share one prefill. What lies behind a row's length
    is zero: a neighbour that is not finite cannot reach it.

    Args:
      keys: of all layers, rotary applied.
      values: likewise.
      starts: first packed position of each row.
      lengths: positions of each row, at most `max_len`; 0 for a row that is not used.
      max_len: positions that a row can hold, new ones included.
    """
    place = jnp.arange(max_len, dtype=jnp.int32)[None]
    index = jnp.minimum(starts[:, None] + place, keys.shape[1] - 1)
    filled = (place < lengths[:, None])[None, :, :, None, None]

    def rows(packed):
        return jnp.where(filled, jnp.take(packed, index, axis=1, mode="clip"), 0)

    return KVCache(rows(keys), rows(values), lengths)

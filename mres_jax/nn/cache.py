"""Keys and values of what has been read so far, in static shapes."""

from typing import NamedTuple

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

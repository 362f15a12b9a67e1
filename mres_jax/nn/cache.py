"""Keys and values of what has been read so far, in static shapes.

Axes: l layers, t packed positions, m rows, n new tokens, h query heads, g key/value heads, k head
width.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from mres_jax import ops

LayerIndex = int | np.integer | Int[Array, ""]  # concrete where layers stand apart


class KVCache(NamedTuple):
    """Cache of all layers, one row per running answer.

    Attributes:
      keys: `[layers, rows, kv_heads, max_len, head_dim]`, rotary already applied; or a list of
        those of each layer, which XLA on the CPU reads without copying them out first.
      values: likewise.
      lengths: `int32 [rows]`, positions filled; what lies behind is never read.
    """

    keys: Float[Array, "l m g max_len k"] | list[Float[Array, "m g max_len k"]]
    values: Float[Array, "l m g max_len k"] | list[Float[Array, "m g max_len k"]]
    lengths: Int[Array, " m"]

    @classmethod
    def of_pack(
        cls,
        keys: Float[Array, "l t g k"],
        values: Float[Array, "l t g k"],
        starts: Int[Array, " m"],
        lengths: Int[Array, " m"],
        *,
        max_len: int,
        apart: bool = False,
    ) -> "KVCache":
        """Returns a cache whose row `i` holds `lengths[i]` packed positions, from `starts[i]` on.

        Rows may repeat a prompt, so several answers share one prefill. What lies behind a row's
        length is zero: a neighbour that is not finite cannot reach it.

        Args:
          keys: of all layers, rotary applied.
          values: likewise.
          starts: first packed position of each row.
          lengths: positions of each row, at most `max_len`; 0 for a row that is not used.
          max_len: positions that a row can hold, new ones included.
          apart: keep each layer in an array of its own, for a decoder whose layers stand apart.
        """
        keys, values = (ops.fill_cache(x, starts, lengths, max_len=max_len) for x in (keys, values))
        return cls(list(keys), list(values), lengths) if apart else cls(keys, values, lengths)

    def attend(
        self,
        q: Float[Array, "m n h k"],
        keys: Float[Array, "m n g k"],
        values: Float[Array, "m n g k"],
        layer: LayerIndex,
    ) -> Float[Array, "m n h k"]:
        """Attention of new tokens to what one layer holds and to each other."""
        held: Any = {"keys": self.keys, "values": self.values, "layer": layer}
        if isinstance(self.keys, list):
            held = {"keys": self.keys[int(layer)], "values": self.values[int(layer)]}
        return ops.decode_attention(q, keys, values, lengths=self.lengths, **held)

    def extended(self, keys: Float[Array, "l m g k"], values: Float[Array, "l m g k"]) -> "KVCache":
        """With one position more in every row."""

        def longer(held: Any, new: Array) -> Any:
            if isinstance(held, list):
                return [ops.extend_cache(*one, self.lengths) for one in zip(held, new, strict=True)]
            return ops.extend_cache(held, new, self.lengths)

        return KVCache(longer(self.keys, keys), longer(self.values, values), self.lengths + 1)

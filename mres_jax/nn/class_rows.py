"""A class token in front of each view of a pack.

Axes: p packed patches, q packed rows with class tokens, d vision width, n views.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mres_jax import ops


class ClassRows(NamedTuple):
    """Where patches and class tokens stand once each view begins with one.

    Attributes:
      patches: `int32 [p]`, new row of each patch; past the end for padding.
      tokens: `int32 [n]`, row of each view's class token; past the end for an unused view.
      segment_ids: `int32 [q]`, of the new rows.
    """

    patches: Int[Array, " p"]
    tokens: Int[Array, " n"]
    segment_ids: Int[Array, " q"]

    @classmethod
    def of(cls, segment_ids: Int[Array, " p"], max_views: int) -> "ClassRows":
        """Reads the rows off the segment ids of a pack: a view moves by the views up to it."""
        length = -(-(segment_ids.shape[0] + max_views) // ops.ROW_MULTIPLE) * ops.ROW_MULTIPLE
        counts = jnp.bincount(segment_ids, length=max_views + 1)[1:].astype(jnp.int32)
        starts = jnp.cumsum(counts) - counts + jnp.arange(max_views, dtype=jnp.int32)
        tokens = jnp.where(counts > 0, starts, length)
        rows = jnp.arange(segment_ids.shape[0], dtype=jnp.int32) + segment_ids
        patches = jnp.where(segment_ids > 0, rows, length)
        ids = jnp.zeros(length, segment_ids.dtype).at[patches].set(segment_ids, mode="drop")
        views = jnp.arange(1, max_views + 1, dtype=segment_ids.dtype)
        return cls(patches, tokens, ids.at[tokens].set(views, mode="drop"))

    def insert(self, x: Float[Array, "p d"], token: Float[Array, " d"]) -> Float[Array, "q d"]:
        """The rows with `token` in front of each view; padding is zeros."""
        out = jnp.zeros((self.segment_ids.shape[0], x.shape[1]), x.dtype)
        out = out.at[self.patches].set(x, mode="drop")
        tokens = jnp.broadcast_to(token.astype(x.dtype)[None], (self.tokens.shape[0], x.shape[1]))
        return out.at[self.tokens].set(tokens, mode="drop")

    def drop(self, x: Float[Array, "q d"]) -> Float[Array, "p d"]:
        """The patches without the class tokens; padding is zeros."""
        return x.at[self.patches].get(mode="fill", fill_value=0)

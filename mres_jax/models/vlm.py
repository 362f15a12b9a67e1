"""What every packed vision-language model can do, whatever its tower, projector and decoder.

Axes: t packed positions, m rows of a cache, l layers, g key/value heads, k head width,
e text width, V vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from mres_jax import nn, ops
from mres_jax.data.types import Pack
from mres_jax.models.tower import Tower, Visual


class PackedVLM(nnx.Module):
    """A `vision` tower and a `text` decoder joined by `project`; subclasses build the three."""

    config: Any
    vision: Tower
    text: Any

    def __init__(
        self,
        config: Any,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        raise NotImplementedError(f"{type(self).__name__} builds no parts.")

    def project(self, visual: Visual) -> Visual:
        """Visual tokens at the decoder's width: what the tower gives, unless a model has more."""
        return visual

    def encode(self, pack: Pack) -> Visual:
        """Visual tokens of a pack; none for a rung without patches."""
        if not pack.patches.shape[0]:
            return Visual(jnp.zeros((0, self.config.text_config.hidden_size)))
        return self.project(self.vision(pack))

    def hidden(self, pack: Pack, visual: Visual | None = None) -> Float[Array, "t e"]:
        """Hidden states of every packed position; each example sees itself alone.

        `visual` are the pack's visual tokens where the caller has them already.
        """
        return self.text(*self._inputs(pack, visual))

    def prefill(
        self, pack: Pack, visual: Visual | None = None
    ) -> tuple[Float[Array, "t e"], Float[Array, "l t g k"], Float[Array, "l t g k"]]:
        """Hidden states, and the keys and values of every layer for a cache."""
        return self.text.prefill(*self._inputs(pack, visual))

    def decode(
        self, tokens: Int[Array, " m"], positions: Int[Array, "3 m"], cache: nn.KVCache
    ) -> tuple[Float[Array, "m V"], nn.KVCache]:
        """Logits after one more token in each row, and the longer cache."""
        hidden, cache = self.text.decode(self.text.embed(tokens), positions, cache)
        return self.text.logits(hidden), cache

    def logits(self, hidden: Float[Array, "*b e"]) -> Float[Array, "*b V"]:
        """Scores over the vocabulary, float32."""
        return self.text.logits(hidden)

    def _inputs(self, pack: Pack, visual: Visual | None):
        """Of the decoder: token embeddings with the visual tokens in their places, positions, plan,
        and what the first layers add (DeepStack)."""
        x, extra = self.text.embed(pack.tokens), None
        if visual is None:
            visual = self.encode(pack)
        x = ops.scatter_visual(x, visual.tokens, pack.visual_index)
        if visual.deepstack is not None:
            scatter = jax.vmap(ops.scatter_visual, in_axes=(None, 0, None))
            extra = scatter(jnp.zeros_like(x), visual.deepstack, pack.visual_index)
        plan = ops.make_plan(segment_ids=pack.segment_ids, causal=True)
        return x, pack.positions, plan, extra

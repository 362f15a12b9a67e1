"""What every packed vision-language model can do, whatever its tower, projector and decoder.

Axes: p packed patches, r values of a patch row, v packed visual tokens, t packed positions,
m rows of a cache, d vision width, e text width, V vocabulary.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from mres_jax import nn, ops
from mres_jax.data.types import Pack


class PackedVLM(nnx.Module):
    """A `vision` tower and a `text` decoder joined by `project`; subclasses build the three."""

    config: Any
    vision: Any
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

    def project(self, visual: Float[Array, "v d"]) -> Float[Array, "v e"]:
        """Visual tokens at the decoder's width."""
        raise NotImplementedError

    def encode(
        self,
        patches: UInt8[Array, "p r"] | Float[Array, "p r"],
        patch_positions: Int[Array, "p 2"],
        patch_segment_ids: Int[Array, " p"],
    ) -> Float[Array, "v e"]:
        """Visual tokens of a pack, in the order of its views."""
        return self.project(self.vision(patches, patch_positions, patch_segment_ids))

    def hidden(self, pack: Pack, visual: Float[Array, "v e"] | None = None) -> Float[Array, "t e"]:
        """Hidden states of every packed position; each example sees itself alone.

        `visual` are the pack's visual tokens where the caller has them already.
        """
        return self.text(self.embed(pack, visual), pack.positions, self._plan(pack))

    def prefill(
        self, pack: Pack, visual: Float[Array, "v e"] | None = None
    ) -> tuple[Float[Array, "t e"], Float[Array, "l t g k"], Float[Array, "l t g k"]]:
        """Hidden states, and the keys and values of every layer for a cache."""
        return self.text.prefill(self.embed(pack, visual), pack.positions, self._plan(pack))

    def decode(
        self, tokens: Int[Array, " m"], positions: Int[Array, "3 m"], cache: nn.KVCache
    ) -> tuple[Float[Array, "m V"], nn.KVCache]:
        """Logits after one more token in each row, and the longer cache."""
        hidden, cache = self.text.decode(self.text.embed(tokens), positions, cache)
        return self.text.logits(hidden), cache

    def logits(self, hidden: Float[Array, "*b e"]) -> Float[Array, "*b V"]:
        """Scores over the vocabulary, float32."""
        return self.text.logits(hidden)

    def embed(self, pack: Pack, visual: Float[Array, "v e"] | None = None) -> Float[Array, "t e"]:
        """Input of the decoder: token embeddings, with the visual tokens in their places."""
        text = self.text.embed(pack.tokens)
        if not pack.patches.shape[0]:  # a rung for text alone
            return text
        if visual is None:
            visual = self.encode(pack.patches, pack.patch_positions, pack.patch_segment_ids)
        return ops.scatter_visual(text, visual, pack.visual_index)

    def _plan(self, pack: Pack) -> ops.Plan:
        return ops.make_plan(segment_ids=pack.segment_ids, causal=True)

"""Decoder of Qwen2 and of what came after it, over packs and caches.

Axes: t packed positions, m rows of a cache, e width, l layers, g key/value heads, k head width,
deep the first layers, which DeepStack adds to.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from mres_jax import nn, ops
from mres_jax.models.qwen2.config import TextConfig


class DecoderLayer(nnx.Module):
    """Pre-norm attention and gated MLP."""

    def __init__(self, config: TextConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        size, epsilon = config.hidden_size, config.rms_norm_eps
        self.input_norm = nn.RMSNorm(size, epsilon=epsilon)
        self.attn = nn.DecoderAttention(
            size,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            use_bias=config.QKV_BIAS,
            qk_norm_epsilon=epsilon if config.QK_NORM else None,
            dtype=dtype,
            rngs=rngs,
        )
        self.post_norm = nn.RMSNorm(size, epsilon=epsilon)
        self.mlp = nn.GatedMLP(size, config.intermediate_size, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "t e"], rotary: nn.Rotary, plan: ops.Plan):
        out, kv = self.attn(self.input_norm(x), rotary, plan)
        x = x + out
        return x + self.mlp(self.post_norm(x)), kv

    def decode(
        self, x: Float[Array, "m e"], rotary: nn.Rotary, cache: nn.KVCache, index: nn.LayerIndex
    ):
        out, kv = self.attn.decode(self.input_norm(x), rotary, cache, index)
        x = x + out
        return x + self.mlp(self.post_norm(x)), kv


class Decoder(nnx.Module):
    """Embeddings, layers, final norm and head."""

    def __init__(
        self,
        config: TextConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: nn.Remat = "none",
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.remat: nn.Remat = remat
        self.embed = nn.Embed(config.vocab_size, config.hidden_size, dtype=dtype, rngs=rngs)
        self.layers = nn.stack_layers(
            lambda r: DecoderLayer(config, dtype=dtype, rngs=r), config.num_hidden_layers, rngs
        )
        self.norm = nn.RMSNorm(config.hidden_size, epsilon=config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.lm_head = nnx.Linear(
                config.hidden_size, config.vocab_size, use_bias=False, dtype=dtype, rngs=rngs
            )

    def __call__(
        self,
        x: Float[Array, "t e"],
        positions: Int[Array, "3 t"],
        plan: ops.Plan,
        extra: Float[Array, "deep t e"] | None = None,
    ) -> Float[Array, "t e"]:
        """Hidden states after the final norm.

        Args:
          x: embeddings.
          positions: rotary, (t, h, w).
          plan: causal within each example.
          extra: what is added behind each of the first layers (DeepStack).
        """
        rotary = self._rotary(positions)

        def step(layer, x, index):
            return _with_extra(layer(x, rotary, plan)[0], extra, index), None

        x, _ = nn.scan_layers(self.layers, step, x, self._layer_ids, remat=self.remat)
        return self.norm(x)

    def prefill(
        self,
        x: Float[Array, "t e"],
        positions: Int[Array, "3 t"],
        plan: ops.Plan,
        extra: Float[Array, "deep t e"] | None = None,
    ) -> tuple[Float[Array, "t e"], Float[Array, "l t g k"], Float[Array, "l t g k"]]:
        """The same hidden states, with keys and values of every layer."""
        rotary = self._rotary(positions)

        def step(layer, x, index):
            x, kv = layer(x, rotary, plan)
            return _with_extra(x, extra, index), kv

        x, (keys, values) = nn.scan_layers(self.layers, step, x, self._layer_ids)
        return self.norm(x), keys, values

    def decode(
        self, x: Float[Array, "m e"], positions: Int[Array, "3 m"], cache: nn.KVCache
    ) -> tuple[Float[Array, "m e"], nn.KVCache]:
        """One more token for each row: hidden states, and the cache that has it at `lengths`."""
        rotary = self._rotary(positions)

        def step(layer, x, index):
            return layer.decode(x, rotary, cache, index)

        x, (keys, values) = nn.scan_layers(self.layers, step, x, self._layer_ids)
        # The cache is written to behind the last reading of it, else XLA would copy it first.
        x, keys, values = jax.lax.optimization_barrier((x, keys, values))
        return self.norm(x), cache.extended(keys, values)

    def logits(self, hidden: Float[Array, "*b e"]) -> Float[Array, "*b V"]:
        """Scores over the vocabulary, float32."""
        if self.config.tie_word_embeddings:
            return self.embed.attend(hidden).astype(jnp.float32)
        return self.lm_head(hidden).astype(jnp.float32)

    @property
    def _layer_ids(self) -> Int[np.ndarray, " l"]:
        return np.arange(self.config.num_hidden_layers, dtype=np.int32)

    def _rotary(self, positions: Int[Array, "3 t"]) -> nn.Rotary:
        config = self.config
        return nn.decoder_rotary(
            positions,
            head_dim=config.head_dim,
            theta=config.rope_theta,
            mrope_section=config.mrope_section,
            interleaved=config.MROPE_INTERLEAVED,
        )


def _with_extra(
    x: Float[Array, "t e"], extra: Float[Array, "deep t e"] | None, index: nn.LayerIndex
) -> Float[Array, "t e"]:
    """`x` behind layer `index`, with what is added there."""
    if extra is None:
        return x
    last = extra.shape[0] - 1
    return jax.lax.cond(index <= last, lambda: x + extra[jnp.minimum(index, last)], lambda: x)

"""The three ways in which tokens of frames see each other, the question, and other frames.

Axes: n packed frames, l tokens of a frame, d trunk width, h heads, k head width, i clips,
q tokens of a question, a angles.
"""

import functools

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from mres_jax import nn, ops

EPSILON = 1e-5  # of all layer norms
HIDDEN = -1e30  # score of a hidden key; finite, so that no difference of two is NaN


class SpatialAttention(nnx.Module):
    """Tokens of one frame see each other; half of each head turns with the index of the token."""

    def __init__(
        self, size: int, *, num_heads: int, head_dim: int, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.num_heads, self.head_dim = num_heads, head_dim
        inner = num_heads * head_dim
        self.norm = nn.LayerNorm(size, epsilon=EPSILON)
        self.qkv = nnx.Linear(size, 3 * inner, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(inner, size, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "n l d"]) -> Float[Array, "n l d"]:
        pattern = "n l (three h k) -> three n l h k"
        q, k, v = rearrange(self.qkv(self.norm(x)), pattern, three=3, h=self.num_heads)
        rotary = _rotary(jnp.arange(x.shape[1]), self.head_dim // 2)
        mixed = _attend(_turn_half(q, rotary), _turn_half(k, rotary), v)
        return self.out(rearrange(mixed, "n l h k -> n l (h k)"))


class TemporalAttention(nnx.Module):
    """Tokens of equal index see each other across the frames of a clip."""

    def __init__(
        self, size: int, *, num_heads: int, head_dim: int, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.num_heads, self.head_dim = num_heads, head_dim
        inner = num_heads * head_dim
        self.norm = nn.LayerNorm(size, epsilon=EPSILON)
        self.qkv = nnx.Linear(size, 3 * inner, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(inner, size, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "n l d"], places: Int[Array, " n"], plan: ops.Plan
    ) -> Float[Array, "n l d"]:
        """Returns what the frames say to each other.

        Args:
          x: tokens.
          places: index of each frame in its clip.
          plan: of `temporal_plan`.
        """
        length = x.shape[1]
        qkv = rearrange(
            self.qkv(self.norm(x)),
            "n l (three h k) -> three (l n) h k",
            three=3,
            h=self.num_heads,
        )
        rotary = _rotary(jnp.tile(places, length), self.head_dim)
        q, k = nn.apply_rotary(qkv[0], rotary), nn.apply_rotary(qkv[1], rotary)
        mixed = ops.varlen_attention(q, k, qkv[2], plan)
        return self.out(rearrange(mixed, "(l n) h k -> n l (h k)", l=length))


class CrossAttention(nnx.Module):
    """Every token of a frame looks at the question of its clip, perhaps through a gate."""

    def __init__(
        self,
        size: int,
        *,
        num_heads: int,
        head_dim: int,
        gated: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.num_heads = num_heads
        inner = num_heads * head_dim
        linear = functools.partial(nnx.Linear, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = nn.LayerNorm(size, epsilon=EPSILON)
        self.context_norm = nn.LayerNorm(size, epsilon=EPSILON)
        self.q = linear(size, inner)
        self.kv = linear(size, 2 * inner)
        self.out = linear(inner, size)
        self.gate = nnx.Param(jnp.zeros(())) if gated else None

    def __call__(
        self,
        x: Float[Array, "n l d"],
        question: Float[Array, "i q d"],
        question_mask: Bool[Array, "i q"],
        clips: Int[Array, " n"],
    ) -> Float[Array, "n l d"]:
        """Returns what the question says to each token; `clips` is the row of each frame's."""
        q = rearrange(self.q(self.norm(x)), "n l (h k) -> n l h k", h=self.num_heads)
        pattern = "i q (two h k) -> two i q h k"
        k, v = rearrange(self.kv(self.context_norm(question)), pattern, two=2, h=self.num_heads)
        mixed = self.out(
            rearrange(_attend(q, k[clips], v[clips], question_mask[clips]), "n l h k -> n l (h k)")
        )
        if self.gate is None:
            return mixed
        return mixed * jnp.tanh(self.gate[...]).astype(mixed.dtype)


def temporal_plan(segment_ids: Int[Array, " n"], num_tokens: int) -> ops.Plan:
    """Returns who sees whom when the tokens stand by index first, by frame second.

    Padding forms a clip of its own behind each index: its rows are finite and nobody reads them.
    """
    change = jnp.concatenate([jnp.ones(1, bool), segment_ids[1:] != segment_ids[:-1]])
    return ops.make_plan(jnp.cumsum(jnp.tile(change, num_tokens).astype(jnp.int32)))


def places_of(segment_ids: Int[Array, " n"]) -> Int[Array, " n"]:
    """Returns the index of each frame in its clip."""
    row = jnp.arange(segment_ids.shape[0], dtype=jnp.int32)
    change = jnp.concatenate([jnp.ones(1, bool), segment_ids[1:] != segment_ids[:-1]])
    return row - jax.lax.cummax(jnp.where(change, row, 0))


def _attend(
    q: Float[Array, "n l h k"],
    k: Float[Array, "n s h k"],
    v: Float[Array, "n s h k"],
    mask: Bool[Array, "n s"] | None = None,
) -> Float[Array, "n l h k"]:
    """Softmax attention of short sequences of one length, each frame with keys of its own."""
    scores = jnp.einsum("nlhk,nshk->nhls", q, k, preferred_element_type=jnp.float32)
    scores = scores * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask[:, None, None, :], scores, HIDDEN)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("nhls,nshk->nlhk", weights.astype(v.dtype), v)


def _rotary(places: Int[Array, " s"], size: int) -> nn.Rotary:
    positions = jnp.broadcast_to(places[None], (3, places.shape[0]))
    return nn.decoder_rotary(positions, head_dim=size, theta=10_000.0)


def _turn_half(x: Float[Array, "n l h k"], rotary: nn.Rotary) -> Float[Array, "n l h k"]:
    """Turns the first half of every head, by the same angles in all frames."""
    turned, kept = jnp.split(x, 2, axis=-1)
    turned = jax.vmap(lambda frame: nn.apply_rotary(frame, rotary))(turned)
    return jnp.concatenate([turned, kept], axis=-1)

"""Tokens of a frame -> one vector, by what the question asks for, with five numbers about it.

Axes: n packed frames, l tokens of a frame, d trunk width, i clips, q tokens of a question.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from mres_jax import nn
from mres_jax.resolution.allocator.attention import EPSILON, HIDDEN


class Signals(NamedTuple):
    """Five numbers per frame that the head sees beside its vector.

    Attributes:
      variance: of the tokens around their mean, over tokens and channels.
      entropy: of the pooling weights, nats.
      peak: the largest pooling weight.
      likeness: cosine with the frame before, 0 for the first of a clip.
      relevance: cosine with the question, after a projection of both.
    """

    variance: Float[Array, " n"]
    entropy: Float[Array, " n"]
    peak: Float[Array, " n"]
    likeness: Float[Array, " n"]
    relevance: Float[Array, " n"]


class QuestionPooling(nnx.Module):
    """Weights the tokens of each frame by a gate that knows the question.

    Reference:
      Released code of ResAdapt (arXiv:2603.28610), `smol_v2`, commit 3816930.
    """

    def __init__(self, size: int, *, gate_norm: bool, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm = nn.LayerNorm(size, epsilon=EPSILON) if gate_norm else None
        self.up = nnx.Linear(2 * size, size // 2, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(size // 2, 1, use_bias=False, dtype=dtype, rngs=rngs)
        self.question_proj = nnx.Linear(size, size, dtype=dtype, rngs=rngs)
        self.frame_proj = nnx.Linear(size, size, dtype=dtype, rngs=rngs)
        self.pooled_norm = nn.LayerNorm(size, epsilon=EPSILON)
        self.fuse = nnx.Linear(size + len(Signals._fields), size, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "n l d"],
        question: Float[Array, "i q d"],
        question_mask: Bool[Array, "i q"],
        clips: Int[Array, " n"],
        places: Int[Array, " n"],
    ) -> tuple[Float[Array, "n d"], Signals]:
        """Returns the frames' vectors and what was seen of them.

        Args:
          x: tokens after the trunk.
          question: at the trunk's width.
          question_mask: False where a question has ended.
          clips: row of each frame's question.
          places: index of each frame in its clip.
        """
        context = _context(x.mean(axis=1), question[clips], question_mask[clips])
        weights = self._weights(x, context)
        pooled = jnp.einsum("nl,nld->nd", weights, x.astype(jnp.float32))
        signals = Signals(
            variance=_variance(x),
            entropy=-(weights * jnp.log(jnp.maximum(weights, 1e-9))).sum(axis=-1),
            peak=weights.max(axis=-1),
            likeness=_likeness(pooled, places),
            relevance=self._relevance(pooled, question, question_mask, clips),
        )
        columns = jnp.stack(signals, axis=-1)
        fused = jnp.concatenate([self.pooled_norm(pooled), columns], axis=-1)
        return self.fuse(fused.astype(x.dtype)), signals

    def _weights(self, x, context) -> Float[Array, "n l"]:
        tokens = x if self.norm is None else self.norm(x)
        context = jnp.broadcast_to(context[:, None].astype(x.dtype), x.shape)
        hidden = self.up(jnp.concatenate([tokens, context], axis=-1))
        scores = self.down(jax.nn.gelu(hidden, approximate=False))[..., 0]
        return jax.nn.softmax(scores.astype(jnp.float32), axis=-1)

    def _relevance(self, pooled, question, question_mask, clips) -> Float[Array, " n"]:
        weights = question_mask.astype(jnp.float32)
        count = jnp.maximum(weights.sum(axis=-1, keepdims=True), 1.0)
        total = jnp.einsum("iq,iqd->id", weights, question.astype(jnp.float32))
        asked = _unit(self.question_proj((total / count).astype(question.dtype)))
        seen = _unit(self.frame_proj(pooled.astype(question.dtype)))
        return (asked[clips] * seen).sum(axis=-1)


def _context(
    frames: Float[Array, "n d"], question: Float[Array, "n q d"], mask: Bool[Array, "n q"]
) -> Float[Array, "n d"]:
    """The words of the question that each frame is nearest to."""
    question = question.astype(jnp.float32)
    scores = jnp.einsum("nd,nqd->nq", frames.astype(jnp.float32), question)
    scores = jnp.where(mask, scores * question.shape[-1] ** -0.5, HIDDEN)
    return jnp.einsum("nq,nqd->nd", jax.nn.softmax(scores, axis=-1), question)


def _variance(x: Float[Array, "n l d"]) -> Float[Array, " n"]:
    wide = x.astype(jnp.float32)
    return jnp.square(wide - wide.mean(axis=1, keepdims=True)).mean(axis=(1, 2))


def _likeness(pooled: Float[Array, "n d"], places: Int[Array, " n"]) -> Float[Array, " n"]:
    unit = _unit(pooled)
    before = jnp.concatenate([unit[:1], unit[:-1]])
    return jnp.where(places > 0, (unit * before).sum(axis=-1), 0.0)


def _unit(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    wide = x.astype(jnp.float32)
    square = jnp.square(wide).sum(axis=-1, keepdims=True)
    return wide * jax.lax.rsqrt(jnp.maximum(square, 1e-24))

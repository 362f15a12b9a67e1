"""Attention of packed sequences: patches to patches of their view, tokens to earlier tokens.

Axes: p packed patches, t decoder positions, d and e widths, h query heads, g key/value heads,
k head width, m rows of a cache.
"""

import functools

from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mres_jax import ops
from mres_jax.nn.cache import KVCache, LayerIndex
from mres_jax.nn.norms import RMSNorm
from mres_jax.nn.rotary import Rotary, apply_rotary


class VisionAttention(nnx.Module):
    """Bidirectional attention inside each view, one fused projection for q, k and v."""

    def __init__(self, size: int, *, num_heads: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.num_heads = num_heads
        self.qkv = nnx.Linear(size, 3 * size, dtype=dtype, rngs=rngs)
        self.proj = nnx.Linear(size, size, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "p d"], rotary: Rotary, plan: ops.Plan
    ) -> Float[Array, "p d"]:
        q, k, v = rearrange(self.qkv(x), "p (n h k) -> n p h k", n=3, h=self.num_heads)
        q, k = apply_rotary(q, rotary), apply_rotary(k, rotary)
        return self.proj(rearrange(ops.varlen_attention(q, k, v, plan), "p h k -> p (h k)"))


class EncoderAttention(nnx.Module):
    """Bidirectional attention inside each view, q, k and v apart, no rotary positions."""

    def __init__(self, size: int, *, num_heads: int, dtype: DTypeLike, rngs: nnx.Rngs):
        linear = functools.partial(nnx.Linear, size, size, dtype=dtype, rngs=rngs)
        self.num_heads = num_heads
        self.q, self.k, self.v, self.o = linear(), linear(), linear(), linear()

    def __call__(self, x: Float[Array, "p d"], plan: ops.Plan) -> Float[Array, "p d"]:
        heads = functools.partial(rearrange, pattern="p (h k) -> p h k", h=self.num_heads)
        out = ops.varlen_attention(heads(self.q(x)), heads(self.k(x)), heads(self.v(x)), plan)
        return self.o(rearrange(out, "p h k -> p (h k)"))


class DecoderAttention(nnx.Module):
    """Causal grouped-query attention, over a pack or against a cache.

    Qwen2 has biases on q, k and v; Qwen3 normalises each head of q and k instead.

    Reference:
      Ainslie et al., 2023, "GQA", arXiv:2305.13245; Yang et al., 2025, "Qwen3 Technical Report",
      arXiv:2505.09388, section 2 (QK-Norm).
    """

    def __init__(
        self,
        size: int,
        *,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        use_bias: bool = True,
        qk_norm_epsilon: float | None = None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Makes the layer; `qk_norm_epsilon` None leaves q and k as they are projected."""
        self.head_dim = head_dim
        linear = functools.partial(nnx.Linear, use_bias=use_bias, dtype=dtype, rngs=rngs)
        self.q = linear(size, num_heads * head_dim)
        self.k = linear(size, num_kv_heads * head_dim)
        self.v = linear(size, num_kv_heads * head_dim)
        self.o = linear(num_heads * head_dim, size, use_bias=False)
        self.normalises = qk_norm_epsilon is not None
        if qk_norm_epsilon is not None:
            self.q_norm = RMSNorm(head_dim, epsilon=qk_norm_epsilon)
            self.k_norm = RMSNorm(head_dim, epsilon=qk_norm_epsilon)

    def __call__(
        self, x: Float[Array, "t e"], rotary: Rotary, plan: ops.Plan
    ) -> tuple[Float[Array, "t e"], tuple[Float[Array, "t g k"], Float[Array, "t g k"]]]:
        """Returns the output, and the keys and values that a cache would keep."""
        q, k, v = self._project(x, rotary)
        out = ops.varlen_attention(q, k, v, plan)
        return self.o(rearrange(out, "t h k -> t (h k)")), (k, v)

    def decode(
        self,
        x: Float[Array, "m e"],
        rotary: Rotary,
        cache: KVCache,
        layer: LayerIndex,
    ) -> tuple[Float[Array, "m e"], tuple[Float[Array, "m g k"], Float[Array, "m g k"]]]:
        """One new token per row, which sees what this layer of the cache holds, and itself."""
        q, k, v = self._project(x, rotary)
        out = cache.attend(q[:, None], k[:, None], v[:, None], layer)
        return self.o(rearrange(out, "m 1 h k -> m (h k)")), (k, v)

    def _project(self, x: Float[Array, "t e"], rotary: Rotary):
        heads = functools.partial(rearrange, pattern="t (h k) -> t h k", k=self.head_dim)
        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        if self.normalises:
            q, k = self.q_norm(q), self.k_norm(k)
        return apply_rotary(q, rotary), apply_rotary(k, rotary), v

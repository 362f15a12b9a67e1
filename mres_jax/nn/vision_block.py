"""One layer of a vision tower.

Axes: p packed patches, d vision width.
"""

from collections.abc import Callable

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mres_jax import ops
from mres_jax.nn.attention import VisionAttention
from mres_jax.nn.norms import LayerNorm
from mres_jax.nn.rotary import Rotary


class VisionBlock(nnx.Module):
    """Pre-norm attention and feed-forward; who sees whom is the plan's."""

    def __init__(
        self,
        size: int,
        *,
        num_heads: int,
        make_mlp: Callable[[nnx.Rngs], nnx.Module],
        make_norm: Callable[[int], nnx.Module] = LayerNorm,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.norm1 = make_norm(size)
        self.attn = VisionAttention(size, num_heads=num_heads, dtype=dtype, rngs=rngs)
        self.norm2 = make_norm(size)
        self.mlp = make_mlp(rngs)

    def __call__(
        self, x: Float[Array, "p d"], rotary: Rotary, plan: ops.Plan
    ) -> Float[Array, "p d"]:
        x = x + self.attn(self.norm1(x), rotary, plan)
        return x + self.mlp(self.norm2(x))

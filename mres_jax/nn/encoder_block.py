"""One layer of a CLIP or SigLIP tower.

Axes: p packed patches, d vision width.
"""

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mres_jax import ops
from mres_jax.nn.attention import EncoderAttention
from mres_jax.nn.mlp import MLP
from mres_jax.nn.norms import LayerNorm


class EncoderBlock(nnx.Module):
    """Pre-norm attention and MLP, without rotary positions."""

    def __init__(
        self,
        size: int,
        intermediate_size: int,
        *,
        num_heads: int,
        activation: str,
        epsilon: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.norm1 = LayerNorm(size, epsilon=epsilon)
        self.attn = EncoderAttention(size, num_heads=num_heads, dtype=dtype, rngs=rngs)
        self.norm2 = LayerNorm(size, epsilon=epsilon)
        self.mlp = MLP(size, intermediate_size, activation=activation, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "p d"], plan: ops.Plan) -> Float[Array, "p d"]:
        x = x + self.attn(self.norm1(x), plan)
        return x + self.mlp(self.norm2(x))

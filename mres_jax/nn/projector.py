"""Visual tokens -> language width.

Axes: v packed visual tokens, d vision width, e text width.
"""

import functools

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class Projector(nnx.Module):
    """`mlp2x_gelu`: two linear layers with an exact GELU between them.

    Reference:
      Liu et al., 2023, "Improved Baselines with Visual Instruction Tuning", arXiv:2310.03744.
    """

    def __init__(self, *, in_size: int, out_size: int, dtype: DTypeLike, rngs: nnx.Rngs):
        linear = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self.up = linear(in_size, out_size)
        self.down = linear(out_size, out_size)

    def __call__(self, visual: Float[Array, "v d"]) -> Float[Array, "v e"]:
        return self.down(jax.nn.gelu(self.up(visual), approximate=False))

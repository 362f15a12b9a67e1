"""Feed-forward blocks."""

import functools
from collections.abc import Callable

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "silu": jax.nn.silu,
}


class MLP(nnx.Module):
    """Two linear layers with biases and an activation between them."""

    def __init__(
        self,
        size: int,
        intermediate_size: int,
        *,
        activation: str,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.activation = activation
        self.fc1 = nnx.Linear(size, intermediate_size, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(intermediate_size, size, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))


class GatedMLP(nnx.Module):
    """SwiGLU: `down(silu(gate(x)) * up(x))`; decoders have it without biases.

    Reference:
      Shazeer, 2020, "GLU Variants Improve Transformer", arXiv:2002.05202, eq. 6.
    """

    def __init__(
        self,
        size: int,
        intermediate_size: int,
        *,
        use_bias: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        linear = functools.partial(nnx.Linear, use_bias=use_bias, dtype=dtype, rngs=rngs)
        self.gate = linear(size, intermediate_size)
        self.up = linear(size, intermediate_size)
        self.down = linear(intermediate_size, size)

    def __call__(self, x: Float[Array, "t e"]) -> Float[Array, "t e"]:
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))

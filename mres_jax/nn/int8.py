"""Linear layers whose kernels are kept in eight bits, for inference.

Axes: i input width, o output width.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int8

from mres_jax.nn.lora import fold_lora, linear_layers, replace_linear

LEVELS = 127  # on either side of zero
HEADS = ("text.lm_head",)  # what they get wrong are scores


class Int8Linear(nnx.Module):
    """`(x Q) s + b`: a kernel of whole numbers, and one scale for each output.

    No weight is off by more than half a scale, so an output by no more than that times the sum of
    `|x|`. Activations are not rounded. The layer has no gradient for its kernel.

    Reference:
      Dettmers et al., 2022, "LLM.int8()", arXiv:2208.07339, section 2 (absmax, by column).
    """

    def __init__(self, linear: nnx.Linear):
        """Rounds a linear layer, whose kernel may have leading axes of layers."""
        kernel, scale = to_int8(linear.kernel[...])
        self.kernel, self.scale = nnx.Param(kernel), nnx.Param(scale)
        self.bias = linear.bias
        self.dtype = linear.dtype or linear.kernel[...].dtype
        self.dot_general = linear.dot_general

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
        # Scaled in float32: a scale of bfloat16 would move a weight by a quarter of a scale more.
        sums = self.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
        wide = sums.astype(jnp.float32) * _per_output(self.scale, sums.ndim)
        out = wide.astype(self.dtype)
        if self.bias is None:
            return out
        return out + _per_output(self.bias, out.ndim).astype(self.dtype)


def _per_output(values: nnx.Variable, ndim: int) -> Float[Array, "*b o"]:
    return jnp.expand_dims(values[...], tuple(range(ndim - 1)))


@jax.jit
def to_int8(kernel: Float[Array, "*l i o"]) -> tuple[Int8[Array, "*l i o"], Float[Array, "*l o"]]:
    """Returns whole numbers from -127 to 127 and scales, float32, whose product is the kernel.

    The largest weight of each output becomes 127 or -127; an output of zeros has scale 0.
    """
    kernel = kernel.astype(jnp.float32)
    scale = jnp.abs(kernel).max(axis=-2) / LEVELS
    steps = jnp.where(scale > 0, scale, 1.0)[..., None, :]
    return jnp.round(kernel / steps).astype(jnp.int8), scale


def use_int8(model: Any) -> None:
    """Rounds the kernels of all linear layers, in place; the head's and the embeddings stay.

    Adapters are merged into the kernels first.
    """
    fold_lora(model)
    for name, layer in linear_layers(model).items():
        if name not in HEADS:
            replace_linear(model, name, Int8Linear(layer))

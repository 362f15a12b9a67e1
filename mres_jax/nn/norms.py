"""Normalisation in float32 whatever the compute dtype; the result has the input's dtype."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class LayerNorm(nnx.Module):
    """Layer normalisation with scale and bias over the last axis."""

    def __init__(self, size: int, *, epsilon: float = 1e-6):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(size))
        self.bias = nnx.Param(jnp.zeros(size))

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.epsilon)
        scale, bias = (p[...].astype(jnp.float32) for p in (self.scale, self.bias))
        return _affine(normed, scale, bias).astype(x.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation with scale over the last axis.

    Reference:
      Zhang & Sennrich, 2019, "Root Mean Square Layer Normalization", arXiv:1910.07467, eq. 4.
    """

    def __init__(self, size: int, *, epsilon: float = 1e-6):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(size))

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        wide = x.astype(jnp.float32)
        square = jnp.square(wide).mean(axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(square + self.epsilon)
        return _affine(normed, self.scale[...].astype(jnp.float32)).astype(x.dtype)


def _affine(
    x: Float[Array, "*b d"], scale: Float[Array, " d"], bias: Float[Array, " d"] | None = None
) -> Float[Array, "*b d"]:
    scale = jnp.expand_dims(scale, tuple(range(x.ndim - 1)))
    x = x * scale
    return x if bias is None else x + jnp.expand_dims(bias, tuple(range(x.ndim - 1)))

"""Attention of one new token per row against a ragged cache of static shape.

Axes: m rows, h query heads, g key/value heads, n query heads per key/value head, k head width.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int


def decode_attention(
    q: Float[Array, "m h k"],
    new_key: Float[Array, "m g k"],
    new_value: Float[Array, "m g k"],
    keys: Float[Array, "m max_len g k"],
    values: Float[Array, "m max_len g k"],
    lengths: Int[Array, " m"],
) -> Float[Array, "m h k"]:
    """Row `i` sees its first `lengths[i]` cached positions and its own new one. Softmax in float32.

    The new key is kept apart from the cache, so that writing it does not hold up reading.
    """
    scale = q.shape[-1] ** -0.5
    groups = rearrange(q, "m (g n) k -> m g n k", g=keys.shape[2])
    old = jnp.einsum("mgnk,msgk->mgns", groups, keys, preferred_element_type=jnp.float32)
    new = jnp.einsum("mgnk,mgk->mgn", groups, new_key, preferred_element_type=jnp.float32)
    visible = jnp.arange(keys.shape[1])[None] < lengths[:, None]
    old = jnp.where(visible[:, None, None], old, -jnp.inf)
    scores = jnp.concatenate([old, new[..., None]], axis=-1) * scale
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    out = jnp.einsum("mgns,msgk->mgnk", weights[..., :-1], values)
    out = out + weights[..., -1:] * new_value[:, :, None]
    return rearrange(out, "m g n k -> m (g n) k")

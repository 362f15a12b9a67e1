"""Plain XLA: reads the whole cache, whatever the lengths are.

Axes: m rows, n new tokens, h query heads, g key/value heads, r query heads per key/value head,
s cached positions, k head width.
"""

import functools

import jax
import jax.numpy as jnp

from mres_kernels._typing import Array, Float, Float32, Int

_dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def decode_attention(
    q: Float[Array, "m n h k"],
    new_keys: Float[Array, "m n g k"],
    new_values: Float[Array, "m n g k"],
    keys: Float[Array, "m max_len g k"],
    values: Float[Array, "m max_len g k"],
    lengths: Int[Array, " m"],
    *,
    scale: float,
) -> Float[Array, "m n h k"]:
    """See `api.decode_attention`."""
    m, n, h, width = q.shape
    length, groups = keys.shape[1:3]
    queries = q.reshape(m, n, groups, -1, width)
    # Each query beside zeros for the other heads' keys: one product over whole positions, where a
    # batch of heads would have XLA on the CPU transpose the cache first.
    own = jnp.eye(groups, dtype=q.dtype)
    wide = jnp.einsum("mngrk,gf->mngrfk", queries, own)
    old = _dot("mhk,msk->mhs", wide.reshape(m, n * h, -1), keys.reshape(m, length, -1))
    visible = jnp.arange(length)[None] < lengths[:, None]
    old = jnp.where(visible[:, None], old, -jnp.inf).reshape(*queries.shape[:-1], length)
    new = jnp.moveaxis(score_new(queries, new_keys), 3, 1)
    scores = jnp.concatenate([old, new], axis=-1) * scale
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    out = _dot(
        "mhs,msk->mhk",
        weights[..., :length].reshape(m, n * h, length),
        values.reshape(m, length, -1),
    )
    out = _dot("mngrfk,gf->mngrk", out.reshape(*wide.shape), own.astype(out.dtype))
    out = out + _dot("mngrj,mjgk->mngrk", weights[..., length:], new_values)
    return out.astype(q.dtype).reshape(m, n, h, width)


def score_new(
    queries: Float[Array, "m n g r k"], new_keys: Float[Array, "m j g k"]
) -> Float32[Array, "m g r n j"]:
    """Products of the new tokens with each other, `-inf` for later ones."""
    scores = _dot("mngrk,mjgk->mgrnj", queries, new_keys)
    earlier = jnp.tri(queries.shape[1], dtype=bool)
    return jnp.where(earlier[None, None, None], scores, -jnp.inf)

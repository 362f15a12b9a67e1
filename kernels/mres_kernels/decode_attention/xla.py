"""Plain XLA: reads the whole cache, whatever the lengths are.

Axes: l layers, m rows, n new tokens, h query heads, g key/value heads, r query heads per key/value
head, b rows times key/value heads, q their queries, s cached positions, k head width.
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
    keys: Float[Array, "*l m g max_len k"],
    values: Float[Array, "*l m g max_len k"],
    lengths: Int[Array, " m"],
    *,
    layer: int | Int[Array, ""] | None = None,
    scale: float,
) -> Float[Array, "m n h k"]:
    """See `api.decode_attention`."""
    if layer is not None:
        keys, values = (jax.lax.dynamic_index_in_dim(x, layer, 0, False) for x in (keys, values))
    m, n, h, width = q.shape
    groups, length = keys.shape[1:3]
    queries = q.reshape(m, n, groups, -1, width)
    # One axis of rows and heads: of products over two, XLA on the CPU makes up to twice the time.
    own = jnp.moveaxis(queries, 1, 3).reshape(m * groups, -1, width)
    keys, values = (x.reshape(m * groups, length, width) for x in (keys, values))
    old = _dot("bqk,bsk->bqs", own, keys).reshape(m, groups, -1, n, length)
    visible = (jnp.arange(length)[None] < lengths[:, None])[:, None, None, None]
    old = jnp.where(visible, old, -jnp.inf)
    scores = jnp.concatenate([old, score_new(queries, new_keys)], axis=-1)
    weights = jax.nn.softmax(scores * scale, axis=-1).astype(values.dtype)
    seen = weights[..., :length].reshape(m * groups, -1, length)
    out = _dot("bqs,bsk->bqk", seen, values).reshape(m, groups, -1, n, width)
    out = out + _dot("mgrnj,mjgk->mgrnk", weights[..., length:], new_values)
    return jnp.moveaxis(out, 3, 1).astype(q.dtype).reshape(m, n, h, width)


def score_new(
    queries: Float[Array, "m n g r k"], new_keys: Float[Array, "m j g k"]
) -> Float32[Array, "m g r n j"]:
    """Products of the new tokens with each other, `-inf` for later ones."""
    scores = _dot("mngrk,mjgk->mgrnj", queries, new_keys)
    earlier = jnp.tri(queries.shape[1], dtype=bool)
    return jnp.where(earlier[None, None, None], scores, -jnp.inf)

"""Writing new positions into a cache without moving what it holds.

Axes: l layers, m rows, g key/value heads, k head width.
"""

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from mres_kernels._typing import Array, Float, Int
from mres_kernels.decode_attention._checks import check_extension


def extend_cache(
    cache: Float[Array, "*l m g max_len k"],
    new: Float[Array, "*l m g k"],
    lengths: Int[Array, " m"],
) -> Float[Array, "*l m g max_len k"]:
    """The keys or the values of one layer or of all, with one position more in every row.

    Of a cache that is one array, all layers at once, behind the last reading of it: layer by layer
    XLA would copy the whole of it for each.

    Args:
      cache: as `decode_attention` takes it.
      new: of the new token of each row.
      lengths: where it is written. Whoever calls keeps them below `max_len`: values are not looked
        at, and a row that is full is written nowhere or over its last position.

    Raises:
      ValueError: shapes or types that do not go together.
    """
    check_extension(cache, new, lengths)
    return jax.lax.platform_dependent(cache, new, lengths, tpu=by_row, default=at_once)


def at_once(cache: Array, new: Array, lengths: Array) -> Array:
    """By a scatter."""
    rows = jnp.arange(lengths.shape[0])
    return cache.at[..., rows, :, lengths, :].set(jnp.moveaxis(new, -3, 0))


def by_row(cache: Array, new: Array, lengths: Array) -> Array:
    """Row by row, in place: for a scatter XLA on TPUs turns the cache, and again to read it."""
    as_it_is = Layout(tuple(range(cache.ndim)))

    def write(row: Array, cache: Array) -> Array:
        one = jax.lax.dynamic_slice_in_dim(new, row, 1, new.ndim - 3)
        place = (*[0] * (cache.ndim - 4), row, 0, lengths[row], 0)
        longer = jax.lax.dynamic_update_slice(cache, one[..., None, :], place)
        return with_layout_constraint(longer, as_it_is)

    return jax.lax.fori_loop(0, lengths.shape[0], write, cache)

"""The tiles of scores that are needed, as a flat list: what a grid of tiles walks.

Axes: w items, t rows.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from mres_kernels._typing import Array, Int32

FIRST, LAST, EMPTY, FULL = 1, 2, 4, 8  # of its row of tiles; no score seen; all scores seen
FLAG_BITS, TILE_BITS = 4, 14
MAX_TILES = 1 << TILE_BITS


class WorkList(NamedTuple):
    """Tiles in the order in which they are worked on.

    Attributes:
      items: tile of the outer side, tile of the inner side and flags, packed; beyond `num_items`
        it repeats the last.
      num_items: how many there are, at least one for each outer tile.
    """

    items: Int32[Array, " w"]
    num_items: Int32[Array, ""]


def outer_of(item):
    """The tile of the side that is walked once."""
    return lax.shift_right_logical(item, jnp.int32(FLAG_BITS + TILE_BITS))


def inner_of(item):
    """The tile of the side that is walked for each outer tile."""
    return lax.shift_right_logical(item, jnp.int32(FLAG_BITS)) & (MAX_TILES - 1)


def flags_of(item):
    """`FIRST`, `LAST`, `EMPTY`, `FULL`."""
    return item & ((1 << FLAG_BITS) - 1)


def make_work_list(
    starts: Int32[Array, " t"], ends: Int32[Array, " t"], *, outer: int, inner: int, length: int
) -> WorkList:
    """The tiles of the inner side that each outer tile meets.

    Args:
      starts: first row of the inner side that each row meets.
      ends: end of them; an empty interval meets nothing.
      outer: rows of an outer tile.
      inner: rows of an inner tile.
      length: rows of the inner side.
    """
    num_outer, num_inner = starts.shape[0] // outer, length // inner
    starts, ends = starts.reshape(num_outer, outer), ends.reshape(num_outer, outer)
    real = ends > starts
    first = jnp.where(real, starts, length).min(axis=1) // inner
    end = -(-ends.max(axis=1) // inner)
    first = jnp.minimum(first, jnp.maximum(end - 1, 0))
    # Tiles that every row of the outer tile sees whole.
    full_first = -(-starts.max(axis=1) // inner)
    full_end = jnp.where(real.all(axis=1), ends.min(axis=1) // inner, 0)
    counts = jnp.maximum(end - first, 1)
    last = jnp.cumsum(counts)
    place = jnp.arange(num_outer * num_inner, dtype=jnp.int32)
    place = jnp.minimum(place, last[-1] - 1)
    tile = jnp.searchsorted(last, place, side="right").astype(jnp.int32)
    step = place - (last - counts)[tile]
    other = first[tile] + step
    flags = {
        FIRST: step == 0,
        LAST: step == counts[tile] - 1,
        EMPTY: end[tile] == 0,
        FULL: (other >= full_first[tile]) & (other < full_end[tile]),
    }
    items = (tile << (FLAG_BITS + TILE_BITS)) | (other << FLAG_BITS)
    items += sum(jnp.where(is_set, flag, 0) for flag, is_set in flags.items())
    return WorkList(items.astype(jnp.int32), last[-1].astype(jnp.int32))

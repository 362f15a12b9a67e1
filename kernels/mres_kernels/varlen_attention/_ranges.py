"""The tiles of the other side that each tile must visit: one run, since intervals never fall.

Runs begin at the first row that is seen, not on a grid, so that a segment of 1.5 tiles costs 2.

Axes: t rows, o outer tiles.
"""

from typing import NamedTuple

import jax.numpy as jnp

from mres_kernels._typing import Array, Int32


class Ranges(NamedTuple):
    """Of each outer tile; tile `j` of its run holds the inner rows from `first + j * inner` on.

    Attributes:
      first: inner row at which the run begins.
      end: inner row after the last that is seen.
      full_first: tiles of the run before those that every row sees whole.
      full_end: end of those.
      num_tiles: tiles of the run.
    """

    first: Int32[Array, " o"]
    end: Int32[Array, " o"]
    full_first: Int32[Array, " o"]
    full_end: Int32[Array, " o"]
    num_tiles: Int32[Array, " o"]


def make_ranges(
    starts: Int32[Array, " t"], ends: Int32[Array, " t"], *, outer: int, inner: int
) -> Ranges:
    """The runs of tiles of `inner` rows that tiles of `outer` rows meet.

    Args:
      starts: first inner row that each outer row meets.
      ends: end of them; an empty interval meets nothing.
      outer: rows of an outer tile; divides the length.
      inner: rows of an inner tile.
    """
    length = starts.shape[0]
    starts, ends = starts.reshape(-1, outer), ends.reshape(-1, outer)
    real = ends > starts
    end = jnp.where(real, ends, 0).max(axis=1)
    first = jnp.minimum(jnp.where(real, starts, length).min(axis=1), end)
    num_tiles = -(-(end - first) // inner)
    # Seen whole by every row: none if a row sees nothing.
    whole_first = starts.max(axis=1) - first
    whole_end = jnp.where(real.all(axis=1), ends.min(axis=1), 0) - first
    full_first = jnp.clip(-(-whole_first // inner), 0, num_tiles)
    full_end = jnp.clip(whole_end // inner, full_first, num_tiles)
    return Ranges(first, end, full_first, full_end, num_tiles)

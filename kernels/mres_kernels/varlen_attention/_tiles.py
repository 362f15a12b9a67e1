"""Tiles of a pack: which rows they hold, and what of the other side each must visit.

Tiles begin where segments begin, not on a fixed grid, so no tile computes for two segments.
Rows are always cut in whole tiles; those that do not belong ("dead") are cleared when read and
kept as they were when written.

Axes: t rows of the pack, b rows of a tile, o rows of a tile of the other side, h query heads,
g key/value heads, k head width, q query rows of one key/value head (heads of its group times b).
"""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
from jax import Array, lax

from mres_kernels._typing import Bool, Float, Float32, Int32

EDGE_SIZE = 64  # rows of a masked tile

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Rows:
    """`size` rows of a pack from `begin` on, of which `live` belong; all of them when None."""

    begin: Int32[Array, ""]
    size: int
    live: Bool[Array, " b"] | None = None

    def index(self) -> Int32[Array, " b"]:
        return self.begin + jnp.arange(self.size, dtype=jnp.int32)

    def cut(self, x: Array, axis: int = 0) -> Array:
        return lax.dynamic_slice_in_dim(x, self.begin, self.size, axis)

    def clear(self, x: Array, axis: int = 0) -> Array:
        """The rows of `x`, zeros where dead: selected, so that a dead NaN does not survive."""
        rows = self.cut(x, axis)
        return rows if self.live is None else jnp.where(self._live_like(x, axis), rows, 0)

    def fill(self, x: Array) -> Array:
        """The rows of `x`, the first live one in place of those that are dead."""
        if self.live is None:
            return self.cut(x)
        first = self.begin + jnp.argmax(self.live).astype(jnp.int32)
        return jnp.where(self._live_like(x, 0), self.cut(x), Rows(first, 1).cut(x))

    def put(self, x: Array, rows: Array, axis: int = 0) -> Array:
        """`x` with the live rows replaced."""
        if self.live is not None:
            rows = jnp.where(self._live_like(x, axis), rows, self.cut(x, axis).astype(rows.dtype))
        return lax.dynamic_update_slice_in_dim(x, rows.astype(x.dtype), self.begin, axis)

    def seen(
        self, starts: Int32[Array, " o"], ends: Int32[Array, " o"]
    ) -> Bool[Array, "o b"] | None:
        """Which of the rows lie in each of the intervals; None when no mask is needed."""
        if self.live is None:
            return None
        index = self.index()[None]
        return self.live[None] & (starts[:, None] <= index) & (index < ends[:, None])

    def _live_like(self, x: Array, axis: int) -> Bool[Array, "..."]:
        assert self.live is not None
        return self.live.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


def rows_between(first: Int32[Array, ""], end: Int32[Array, ""], size: int, length: int) -> Rows:
    """A tile whose live rows are `first` to `end`; it begins earlier where the pack is over."""
    rows = Rows(jnp.minimum(first, length - size), size)
    index = rows.index()
    return dataclasses.replace(rows, live=(first <= index) & (index < end))


def for_each_tile(
    segment_ends: Int32[Array, " t"], size: int, visit: Callable[[Rows, T], T], carry: T
) -> T:
    """Calls `visit(tile, carry)` on the tiles of each segment in turn; their last rows overlap
    the next segment and are dead there."""
    length = segment_ends.shape[0]
    size = min(size, length)
    end = segment_ends.max()

    def step(state):
        first, carry = state
        stop = jnp.minimum(first + size, segment_ends[first])
        return stop, visit(rows_between(first, stop, size, length), carry)

    return lax.while_loop(lambda state: state[0] < end, step, (jnp.int32(0), carry))[1]


def for_each_seen(
    tile: Rows,
    starts: Int32[Array, " t"],
    ends: Int32[Array, " t"],
    sizes: tuple[int, ...],
    visit: Callable[[Rows, T], T],
    carry: T,
) -> T:
    """Calls `visit(rows, carry)` on what a tile sees; row `i` sees `starts[i]` to `ends[i]`.

    First what all its rows see, in tiles of `sizes` (falling) without dead rows; then the edges
    to the left and the right of them, in tiles of `EDGE_SIZE` that need a mask.
    """
    length, live = starts.shape[0], tile.live
    assert live is not None
    starts, ends = tile.cut(starts), tile.cut(ends)
    begin, inner_end = (jnp.where(live, x, length).min() for x in (starts, ends))
    inner_begin, end = (jnp.where(live, x, 0).max() for x in (starts, ends))
    right = inner_begin
    for size in sizes:
        if size <= length:
            count = jnp.maximum(inner_end - right, 0) // size
            carry = lax.fori_loop(0, count, _full_tile(visit, right, size), carry)
            right = right + count * size
    left_end = jnp.where(right > inner_begin, inner_begin, begin)
    right = jnp.where(right > inner_begin, right, begin)
    edge_size = min(EDGE_SIZE, length)
    num_left, num_right = -(-(left_end - begin) // edge_size), -(-(end - right) // edge_size)

    def edge(i, carry):
        is_left = i < num_left
        first = jnp.where(is_left, begin + i * edge_size, right + (i - num_left) * edge_size)
        stop = jnp.where(is_left, left_end, end)
        return visit(rows_between(first, stop, edge_size, length), carry)

    return lax.fori_loop(0, num_left + num_right, edge, carry)


def _full_tile(visit: Callable[[Rows, T], T], first: Int32[Array, ""], size: int):
    return lambda i, carry: visit(Rows(first + i * size, size), carry)


def heads_first(
    rows: Float[Array, "b h k"], num_kv_heads: int, factor: float = 1.0
) -> Float32[Array, "g q k"]:
    """Groups the query heads by their key/value head, in float32, times `factor`."""
    b, h, k = rows.shape
    rows = rows.astype(jnp.float32) * factor
    rows = rows.reshape(b, num_kv_heads, h // num_kv_heads, k).transpose(1, 2, 0, 3)
    return rows.reshape(num_kv_heads, h // num_kv_heads * b, k)


def rows_first(rows: Float32[Array, "g q k"], size: int) -> Float32[Array, "b h k"]:
    """Undoes `heads_first` for a tile of `size` rows."""
    g, rb, k = rows.shape
    rows = rows.reshape(g, rb // size, size, k).transpose(2, 0, 1, 3)
    return rows.reshape(size, g * (rb // size), k)

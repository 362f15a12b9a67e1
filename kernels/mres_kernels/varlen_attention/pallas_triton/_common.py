"""What forward and backward share.

Triton knows arrays whose sides are powers of 2 only. A head of 80 channels is therefore worked on
as pieces of 64 and 16, which costs 80, not 128.

Axes: i rows of the outer tile, j rows of the inner one, s channels of a piece.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from mres_kernels._typing import Array, Bool, Float, Float32, Int32
from mres_kernels.varlen_attention._checks import decline_scale, decline_types
from mres_kernels.varlen_attention._ranges import Ranges

MIN_PIECE = 16  # channels; the least that tensor cores multiply
TYPES = (jnp.bfloat16, jnp.float16, jnp.float32)
HIDDEN = -1e30  # score of a hidden key, before the scale


class Piece(NamedTuple):
    """Channels of a head.

    Attributes:
      first: of them.
      size: how many, a power of 2.
      real: how many of those the head has.
    """

    first: int
    size: int
    real: int

    @property
    def channels(self) -> Any:
        return pl.ds(self.first, self.size)


def pieces_of(width: int) -> tuple[Piece, ...]:
    """A head as powers of 2 from the largest down; the last may be wider than what is left."""
    whole = padded(width)
    sizes = [1 << bit for bit in range(whole.bit_length() - 1, -1, -1) if whole >> bit & 1]
    firsts = [sum(sizes[:n]) for n in range(len(sizes))]
    return tuple(
        Piece(first, size, min(size, width - first))
        for first, size in zip(firsts, sizes, strict=True)
    )


def padded(width: int) -> int:
    """Channels of all pieces of a head."""
    return -(-width // MIN_PIECE) * MIN_PIECE


def check(q: Array, k: Array, v: Array, scale: float) -> None:
    """Declines what the kernels do not take.

    Raises:
      NotImplementedError: a dtype or scale; says which would do.
    """
    decline_types("pallas_triton", TYPES, q, k, v)
    decline_scale("pallas_triton", scale)


def load(
    ref,
    rows: Any,
    pieces: tuple[Piece, ...],
    live: Bool[Array, " i"] | None = None,
) -> list[Float[Array, "i s"]]:
    """Rows of `[t k]`, by piece; zeros where not live, whatever is there.

    Args:
      ref: where to read.
      rows: which, or a tuple of which and a head, of `[t r k]`.
      pieces: of a head.
      live: which of the rows to read; all when None.
    """
    rows = rows if isinstance(rows, tuple) else (rows,)
    return [_load_piece(ref.at[(*rows, piece.channels)], piece, live) for piece in pieces]


def store(ref, values: list[Array], pieces: tuple[Piece, ...]) -> None:
    """Writes rows of `[i k]`."""
    for value, piece in zip(values, pieces, strict=True):
        target = ref.at[:, piece.channels]
        mask = _mask(value.shape, piece, None)
        plt.store(target, value.astype(ref.dtype), mask=mask)


def _load_piece(ref, piece: Piece, live):
    mask = _mask(ref.shape, piece, live)
    return plt.load(ref, mask=mask, other=None if mask is None else 0.0)


def _mask(shape: tuple[int, ...], piece: Piece, live) -> Bool[Array, "i s"] | None:
    mask = None if live is None else jnp.broadcast_to(live[:, None], shape)
    if piece.real < piece.size:
        inside = lax.broadcasted_iota(jnp.int32, shape, 1) < piece.real
        mask = inside if mask is None else mask & inside
    return mask


def dot(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
    """Product over one axis of each, sums in float32."""
    return lax.dot_general(
        a,
        b,
        (((a_axis,), (b_axis,)), ((), ())),
        precision=lax.Precision.HIGHEST if a.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


def dot_heads(a: list[Array], b: list[Array]) -> Float32[Array, "i j"]:
    """Product of rows with rows over all channels."""
    return sum((dot(x, y, 1, 1) for x, y in zip(a, b, strict=True)), jnp.float32(0))


def seen(
    index: Int32[Array, " j"], starts: Int32[Array, " i"], ends: Int32[Array, " i"]
) -> Bool[Array, "i j"]:
    """Which inner rows lie in the interval of each outer row."""
    return (starts[:, None] <= index[None]) & (index[None] < ends[:, None])


class Run(NamedTuple):
    """The run of inner tiles of one outer tile, as scalars."""

    first: Int32[Array, ""]
    end: Int32[Array, ""]
    full_first: Int32[Array, ""]
    full_end: Int32[Array, ""]
    num_tiles: Int32[Array, ""]

    def visit(self, inner: int, step: Callable[..., Any], carry: Any) -> Any:
        """Calls `step(first row, index or None, live or None, carry)` on each inner tile.

        `index` are its rows and `live` says which of them lie in the run; both are None where
        every outer row sees the whole tile.
        """

        def edge(j, carry):
            first = self.first + j * inner
            index = first + jnp.arange(inner, dtype=jnp.int32)
            return step(first, index, index < self.end, carry)

        def full(j, carry):
            return step(self.first + j * inner, None, None, carry)

        carry = lax.fori_loop(jnp.int32(0), self.full_first, edge, carry)
        carry = lax.fori_loop(self.full_first, self.full_end, full, carry)
        return lax.fori_loop(self.full_end, self.num_tiles, edge, carry)


def stack(ranges: Ranges) -> Int32[Array, "o 5"]:
    """As one input of a kernel."""
    return jnp.stack(ranges, axis=1)


def run_of(ranges_ref, tile) -> Run:
    """The run of one outer tile."""
    return Run(*(ranges_ref[tile, n] for n in range(len(Run._fields))))

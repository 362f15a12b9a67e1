"""What forward and backward share.

Tiles are fetched by the copy engine, which cannot leave rows out. So that what stands in padding
reaches no sum, a tile that would reach behind the last real row begins earlier, and its rows that
another tile has are hidden; and where the pack has fewer real rows than a tile, its first tile
comes from a cleared copy.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from mres_kernels._typing import Array, Bool, Float, Int32
from mres_kernels.varlen_attention._checks import decline_rows, decline_scale, decline_types
from mres_kernels.varlen_attention._ranges import make_ranges
from mres_kernels.varlen_attention.pallas_gpu._hopper import ROWS, Warpgroup, spread
from mres_kernels.varlen_attention.pallas_gpu._sizes import Tiles

TYPES = (jnp.bfloat16, jnp.float16)
ROW_MULTIPLE = 128
HIDDEN = -1e30  # score of a hidden key, before the scale


def check(q: Array, k: Array, v: Array, scale: float) -> None:
    """Declines what the kernels do not take.

    Raises:
      NotImplementedError: a length, dtype or scale; says which would do.
    """
    decline_rows("pallas_gpu", ROW_MULTIPLE, q.shape[0])
    decline_types("pallas_gpu", TYPES, q, k, v)
    decline_scale("pallas_gpu", scale)


class Run(NamedTuple):
    """The run of inner tiles of one outer tile, as scalars; `limit` is the end of real rows."""

    first: Int32[Array, ""]
    end: Int32[Array, ""]
    full_first: Int32[Array, ""]
    full_end: Int32[Array, ""]
    num_tiles: Int32[Array, ""]
    limit: Int32[Array, ""]

    def rows(self, step, inner: int) -> Any:
        """Those of the tile of a step, as they are fetched."""
        first = jnp.minimum(self.first + step * inner, self.limit - inner)
        return pl.ds(jnp.maximum(first, 0), inner)

    def source(self, ref, step, inner: int, head, cleared_ref: Any = None) -> Any:
        """A function that starts the copy of a step's rows of a head of `[t n k]` or `[n t]`.

        With `cleared_ref`, which holds the first rows cleared, it copies no row of padding.
        """

        def fetch(tile, barrier):
            rows = self.rows(step, inner)
            rows = ref.at[head, rows] if len(ref.shape) == 2 else ref.at[rows, head]
            if cleared_ref is None:
                plgpu.copy_gmem_to_smem(rows, tile, barrier)
                return

            @pl.when(self.limit >= inner)
            def _():
                plgpu.copy_gmem_to_smem(rows, tile, barrier)

            @pl.when(self.limit < inner)
            def _():
                plgpu.copy_gmem_to_smem(cleared_ref.at[:, head], tile, barrier)

        return fetch

    def seen(
        self,
        warpgroup: Warpgroup,
        step,
        inner: int,
        starts: Int32[Array, " i"],
        ends: Int32[Array, " i"],
    ) -> Bool[Array, "i j"]:
        """Which rows of a step lie in the interval of each outer row, and in no other step."""
        shape = (ROWS, inner)
        index = self.rows(step, inner).start + warpgroup.columns(shape)
        starts = jnp.maximum(starts, self.first + step * inner)
        return (spread(starts, shape) <= index) & (index < spread(ends, shape))

    def visit(self, step, carry: Any) -> Any:
        """Calls `step(number, masked, carry)` on each tile, without a mask where all is seen."""

        def loop(first, end, masked, carry):
            return lax.fori_loop(first, end, lambda j, carry: step(j, masked, carry), carry)

        carry = loop(jnp.int32(0), self.full_first, True, carry)
        carry = loop(self.full_first, self.full_end, False, carry)
        return loop(self.full_end, self.num_tiles, True, carry)


def runs_of(
    starts: Int32[Array, " t"], ends: Int32[Array, " t"], tiles: Tiles
) -> Int32[Array, "o 6"]:
    """The runs of all outer tiles, as one input of a kernel."""
    ranges = make_ranges(starts, ends, outer=tiles.warpgroups * ROWS, inner=tiles.inner)
    limit = jnp.broadcast_to(ends.max(), ranges.first.shape)
    return jnp.stack([*ranges, limit], axis=1)


def run_of(runs_ref, tile) -> Run:
    """The run of one outer tile."""
    return Run(*(runs_ref[tile, n] for n in range(len(Run._fields))))


def clear_first(
    x: Float[Array, "t n k"], starts: Int32[Array, " t"], ends: Int32[Array, " t"], rows: int
) -> Float[Array, "j n k"]:
    """The first rows, with zeros for those that nobody sees."""
    return jnp.where((ends > starts)[:rows, None, None], x[:rows], 0)

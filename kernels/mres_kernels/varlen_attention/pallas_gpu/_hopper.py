"""What a kernel is made of on Hopper: warpgroups, rings of tiles in shared memory, products.

Each block has warpgroups that compute and one that only fetches tiles. Where the interpreter knows
no counterpart of an instruction (products into accumulators, layouts of registers), a plain one
stands in; loops, masks, fetches and barriers are the same.

Axes: i rows of a warpgroup, j rows of a tile that is visited, k head width.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from mres_kernels._typing import Array, Float, Float32, Int32

ROWS = 64  # of a warpgroup's products
NO_INDEX = {"idx": None} if jax.__version_info__ < (0, 11) else {}  # of a load; once required
COMPUTE, FETCH = 232, 40  # registers of a thread of each kind of warpgroup


class Ring(NamedTuple):
    """Slots in shared memory that one warpgroup fills and the others read and give back.

    Attributes:
      tiles: arrays `[slots, ...]`, filled together.
      filled: a barrier per slot.
      free: a barrier per slot.
    """

    tiles: tuple[Any, ...]
    filled: Any
    free: Any

    def slot(self, step) -> Int32[Array, ""]:
        return lax.rem(step, jnp.int32(self.tiles[0].shape[0]))

    def fill(self, step, sources: Sequence[Callable[[Any, Any], None]]) -> None:
        """Fetches the tiles of a step once its slot is free; `sources` start one copy each."""
        slot = self.slot(step)

        @pl.when(step >= self.tiles[0].shape[0])
        def _():
            plgpu.barrier_wait(self.free.at[slot])

        for source, tile in zip(sources, self.tiles, strict=True):
            source(tile.at[slot], self.filled.at[slot])

    def drain(self, num_steps) -> None:
        """Waits until all slots are given back, after the last of the steps."""

        @pl.loop(jnp.maximum(num_steps - self.tiles[0].shape[0], 0), num_steps)
        def _(step):
            plgpu.barrier_wait(self.free.at[self.slot(step)])

    def wait(self, step) -> tuple[Any, ...]:
        """The tiles of a step, once they are there."""
        slot = self.slot(step)
        plgpu.barrier_wait(self.filled.at[slot])
        return tuple(tile.at[slot] for tile in self.tiles)

    def release(self, step) -> None:
        plgpu.barrier_arrive(self.free.at[self.slot(step)])


def ring(*tiles: Any, readers: int) -> Ring:
    """The scratch memory of a ring of tiles, each with its slots as first axis."""
    slots = tiles[0].shape[0]
    filled = plgpu.Barrier(num_arrivals=len(tiles), num_barriers=slots)
    free = plgpu.Barrier(num_arrivals=readers, num_barriers=slots)
    return Ring(tiles, filled, free)


def matrix(rows: int, width: int, dtype: Any, *lead: int, inner: int) -> Any:
    """Shared memory of `[*lead, rows, width]` for products that sum over `inner` rows or more."""
    size = jnp.dtype(dtype).itemsize
    swizzle = min(plgpu.find_swizzle(width * size * 8), inner * size)
    transforms = (plgpu.TilingTransform((8, swizzle // size)), plgpu.SwizzleTransform(swizzle))
    return plgpu.SMEM((*lead, rows, width), dtype, transforms=transforms)


@dataclasses.dataclass(frozen=True)
class Warpgroup:
    """The arithmetic of one warpgroup, on registers and shared memory."""

    interpret: bool

    def along_rows(self, ref) -> Array:
        """A vector of global memory, an element for each row of a product."""
        return self._load(ref, plgpu.Layout.WGMMA.reduce(1))

    def along_columns(self, ref) -> Array:
        """A vector of shared memory, an element for each column of a product."""
        return self._load(ref, plgpu.Layout.WGMMA.reduce(0))

    def _load(self, ref, layout) -> Array:
        if self.interpret:
            return ref[...]
        return plgpu.load(ref, **NO_INDEX, layout=layout, optimized=False)

    def full(self, shape: tuple[int, ...], value: float) -> Float32[Array, "..."]:
        """Registers of a product or, of one axis, of a vector along its rows."""
        x = jnp.full(shape, value, jnp.float32)
        if self.interpret:
            return x
        layout = plgpu.Layout.WGMMA
        return plgpu.layout_cast(x, layout if len(shape) == 2 else layout.reduce(1))

    def columns(self, shape: tuple[int, int]) -> Int32[Array, "i j"]:
        """The number of each column."""
        if self.interpret:
            return lax.broadcasted_iota(jnp.int32, shape, 1)
        return plgpu.broadcasted_iota(jnp.int32, shape, 1, layout=plgpu.Layout.WGMMA)

    def products(self, *pairs: tuple[Any, Any]) -> list[Float32[Array, "i j"]]:
        """Of each pair `[i k]`, `[j k]` in shared memory, all rows with all rows."""
        if self.interpret:
            return [_dot(a[...], b[...], 1) for a, b in pairs]

        def multiply(*sums):
            for out, (a, b) in zip(sums, pairs, strict=True):
                plgpu.wgmma(out, a, b.transpose((1, 0)))
            return [out[...] for out in sums]

        shapes = [
            plgpu.WGMMAAccumulatorRef((a.shape[0], b.shape[0]), jnp.float32) for a, b in pairs
        ]
        return pl.run_scoped(multiply, *shapes)

    def add_products(
        self, sums: Sequence[Float32[Array, "i k"]], *pairs: tuple[Array, Any]
    ) -> list[Float32[Array, "i k"]]:
        """Adds the products of `[i j]` in registers with `[j k]` in shared memory."""
        if self.interpret:
            return [x + _dot(a, b[...], 0) for x, (a, b) in zip(sums, pairs, strict=True)]

        def multiply(refs):
            for out, (a, b) in zip(refs, pairs, strict=True):
                plgpu.wgmma(out, a, b)

        starts: Any = tuple(plgpu.WGMMAAccumulatorRef.init(x) for x in sums)
        return list(pl.run_state(multiply)(starts))


def _dot(a: Float[Array, "i x"], b: Array, b_axis: int) -> Float32[Array, "i y"]:
    axes = (((1,), (b_axis,)), ((), ()))
    return lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def spread(x: Array, shape: tuple[int, int], axis: int = 0) -> Array:
    """A vector along rows (axis 0) or columns (axis 1) over all of a product."""
    return lax.broadcast_in_dim(x, shape, [axis])


def set_registers(*, fetches: bool, warpgroups: int) -> None:
    """Moves registers to the warpgroups that compute, where there are too few for all."""
    if warpgroups > 1:
        action = "decrease" if fetches else "increase"
        plgpu.set_max_registers(FETCH if fetches else COMPUTE, action=action)


def launch(
    kernel: Any,
    out_type: Any,
    scratch: Any,
    *,
    grid: tuple[int, int],
    warpgroups: int,
    interpret: Any,
    name: str,
) -> Callable[..., Any]:
    """A kernel over heads and tiles; the warpgroup after the `warpgroups` that compute fetches."""
    kernel.__name__ = name
    return plgpu.kernel(
        kernel,
        out_type=out_type,
        scratch_types=scratch,
        grid=grid,
        grid_names=("head", "tile"),
        num_threads=warpgroups + 1,
        thread_name="warpgroup",
        compiler_params=plgpu.CompilerParams(
            approx_math=True,
            lowering_semantics=plgpu.LoweringSemantics.Lane,  # layouts as they stand here
        ),
        interpret=interpret or None,
    )

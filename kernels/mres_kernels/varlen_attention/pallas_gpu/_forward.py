"""The forward kernel for Hopper.

Axes: t rows, h query heads, g key/value heads, k head width, o query tiles, j keys of a tile, i
queries of a warpgroup, w warpgroups, s slots.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from mres_kernels._typing import Array, Float, Float32
from mres_kernels.varlen_attention._vjp import LOG2_E
from mres_kernels.varlen_attention.pallas_gpu._common import (
    HIDDEN,
    clear_first,
    run_of,
    runs_of,
)
from mres_kernels.varlen_attention.pallas_gpu._hopper import (
    ROWS,
    Ring,
    Warpgroup,
    launch,
    matrix,
    ring,
    set_registers,
    spread,
)
from mres_kernels.varlen_attention.pallas_gpu._sizes import Tiles
from mres_kernels.varlen_attention.plan import Plan


def forward(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    *,
    scale: float,
    tiles: Tiles,
    interpret=None,
) -> tuple[Float[Array, "t h k"], Float32[Array, "h t"]]:
    """The output, and the logarithms to base 2 of the softmax denominators."""
    t, h, width = q.shape
    group, n = h // k.shape[1], tiles.warpgroups
    tile = functools.partial(matrix, inner=tiles.inner)
    inner = functools.partial(tile, tiles.inner, width, q.dtype, tiles.slots)
    scratch = (
        tile(ROWS, width, q.dtype, n),
        plgpu.SMEM((n, ROWS), jnp.float32),
        plgpu.Barrier(num_barriers=n),
        ring(inner(), readers=n),
        ring(inner(), readers=n),
    )
    call = launch(
        functools.partial(
            _kernel,
            factor=scale * LOG2_E,
            tiles=tiles,
            group=group,
            warpgroup=Warpgroup(bool(interpret)),
        ),
        [jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct((h, t), jnp.float32)],
        scratch,
        grid=(h, t // (n * ROWS)),
        warpgroups=n,
        interpret=interpret,
        name="varlen_attention_forward",
    )
    cleared = clear_first(v, plan.row_starts, plan.row_ends, tiles.inner)
    runs = runs_of(plan.starts, plan.ends, tiles)
    return call(runs, q, k, v, cleared, plan.starts, plan.ends)


def _kernel(
    runs_ref,  # [o 6]
    q_ref,  # [t h k]
    k_ref,  # [t g k]
    v_ref,  # [t g k]
    cleared_ref,  # [j g k] the first rows of v
    starts_ref,  # [t]
    ends_ref,  # [t]
    out_ref,  # [t h k]
    lse_ref,  # [h t]
    rows_ref,  # [w i k] queries, then results
    row_lse_ref,  # [w i]
    loaded,  # [w] whether queries are there
    keys: Ring,  # [s j k]
    values: Ring,  # [s j k]
    *,
    factor: float,
    tiles: Tiles,
    group: int,
    warpgroup: Warpgroup,
):
    head, tile, number = (lax.axis_index(name) for name in ("head", "tile", "warpgroup"))
    run = run_of(runs_ref, tile)

    @pl.when(number == tiles.warpgroups)
    def _():
        set_registers(fetches=True, warpgroups=tiles.warpgroups)
        kv_head = lax.div(head, jnp.int32(group))

        @pl.loop(jnp.int32(0), run.num_tiles)
        def _(step):
            source = functools.partial(run.source, step=step, inner=tiles.inner, head=kv_head)
            keys.fill(step, [source(k_ref)])
            values.fill(step, [source(v_ref, cleared_ref=cleared_ref)])

        keys.drain(run.num_tiles)
        values.drain(run.num_tiles)

    @pl.when(number < tiles.warpgroups)
    def _():
        set_registers(fetches=False, warpgroups=tiles.warpgroups)
        rows = pl.ds((tile * tiles.warpgroups + number) * ROWS, ROWS)
        queries = rows_ref.at[number]
        plgpu.copy_gmem_to_smem(q_ref.at[rows, head], queries, loaded.at[number])
        starts, ends = (warpgroup.along_rows(ref.at[rows]) for ref in (starts_ref, ends_ref))
        plgpu.barrier_wait(loaded.at[number])

        def attend(step, masked, state):
            top, total, acc = state
            shape = (ROWS, tiles.inner)
            (scores,) = warpgroup.products((queries, *keys.wait(step)))
            keys.release(step)
            if masked:
                seen = run.seen(warpgroup, step, tiles.inner, starts, ends)
                scores = jnp.where(seen, scores, HIDDEN)
            # Scaled here and not before, so that the exponent is one multiply-add.
            new_top = jnp.maximum(top, scores.max(axis=1) * factor)
            weights = jnp.exp2(scores * factor - spread(new_top, shape))
            shrink = jnp.exp2(top - new_top)
            total = total * shrink + weights.sum(axis=1)
            acc = acc * spread(shrink, acc.shape)
            (acc,) = warpgroup.add_products(
                [acc], (weights.astype(q_ref.dtype), *values.wait(step))
            )
            values.release(step)
            return new_top, total, acc

        # The maximum starts where hidden scores weigh exactly nothing.
        state = (
            warpgroup.full((ROWS,), HIDDEN / 2 * factor),
            warpgroup.full((ROWS,), 0),
            warpgroup.full(queries.shape, 0),
        )
        top, total, acc = run.visit(attend, state)
        divisor = jnp.where(total > 0, total, 1.0)
        queries[...] = (acc * spread(1 / divisor, acc.shape)).astype(out_ref.dtype)
        row_lse_ref.at[number][...] = top + jnp.log(divisor) * LOG2_E
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(queries, out_ref.at[rows, head])
        plgpu.copy_smem_to_gmem(row_lse_ref.at[number], lse_ref.at[head, rows])
        plgpu.wait_smem_to_gmem(0)

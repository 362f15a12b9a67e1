"""The backward kernels for Hopper: one for `d_q` over the keys of each tile of queries, one for
`d_k` and `d_v` over the queries of each tile of keys; above heads of 128, whose sums do not fit
into registers together, one for each of those. Each result has one writer, so no atomics.

Axes: t rows, h query heads, g key/value heads, k head width, o outer tiles, j rows of an inner
tile, i rows of a warpgroup, w warpgroups, s slots.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from mres_kernels._typing import Array, Float, Float32
from mres_kernels.varlen_attention._vjp import LOG2_E, row_products
from mres_kernels.varlen_attention.pallas_gpu._common import clear_first, run_of, runs_of
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

Gradient = Literal["d_k", "d_v"]
MAX_JOINT = 128  # channels; beyond, sums of d_k and d_v do not fit into registers together


def backward(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    out: Float[Array, "t h k"],
    lse: Float32[Array, "h t"],
    d_out: Float[Array, "t h k"],
    d_lse: Float32[Array, "h t"],
    *,
    scale: float,
    d_q_tiles: Tiles,
    d_kv_tiles: Tiles,
    interpret=None,
) -> tuple[Float[Array, "t h k"], Float[Array, "t g k"], Float[Array, "t g k"]]:
    """Gradients of q, k and v."""
    arrays = q, k, v, d_out.astype(q.dtype), lse, row_products(out, d_out, d_lse), plan
    options: dict[str, Any] = {"scale": scale, "interpret": interpret}
    d_q = query_gradient(*arrays, tiles=d_q_tiles, **options)
    d_k, d_v = key_gradients(*arrays, tiles=d_kv_tiles, **options)
    return d_q, d_k, d_v


def query_gradient(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    d_out: Float[Array, "t h k"],
    lse: Float32[Array, "h t"],
    delta: Float32[Array, "h t"],
    plan: Plan,
    *,
    scale: float,
    tiles: Tiles,
    interpret=None,
) -> Float[Array, "t h k"]:
    """The gradient of q; `delta` are `row_products`."""
    t, h, width = q.shape
    n = tiles.warpgroups
    tile = functools.partial(matrix, inner=tiles.inner)
    own = functools.partial(tile, ROWS, width, q.dtype, n)
    inner = functools.partial(tile, tiles.inner, width, q.dtype, tiles.slots)
    call = launch(
        functools.partial(
            _query_kernel,
            scale=scale,
            tiles=tiles,
            group=h // k.shape[1],
            warpgroup=Warpgroup(bool(interpret)),
        ),
        jax.ShapeDtypeStruct(q.shape, q.dtype),
        (
            own(),
            own(),
            plgpu.Barrier(num_arrivals=2, num_barriers=n),
            ring(inner(), inner(), readers=n),
        ),
        grid=(h, t // (n * ROWS)),
        warpgroups=n,
        interpret=interpret,
        name="varlen_attention_backward_d_q",
    )
    cleared = clear_first(k, plan.row_starts, plan.row_ends, tiles.inner)
    runs = runs_of(plan.starts, plan.ends, tiles)
    return call(runs, q, k, v, d_out, lse, delta, cleared, plan.starts, plan.ends)


def _query_kernel(
    runs_ref,  # [o 6]
    q_ref,  # [t h k]
    k_ref,  # [t g k]
    v_ref,  # [t g k]
    d_out_ref,  # [t h k]
    lse_ref,  # [h t]
    delta_ref,  # [h t]
    cleared_ref,  # [j g k] the first rows of k
    starts_ref,  # [t]
    ends_ref,  # [t]
    d_q_ref,  # [t h k]
    rows_ref,  # [w i k] queries, then their gradients
    d_rows_ref,  # [w i k] gradients of the output
    loaded,  # [w] whether both are there
    inner: Ring,  # [s j k] keys and values
    *,
    scale: float,
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
            inner.fill(step, [source(k_ref, cleared_ref=cleared_ref), source(v_ref)])

        inner.drain(run.num_tiles)

    @pl.when(number < tiles.warpgroups)
    def _():
        set_registers(fetches=False, warpgroups=tiles.warpgroups)
        rows = pl.ds((tile * tiles.warpgroups + number) * ROWS, ROWS)
        queries, d_outs = rows_ref.at[number], d_rows_ref.at[number]
        plgpu.copy_gmem_to_smem(q_ref.at[rows, head], queries, loaded.at[number])
        plgpu.copy_gmem_to_smem(d_out_ref.at[rows, head], d_outs, loaded.at[number])
        starts, ends = (warpgroup.along_rows(ref.at[rows]) for ref in (starts_ref, ends_ref))
        lse, delta = (warpgroup.along_rows(ref.at[head, rows]) for ref in (lse_ref, delta_ref))
        shape = (ROWS, tiles.inner)
        plgpu.barrier_wait(loaded.at[number])

        def add(step, masked, d_queries):
            keys, values = inner.wait(step)
            scores, d_weights = warpgroup.products((queries, keys), (d_outs, values))
            weights = jnp.exp2(scores * (scale * LOG2_E) - spread(lse, shape))
            d_scores = weights * (d_weights - spread(delta, shape))
            if masked:
                seen = run.seen(warpgroup, step, tiles.inner, starts, ends)
                d_scores = jnp.where(seen, d_scores, 0.0)
            pair = d_scores.astype(q_ref.dtype), keys
            (d_queries,) = warpgroup.add_products([d_queries], pair)
            inner.release(step)
            return d_queries

        d_queries = run.visit(add, warpgroup.full(queries.shape, 0))
        queries[...] = (d_queries * scale).astype(d_q_ref.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(queries, d_q_ref.at[rows, head])
        plgpu.wait_smem_to_gmem(0)


def key_gradients(*arrays: Any, **options: Any) -> list[Float[Array, "t g k"]]:
    """The gradients of k and v; takes what `query_gradient` takes."""
    joint = arrays[0].shape[2] <= MAX_JOINT
    passes: list[tuple[Gradient, ...]] = [("d_k", "d_v")] if joint else [("d_k",), ("d_v",)]
    return [x for wanted in passes for x in _pass(*arrays, wanted=wanted, **options)]


def _pass(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    d_out: Float[Array, "t h k"],
    lse: Float32[Array, "h t"],
    delta: Float32[Array, "h t"],
    plan: Plan,
    *,
    wanted: tuple[Gradient, ...],
    scale: float,
    tiles: Tiles,
    interpret=None,
) -> list[Float[Array, "t g k"]]:
    """Those of the gradients of k and v that are wanted."""
    t, g, width = k.shape
    n, slots = tiles.warpgroups, tiles.slots
    tile = functools.partial(matrix, inner=tiles.inner)
    own = functools.partial(tile, ROWS, width, q.dtype, n)
    inner = functools.partial(tile, tiles.inner, width, q.dtype, slots)
    row_sums = plgpu.SMEM((slots, tiles.inner), jnp.float32)
    call = launch(
        functools.partial(
            _key_kernel,
            wanted=wanted,
            scale=scale,
            tiles=tiles,
            group=q.shape[1] // g,
            warpgroup=Warpgroup(bool(interpret)),
        ),
        [jax.ShapeDtypeStruct(k.shape, k.dtype) for _ in wanted],
        (
            own(),
            own(),
            plgpu.Barrier(num_arrivals=2, num_barriers=n),
            ring(inner(), inner(), row_sums, row_sums, readers=n),
        ),
        grid=(g, t // (n * ROWS)),
        warpgroups=n,
        interpret=interpret,
        name="varlen_attention_backward_" + "_".join(wanted),
    )
    cleared = (clear_first(x, plan.starts, plan.ends, tiles.inner) for x in (q, d_out))
    runs = runs_of(plan.row_starts, plan.row_ends, tiles)
    return call(runs, q, k, v, d_out, lse, delta, *cleared, plan.row_starts, plan.row_ends)


def _key_kernel(
    runs_ref,  # [o 6]
    q_ref,  # [t h k]
    k_ref,  # [t g k]
    v_ref,  # [t g k]
    d_out_ref,  # [t h k]
    lse_ref,  # [h t]
    delta_ref,  # [h t]
    cleared_q_ref,  # [j h k] the first rows of q
    cleared_d_out_ref,  # [j h k] and of d_out
    starts_ref,  # [t] first row that sees each key
    ends_ref,  # [t]
    *refs,  # of what is wanted [t g k], then scratch: keys and values [w i k], whether they are
    # there [w], and a ring of queries, gradients of the output [s j k] and their sums [s j]
    wanted: tuple[Gradient, ...],
    scale: float,
    tiles: Tiles,
    group: int,
    warpgroup: Warpgroup,
):
    *results, keys_ref, values_ref, loaded, inner = refs
    head, tile, number = (lax.axis_index(name) for name in ("head", "tile", "warpgroup"))
    run = run_of(runs_ref, tile)
    num_steps = run.num_tiles * group

    @pl.when(number == tiles.warpgroups)
    def _():
        set_registers(fetches=True, warpgroups=tiles.warpgroups)

        @pl.loop(jnp.int32(0), num_steps)
        def _(step):
            part = lax.div(step, run.num_tiles)
            source = functools.partial(
                run.source,
                step=step - part * run.num_tiles,
                inner=tiles.inner,
                head=head * group + part,
            )
            inner.fill(
                step,
                [
                    source(q_ref, cleared_ref=cleared_q_ref),
                    source(d_out_ref, cleared_ref=cleared_d_out_ref),
                    source(lse_ref),
                    source(delta_ref),
                ],
            )

        inner.drain(num_steps)

    @pl.when(number < tiles.warpgroups)
    def _():
        set_registers(fetches=False, warpgroups=tiles.warpgroups)
        rows = pl.ds((tile * tiles.warpgroups + number) * ROWS, ROWS)
        keys, values = keys_ref.at[number], values_ref.at[number]
        plgpu.copy_gmem_to_smem(k_ref.at[rows, head], keys, loaded.at[number])
        plgpu.copy_gmem_to_smem(v_ref.at[rows, head], values, loaded.at[number])
        starts, ends = (warpgroup.along_rows(ref.at[rows]) for ref in (starts_ref, ends_ref))
        shape = (ROWS, tiles.inner)
        plgpu.barrier_wait(loaded.at[number])

        def add(part, step, masked, sums):
            queries, d_outs, lse, delta = inner.wait(part * run.num_tiles + step)
            lse, delta = (spread(warpgroup.along_columns(x), shape, 1) for x in (lse, delta))
            pairs = [(keys, queries), (values, d_outs)]
            scores, *d_weights = warpgroup.products(*pairs[: 1 + ("d_k" in wanted)])
            weights = jnp.exp2(scores * (scale * LOG2_E) - lse)
            factors = {"d_v": (weights, d_outs)}
            if d_weights:
                factors["d_k"] = weights * (d_weights[0] - delta), queries
            if masked:  # both: what is hidden may overflow
                seen = run.seen(warpgroup, step, tiles.inner, starts, ends)
                factors = {name: (jnp.where(seen, x, 0.0), y) for name, (x, y) in factors.items()}
            pairs = [(factors[name][0].astype(q_ref.dtype), factors[name][1]) for name in wanted]
            sums = warpgroup.add_products(sums, *pairs)
            inner.release(part * run.num_tiles + step)
            return sums

        sums = lax.fori_loop(
            jnp.int32(0),
            jnp.int32(group),
            lambda part, sums: run.visit(functools.partial(add, part), sums),
            [warpgroup.full(keys.shape, 0) for _ in wanted],
        )
        for name, total, source, result in zip(wanted, sums, (keys, values), results, strict=False):
            source[...] = (total * (scale if name == "d_k" else 1.0)).astype(result.dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(source, result.at[rows, head])
        plgpu.wait_smem_to_gmem(0)

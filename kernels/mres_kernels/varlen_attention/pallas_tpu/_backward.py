"""The backward kernels: one pass over the tiles where all of a head's `d_q` fits into fast memory
(5 products a tile), else one for `d_k` and `d_v` and one for `d_q` (7).

Axes: t rows, h query heads, g key/value heads, r query heads per key/value head, k head width,
p parts of a group of heads.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from mres_kernels import _work
from mres_kernels._typing import Array, Float, Float32
from mres_kernels.varlen_attention._vjp import LOG2_E, row_products
from mres_kernels.varlen_attention.pallas_tpu._common import (
    Interpret,
    bounds,
    by_group,
    clear_keys,
    clear_queries,
    dot,
    from_group,
    key_major,
    query_major,
    seen,
)
from mres_kernels.varlen_attention.pallas_tpu._sizes import Tiles, fast_memory, share_heads
from mres_kernels.varlen_attention.plan import Plan

Gradient = Literal["d_q", "d_k", "d_v"]
RESIDENT_SHARE = 0.6  # of fast memory, for what stays there through a pass


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
    tiles: Tiles,
    interpret: Interpret = False,
) -> tuple[Float[Array, "t h k"], Float[Array, "t g k"], Float[Array, "t g k"]]:
    """Gradients of q, k and v."""
    t, h, _ = q.shape
    g = k.shape[1]
    d_out = clear_queries(d_out, plan)
    delta = row_products(out, d_out, d_lse)
    arrays = (
        by_group((clear_queries(q, plan) * (scale * LOG2_E)).astype(q.dtype), g),
        clear_keys(k, plan).transpose(1, 0, 2),
        clear_keys(v, plan).transpose(1, 0, 2),
        by_group(d_out.astype(q.dtype), g),
        lse.reshape(g, h // g, 1, t),
        delta.reshape(g, h // g, 1, t),
    )
    call = functools.partial(pass_over, arrays, plan, scale=scale, interpret=interpret)
    resident = resident_heads(q, tiles.heads)
    if resident:
        d_q, d_k, d_v = call(("d_q", "d_k", "d_v"), tiles=tiles._replace(heads=resident))
    else:
        d_k, d_v = call(("d_k", "d_v"), tiles=tiles)
        (d_q,) = call(("d_q",), tiles=tiles)
    return from_group(d_q), _sum_parts(d_k, k.dtype), _sum_parts(d_v, v.dtype)


def resident_heads(q: Float[Array, "t h k"], heads: int) -> int:
    """How many heads of `d_q` fast memory holds, at most `heads`; 0 if not one."""
    t, _, width = q.shape
    each = t * width * (4 + 2 * q.dtype.itemsize)  # the sum, and twice the block of the result
    return min(heads, int(fast_memory() * RESIDENT_SHARE) // each)


def pass_over(
    arrays: tuple[Array, ...],
    plan: Plan,
    wanted: tuple[Gradient, ...],
    *,
    tiles: Tiles,
    scale: float,
    interpret: Interpret = False,
) -> Sequence[Array]:
    """One kernel, in its own layout: over the tiles of the keys, or of the queries for `d_q` alone.

    Args:
      arrays: queries scaled for base 2 `[g r k t]`, keys and values `[g t k]`, gradient of the
        output `[g r k t]`, logarithms of the denominators and products of output and gradient
        `[g r 1 t]`.
      plan: of the pack.
      wanted: all three, `d_k` and `d_v`, or `d_q`.
      tiles: sizes of a step.
      scale: factor of the scores.
      interpret: without a TPU.

    Returns:
      `d_q [g r k t]`, then `d_k` and `d_v [g p t k]`, of what is wanted.
    """
    queries, keys = arrays[:2]
    g, group, width, t = queries.shape
    n, r = share_heads(g * group, g, tiles.heads)
    by_keys = _by_keys(wanted)
    if by_keys:
        make_list, query_of, key_of = key_major, _work.inner_of, _work.outer_of
    else:
        make_list, query_of, key_of = query_major, _work.outer_of, _work.inner_of
    work = make_list(plan, tiles)

    def queries_at(head, part, w, items):
        return head, part, 0, query_of(items[w])

    def keys_at(head, part, w, items):
        return head, key_of(items[w]), 0

    def bounds_at(head, part, w, items):
        return 0, query_of(items[w])

    def d_keys_at(head, part, w, items):
        return head, part, key_of(items[w]), 0

    def whole_at(head, part, w, items):
        return head, part, 0, 0

    rows = pl.BlockSpec((n, r, width, tiles.q), queries_at)
    row_sums = pl.BlockSpec((n, r, 1, tiles.q), queries_at)
    keys_spec = pl.BlockSpec((n, tiles.kv, width), keys_at)
    out_specs, out_shape, scratch = [], [], []
    if "d_q" in wanted:
        length = t if by_keys else tiles.q
        out_specs.append(pl.BlockSpec((n, r, width, length), whole_at if by_keys else queries_at))
        out_shape.append(jax.ShapeDtypeStruct(queries.shape, queries.dtype))
        scratch.append(pltpu.VMEM((n, r, width, length), jnp.float32))
    if by_keys:
        parts = group // r
        dtype = keys.dtype if parts == 1 else jnp.float32
        out_specs += [pl.BlockSpec((n, None, tiles.kv, width), d_keys_at)] * 2
        out_shape += [jax.ShapeDtypeStruct((g, parts, t, width), dtype)] * 2
        scratch += [pltpu.VMEM((n, tiles.kv, width), jnp.float32)] * 2
    return pl.pallas_call(
        functools.partial(_kernel, wanted=wanted, tiles=tiles, scale=scale),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(g // n, group // r, work.num_items),
            in_specs=[
                rows,
                keys_spec,
                keys_spec,
                rows,
                row_sums,
                row_sums,
                pl.BlockSpec((8, tiles.q), bounds_at),
            ],
            out_specs=out_specs,
            scratch_shapes=scratch,
        ),
        out_shape=out_shape,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=fast_memory(),
        ),
        interpret=interpret,
        name="varlen_attention_backward_" + "_".join(wanted),
    )(work.items, *arrays, bounds(plan))


def _kernel(
    items_ref,  # [w] the work list
    q_ref,  # [n r k q] queries, scaled for base 2
    k_ref,  # [n s k]
    v_ref,  # [n s k]
    d_out_ref,  # [n r k q]
    lse_ref,  # [n r 1 q] logarithms to base 2 of the denominators
    delta_ref,  # [n r 1 q] products of output and its gradient
    bounds_ref,  # [8 q] first key, end of keys
    *refs,  # what is wanted, then the sums for it: d_q [n r k t] or [n r k q], d_k and d_v [n s k]
    wanted: tuple[Gradient, ...],
    tiles: Tiles,
    scale: float,
):
    w = pl.program_id(2)
    item = items_ref[w]
    flags = _work.flags_of(item)
    results = dict(zip(wanted, refs, strict=False))
    sums = dict(zip(wanted, refs[len(wanted) :], strict=True))
    factors = {"d_q": scale, "d_k": 1 / LOG2_E, "d_v": 1.0}
    query_tile, key_tile = _work.outer_of(item), _work.inner_of(item)
    if _by_keys(wanted):
        query_tile, key_tile = key_tile, query_tile
    # Over the keys, all of `d_q` stays; else a sum passes with its outer tile.
    staying = ("d_q",) if _by_keys(wanted) and "d_q" in wanted else ()
    passing = [name for name in wanted if name not in staying]

    def rows_of(tile):
        return pl.ds(pl.multiple_of(tile * tiles.q, tiles.q), tiles.q)

    def for_each_row_tile(name, visit):
        pl.loop(0, sums[name].shape[3] // tiles.q)(
            lambda tile: visit((slice(None), slice(None), slice(None), rows_of(tile)))
        )

    def clear(name, where=...):
        sums[name][where] = jnp.zeros_like(sums[name][where])

    def finish(name, where=...):
        total = sums[name][where] * factors[name]
        results[name][where] = total.astype(results[name].dtype)

    @pl.when(w == 0)
    def _():
        for name in staying:
            for_each_row_tile(name, functools.partial(clear, name))

    @pl.when((flags & _work.FIRST) != 0)
    def _():
        for name in passing:
            clear(name)

    def visit(*, masked: bool):
        mask = seen(bounds_ref, key_tile * tiles.kv, tiles.kv) if masked else None
        for i, j in itertools.product(*map(range, q_ref.shape[:2])):
            queries, keys, d_outs = q_ref[i, j], k_ref[i], d_out_ref[i, j]
            weights = jnp.exp2(dot(keys, queries, 1, 0) - lse_ref[i, j])
            d_scores = weights * (dot(v_ref[i], d_outs, 1, 0) - delta_ref[i, j])
            if mask is not None:  # both: what is hidden may overflow
                weights, d_scores = (jnp.where(mask, x, 0.0) for x in (weights, d_scores))
            d_scores = d_scores.astype(queries.dtype)
            if "d_v" in wanted:
                sums["d_v"][i] += dot(weights.astype(d_outs.dtype), d_outs, 1, 1)
            if "d_k" in wanted:
                sums["d_k"][i] += dot(d_scores, queries, 1, 1)
            if "d_q" in wanted:
                rows = rows_of(query_tile) if staying else slice(None)
                sums["d_q"][i, j, :, rows] += dot(keys, d_scores, 0, 0)

    kind = flags & (_work.EMPTY | _work.FULL)
    pl.when(kind == _work.FULL)(lambda: visit(masked=False))
    pl.when(kind == 0)(lambda: visit(masked=True))

    @pl.when((flags & _work.LAST) != 0)
    def _():
        for name in passing:
            finish(name)

    @pl.when(w == pl.num_programs(2) - 1)
    def _():
        for name in staying:
            for_each_row_tile(name, functools.partial(finish, name))


def _by_keys(wanted: tuple[Gradient, ...]) -> bool:
    """Whether a pass walks the tiles of the keys."""
    return "d_k" in wanted


def _sum_parts(x: Float[Array, "g p t k"], dtype) -> Float[Array, "t g k"]:
    x = x.sum(axis=1) if x.shape[1] > 1 else x[:, 0]
    return lax.convert_element_type(x, dtype).transpose(1, 0, 2)

"""The backward kernels: one for `d_q` over the keys of each tile of queries, one for `d_k` and
`d_v` over the queries of each tile of keys. Each result has one writer, so no atomics.

Axes: t rows, h query heads, g key/value heads, k head width, o outer tiles, i rows of one.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from mres_kernels._typing import Array, Float, Float32
from mres_kernels.varlen_attention._ranges import make_ranges
from mres_kernels.varlen_attention._vjp import LOG2_E, row_products
from mres_kernels.varlen_attention.pallas_triton._common import (
    Piece,
    dot,
    dot_heads,
    load,
    padded,
    pieces_of,
    run_of,
    seen,
    stack,
    store,
)
from mres_kernels.varlen_attention.pallas_triton._sizes import Tiles
from mres_kernels.varlen_attention.plan import Plan


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
    interpret: bool = False,
) -> tuple[Float[Array, "t h k"], Float[Array, "t g k"], Float[Array, "t g k"]]:
    """Gradients of q, k and v."""
    arrays = q, k, v, d_out.astype(q.dtype), lse, row_products(out, d_out, d_lse)
    options = {"scale": scale, "interpret": interpret}
    d_q = query_gradient(*arrays, plan, tiles=d_q_tiles, **options)
    return d_q, *key_gradients(*arrays, plan, tiles=d_kv_tiles, **options)


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
    interpret: bool = False,
) -> Float[Array, "t h k"]:
    """The gradient of q; `delta` are `row_products`."""
    t, h, width = q.shape
    group = h // k.shape[1]
    ranges = stack(make_ranges(plan.starts, plan.ends, outer=tiles.outer, inner=tiles.inner))
    rows = pl.BlockSpec((tiles.outer, None, padded(width)), lambda i, n: (i, n, 0))
    row_sums = pl.BlockSpec((None, tiles.outer), lambda i, n: (n, i))
    all_keys = pl.BlockSpec((t, None, padded(width)), lambda i, n: (0, n // group, 0))
    bounds = pl.BlockSpec((tiles.outer,), lambda i, n: (i,))
    return pl.pallas_call(
        functools.partial(_query_kernel, scale=scale, inner=tiles.inner, pieces=pieces_of(width)),
        grid=(t // tiles.outer, h),
        in_specs=[
            pl.BlockSpec(ranges.shape, lambda i, n: (0, 0)),
            rows,
            all_keys,
            all_keys,
            rows,
            row_sums,
            row_sums,
            bounds,
            bounds,
        ],
        out_specs=rows,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=plt.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
        interpret=interpret,
        name="varlen_attention_backward_d_q",
    )(ranges, q, k, v, d_out, lse, delta, plan.starts, plan.ends)


def _query_kernel(
    ranges_ref,  # [o 5]
    q_ref,  # [i k]
    k_ref,  # [t k]
    v_ref,  # [t k]
    d_out_ref,  # [i k]
    lse_ref,  # [i]
    delta_ref,  # [i]
    starts_ref,  # [i]
    ends_ref,  # [i]
    d_q_ref,  # [i k]
    *,
    scale: float,
    inner: int,
    pieces: tuple[Piece, ...],
):
    run = run_of(ranges_ref, pl.program_id(0))
    queries, d_outs = (load(ref, slice(None), pieces) for ref in (q_ref, d_out_ref))
    lse, delta = lse_ref[...][:, None], delta_ref[...][:, None]
    starts, ends = starts_ref[...], ends_ref[...]

    def add(first, index, live, sums):
        rows = pl.ds(first, inner)
        keys, values = (load(ref, rows, pieces, live) for ref in (k_ref, v_ref))
        weights = jnp.exp2(dot_heads(queries, keys) * (scale * LOG2_E) - lse)
        d_scores = weights * (dot_heads(d_outs, values) - delta)
        if index is not None:
            d_scores = jnp.where(seen(index, starts, ends), d_scores, 0.0)
        d_scores = d_scores.astype(q_ref.dtype)
        return [x + dot(d_scores, key, 1, 0) for x, key in zip(sums, keys, strict=True)]

    sums = [jnp.zeros((starts.shape[0], piece.size), jnp.float32) for piece in pieces]
    sums = run.visit(inner, add, sums)
    store(d_q_ref, [x * scale for x in sums], pieces)


def key_gradients(
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
    interpret: bool = False,
) -> tuple[Float[Array, "t g k"], Float[Array, "t g k"]]:
    """The gradients of k and v; `delta` are `row_products`."""
    t, h, width = q.shape
    group = h // k.shape[1]
    ranges = make_ranges(plan.row_starts, plan.row_ends, outer=tiles.outer, inner=tiles.inner)
    ranges = stack(ranges)
    keys = pl.BlockSpec((tiles.outer, None, padded(width)), lambda i, n: (i, n, 0))
    all_rows = pl.BlockSpec((t, group, padded(width)), lambda i, n: (0, n, 0))
    all_row_sums = pl.BlockSpec((group, t), lambda i, n: (n, 0))
    bounds = pl.BlockSpec((tiles.outer,), lambda i, n: (i,))
    return pl.pallas_call(
        functools.partial(
            _key_kernel, scale=scale, inner=tiles.inner, group=group, pieces=pieces_of(width)
        ),
        grid=(t // tiles.outer, k.shape[1]),
        in_specs=[
            pl.BlockSpec(ranges.shape, lambda i, n: (0, 0)),
            all_rows,
            keys,
            keys,
            all_rows,
            all_row_sums,
            all_row_sums,
            bounds,
            bounds,
        ],
        out_specs=[keys, keys],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (k, v)],
        compiler_params=plt.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
        interpret=interpret,
        name="varlen_attention_backward_d_kv",
    )(ranges, q, k, v, d_out, lse, delta, plan.row_starts, plan.row_ends)


def _key_kernel(
    ranges_ref,  # [o 5]
    q_ref,  # [t r k] the query heads of one key/value head
    k_ref,  # [i k]
    v_ref,  # [i k]
    d_out_ref,  # [t r k]
    lse_ref,  # [r t]
    delta_ref,  # [r t]
    starts_ref,  # [i] first row that sees each key
    ends_ref,  # [i]
    d_k_ref,  # [i k]
    d_v_ref,  # [i k]
    *,
    scale: float,
    inner: int,
    group: int,
    pieces: tuple[Piece, ...],
):
    run = run_of(ranges_ref, pl.program_id(0))
    keys, values = (load(ref, slice(None), pieces) for ref in (k_ref, v_ref))
    starts, ends = starts_ref[...], ends_ref[...]

    def add(head, first, index, live, sums):
        d_keys, d_values = sums
        rows = pl.ds(first, inner)
        queries, d_outs = (load(ref, (rows, head), pieces, live) for ref in (q_ref, d_out_ref))
        lse, delta = (load_sums(ref.at[head, rows], live) for ref in (lse_ref, delta_ref))
        weights = jnp.exp2(dot_heads(keys, queries) * (scale * LOG2_E) - lse)
        d_scores = weights * (dot_heads(values, d_outs) - delta)
        if index is not None:  # both: what is hidden may overflow
            mask = seen(index, starts, ends)
            weights, d_scores = (jnp.where(mask, x, 0.0) for x in (weights, d_scores))
        weights, d_scores = (x.astype(q_ref.dtype) for x in (weights, d_scores))
        return (
            [x + dot(d_scores, y, 1, 0) for x, y in zip(d_keys, queries, strict=True)],
            [x + dot(weights, y, 1, 0) for x, y in zip(d_values, d_outs, strict=True)],
        )

    zeros = [jnp.zeros((starts.shape[0], piece.size), jnp.float32) for piece in pieces]
    d_keys, d_values = lax.fori_loop(
        0,
        group,
        lambda head, sums: run.visit(inner, functools.partial(add, head), sums),
        (zeros, zeros),
    )
    store(d_k_ref, [x * scale for x in d_keys], pieces)
    store(d_v_ref, d_values, pieces)


def load_sums(ref, live) -> Float32[Array, "1 j"]:
    """Of the rows of an inner tile; zeros where not live."""
    return plt.load(ref, mask=live, other=None if live is None else 0.0)[None]

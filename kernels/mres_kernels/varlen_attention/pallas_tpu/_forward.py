"""The forward kernel.

Axes: t rows, h query heads, g key/value heads, r query heads per key/value head, k head width.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from mres_kernels import _work
from mres_kernels._typing import Array, Float, Float32
from mres_kernels.varlen_attention._vjp import LOG2_E
from mres_kernels.varlen_attention.pallas_tpu._common import (
    Interpret,
    bounds,
    by_group,
    clear_keys,
    clear_queries,
    dot,
    from_group,
    query_major,
    seen,
)
from mres_kernels.varlen_attention.pallas_tpu._sizes import Tiles, fast_memory, share_heads
from mres_kernels.varlen_attention.plan import Plan

HIDDEN = -1e30  # score of a hidden key
LOWEST = HIDDEN / 2  # where the maximum starts: hidden scores then weigh exactly nothing
FLAGS = {"XLA_TPU_FORCE_LP_LLO_SCHEDULER": True}  # the slower, better scheduler of the compiler


def forward(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    *,
    scale: float,
    tiles: Tiles,
    interpret: Interpret = False,
) -> tuple[Float[Array, "t h k"], Float32[Array, "h t"]]:
    """The output, and the logarithms to base 2 of the softmax denominators."""
    g = k.shape[1]
    queries = by_group((clear_queries(q, plan) * (scale * LOG2_E)).astype(q.dtype), g)
    keys = clear_keys(k, plan).transpose(1, 0, 2)
    values = clear_keys(v, plan).transpose(1, 2, 0)
    out, lse = attend(queries, keys, values, plan, tiles=tiles, interpret=interpret)
    return from_group(out), lse.reshape(q.shape[1], q.shape[0])


def attend(
    queries: Float[Array, "g r k t"],
    keys: Float[Array, "g t k"],
    values: Float[Array, "g k t"],
    plan: Plan,
    *,
    tiles: Tiles,
    interpret: Interpret = False,
) -> tuple[Float[Array, "g r k t"], Float32[Array, "g r 1 t"]]:
    """The kernel itself, in its own layout, of queries scaled for base 2."""
    g, group, width, t = queries.shape
    n, r = share_heads(g * group, g, tiles.heads)
    work = query_major(plan, tiles)

    def queries_at(head, part, w, items):
        return head, part, 0, _work.outer_of(items[w])

    def keys_at(head, part, w, items):
        return head, _work.inner_of(items[w]), 0

    def values_at(head, part, w, items):
        return head, 0, _work.inner_of(items[w])

    def bounds_at(head, part, w, items):
        return 0, _work.outer_of(items[w])

    return pl.pallas_call(
        functools.partial(_kernel, block_kv=tiles.kv),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(g // n, group // r, work.num_items),
            in_specs=[
                pl.BlockSpec((n, r, width, tiles.q), queries_at),
                pl.BlockSpec((n, tiles.kv, width), keys_at),
                pl.BlockSpec((n, width, tiles.kv), values_at),
                pl.BlockSpec((8, tiles.q), bounds_at),
            ],
            out_specs=[
                pl.BlockSpec((n, r, width, tiles.q), queries_at),
                pl.BlockSpec((n, r, 1, tiles.q), queries_at),
            ],
            scratch_shapes=[
                pltpu.VMEM((n, r, 1, tiles.q), jnp.float32),
                pltpu.VMEM((n, r, 1, tiles.q), jnp.float32),
                pltpu.VMEM((n, r, width, tiles.q), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(queries.shape, queries.dtype),
            jax.ShapeDtypeStruct((g, group, 1, t), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=fast_memory(),
            flags=FLAGS,
        ),
        interpret=interpret,
        name="varlen_attention_forward",
    )(work.items, queries, keys, values, bounds(plan))


def _kernel(
    items_ref,  # [w] the work list
    q_ref,  # [n r k q] queries, scaled for base 2
    k_ref,  # [n s k]
    v_ref,  # [n k s]
    bounds_ref,  # [8 q] first key, end of keys
    out_ref,  # [n r k q]
    lse_ref,  # [n r 1 q]
    top_ref,  # [n r 1 q] the greatest score so far
    total_ref,  # [n r 1 q] the sum of weights so far
    acc_ref,  # [n r k q] the weighted sum of values so far
    *,
    block_kv: int,
):
    item = items_ref[pl.program_id(2)]
    flags = _work.flags_of(item)
    n, r = q_ref.shape[:2]
    heads = [(i, j) for i in range(n) for j in range(r)]

    @pl.when((flags & _work.FIRST) != 0)
    def _():
        top_ref[...] = jnp.full_like(top_ref, LOWEST)
        total_ref[...] = jnp.zeros_like(total_ref)
        acc_ref[...] = jnp.zeros_like(acc_ref)

    def visit(*, masked: bool):
        mask = seen(bounds_ref, _work.inner_of(item) * block_kv, block_kv) if masked else None
        all_scores = [dot(k_ref[i], q_ref[i, j], 1, 0) for i, j in heads]
        for (i, j), scores in zip(heads, all_scores, strict=True):
            if mask is not None:
                scores = jnp.where(mask, scores, HIDDEN)
            top = top_ref[i, j]
            new_top = jnp.maximum(top, scores.max(axis=0, keepdims=True))
            weights, shrink = jnp.exp2(scores - new_top), jnp.exp2(top - new_top)
            top_ref[i, j] = new_top
            total_ref[i, j] = shrink * total_ref[i, j] + weights.sum(axis=0, keepdims=True)
            new = dot(v_ref[i], weights.astype(v_ref.dtype), 1, 0)
            acc_ref[i, j] = acc_ref[i, j] * shrink + new

    kind = flags & (_work.EMPTY | _work.FULL)
    pl.when(kind == _work.FULL)(lambda: visit(masked=False))
    pl.when(kind == 0)(lambda: visit(masked=True))

    @pl.when((flags & _work.LAST) != 0)
    def _():
        for i, j in heads:
            total = total_ref[i, j]
            share = jnp.where(total == 0, 0.0, 1.0 / total)
            out_ref[i, j] = (acc_ref[i, j] * share).astype(out_ref.dtype)
            lse_ref[i, j] = top_ref[i, j] + jnp.log2(jnp.where(total == 0, 1.0, total))

"""Tiled version in plain XLA, with its own backward: the CPU path, and right on any device.

The cost is the sum of squared segment lengths, up to the last tile of each: a tile visits the
keys that all its rows see without a mask, those that only some see in smaller masked tiles, and
nothing else. Tiles are cut from `[t h k]` and turned heads first one at a time: on the CPU,
turning whole arrays costs more than it saves.

Axes: t rows, h query heads, g key/value heads, k head width, b and o rows of a tile and of the
tiles it visits, q query rows of one key/value head (heads of the group times rows), s keys.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from mres_kernels._typing import Float, Float32
from mres_kernels.varlen_attention._checks import ROW_MULTIPLE
from mres_kernels.varlen_attention._tiles import (
    Rows,
    for_each_seen,
    for_each_tile,
    heads_first,
    rows_first,
)
from mres_kernels.varlen_attention._vjp import LOG2_E, attend, row_products
from mres_kernels.varlen_attention.plan import Plan

HIDDEN = -1e30  # score of a hidden key; finite, so that no difference of two is NaN
MIN_WIDE_PRODUCTS = 6_000_000  # multiply-adds of one matmul of a wide tile

_TAYLOR = tuple(math.log(2) ** n / math.factorial(n) for n in range(7))  # of 2 ** x

_dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def varlen_attention(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    *,
    scale: float,
) -> tuple[Float[Array, "t h k"], Float32[Array, "h t"]]:
    """See `api.varlen_attention`; logarithms to base 2."""
    # Under vmap one pack after the other: batched loop bounds would run all to the longest.
    one_by_one = jax.custom_batching.sequential_vmap
    forward = one_by_one(functools.partial(_forward, scale=scale))
    backward = one_by_one(functools.partial(_backward, scale=scale))
    return attend(forward, backward, q, k, v, plan)


def _exp2(x: Float32[Array, "..."]) -> Float32[Array, "..."]:
    """`2 ** x` of what is not above 0, exactly 0 from -127 down; error about 1e-7 relative.

    A Taylor polynomial around the nearest integer, which is then added to the exponent bits. With
    the CPU's own `exp2`, which serves the whole range, the forward takes 5 to 10 % longer.
    """
    x = jnp.maximum(x, -127)
    whole = jnp.round(x)
    power = jnp.full_like(x, _TAYLOR[-1])
    for coefficient in _TAYLOR[-2::-1]:
        power = power * (x - whole) + coefficient
    bits = lax.bitcast_convert_type(power, jnp.int32) + (whole.astype(jnp.int32) << 23)
    return lax.bitcast_convert_type(bits, jnp.float32)


def _hide_queries_first(scores, seen):
    """Scores `[g q s]` with hidden keys set back."""
    if seen is None:
        return scores
    g, _, s = scores.shape
    split = scores.reshape(g, -1, *seen.shape)
    return jnp.where(seen[None, None], split, HIDDEN).reshape(g, -1, s)


def _hide_keys_first(weights, seen):
    """Weights `[g s q]` with those of hidden rows set to zero."""
    if seen is None:
        return weights
    g, s, _ = weights.shape
    split = weights.reshape(g, s, -1, seen.shape[1])
    return jnp.where(seen[None, :, None], split, 0).reshape(g, s, -1)


def _full_sizes(q: Array, k: Array, block: int, other_block: int) -> tuple[int, ...]:
    """Rows of the tiles that need no mask, seen from a tile of `block` rows.

    The CPU spreads a batch of matmuls over its cores only where each is large: with wide tiles
    then, two cores are worth 1.3 to 1.6 times one; without, little more than one.
    """
    wide = 3 * other_block
    products = q.shape[1] // k.shape[1] * block * wide * q.shape[2]
    return (wide, other_block) if products >= MIN_WIDE_PRODUCTS else (other_block,)


def _forward(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    *,
    scale: float,
) -> tuple[Float[Array, "t h k"], Float32[Array, "h t"]]:
    """The output, and the logarithms to base 2 of the softmax denominators."""
    t, h, _ = q.shape
    g = k.shape[1]
    sizes = _full_sizes(q, k, plan.block_q, plan.block_kv)

    def visit(tile: Rows, carry):
        out, lse = carry
        starts, ends = tile.cut(plan.starts), tile.cut(plan.ends)
        queries = heads_first(tile.cut(q), g, scale * LOG2_E)

        def attend(keys: Rows, state):
            top, total, acc = state
            scores = _dot("gqk,gsk->gqs", queries, heads_first(keys.clear(k), g))
            scores = _hide_queries_first(scores, keys.seen(starts, ends))
            new_top = jnp.maximum(top, scores.max(axis=2))
            weights = _exp2(scores - new_top[..., None])
            shrink = jnp.exp2(top - new_top)
            new = _dot("gqs,gsk->gqk", weights, heads_first(keys.clear(v), g))
            return (
                new_top,
                total * shrink + weights.sum(axis=2),
                acc * shrink[..., None] + new,
            )

        # Hidden keys do weigh in a row that has seen no other yet; its first real key wipes that.
        zeros = jnp.zeros(queries.shape[:2], jnp.float32)
        state = zeros + HIDDEN, zeros, jnp.zeros_like(queries)
        top, total, acc = for_each_seen(tile, plan.starts, plan.ends, sizes, attend, state)
        tile_lse = (top + jnp.log2(total)).reshape(h, tile.size)
        out = tile.put(out, rows_first(acc / total[..., None], tile.size))
        return out, tile.put(lse, tile_lse, axis=1)

    carry = jnp.zeros_like(q), jnp.zeros((h, t), jnp.float32)
    return for_each_tile(plan.segment_ends, plan.block_q, visit, carry)


def count_scores(plan: Plan) -> int:
    """Scores that the forward computes for one head, dead and hidden ones included.

    What this is above `(ends - starts).sum()` is what tiles cost.
    """

    def visit(tile: Rows, total):
        def count(keys: Rows, total):
            return total + tile.size * keys.size // ROW_MULTIPLE**2  # so that int32 suffices

        return for_each_seen(tile, plan.starts, plan.ends, (plan.block_kv,), count, total)

    total = for_each_tile(plan.segment_ends, plan.block_q, visit, jnp.int32(0))
    return int(total) * ROW_MULTIPLE**2


def _backward(q, k, v, plan: Plan, out, lse, d_out, d_lse, *, scale: float):
    """Gradients of q, k and v: for each tile of keys, over the rows that see it.

    Scores are kept keys first, where all products have the layouts that CPU matmuls like. Sums
    are added to in a fixed order, so repeated runs agree to the bit.
    """
    g = k.shape[1]
    sizes = _full_sizes(q, k, plan.block_kv, plan.block_q)
    delta = row_products(out, d_out, d_lse)

    def visit(tile: Rows, carry):
        d_q, d_k, d_v = carry
        starts, ends = tile.cut(plan.row_starts), tile.cut(plan.row_ends)
        # A dead key repeats a live one: its weights stay finite, and it adds nothing to d_q.
        keys, values = heads_first(tile.fill(k), g), heads_first(tile.clear(v), g)
        keys_turned = jnp.swapaxes(heads_first(tile.clear(k), g, scale), 1, 2)

        def attend(rows: Rows, state):
            d_q, d_keys, d_values = state
            queries = heads_first(rows.clear(q), g, scale * LOG2_E)
            d_outs = heads_first(rows.clear(d_out), g)
            row_lse, row_delta = (rows.clear(x, axis=1).reshape(g, 1, -1) for x in (lse, delta))
            weights = jnp.exp2(_dot("gsk,gqk->gsq", keys, queries) - row_lse)
            weights = _hide_keys_first(weights, rows.seen(starts, ends))
            d_scores = weights * (_dot("gsk,gqk->gsq", values, d_outs) - row_delta)
            d_queries = jnp.swapaxes(_dot("gks,gsq->gkq", keys_turned, d_scores), 1, 2)
            return (
                rows.put(d_q, rows.cut(d_q) + rows_first(d_queries, rows.size)),
                d_keys + _dot("gsq,gqk->gsk", d_scores, queries),
                d_values + _dot("gsq,gqk->gsk", weights, d_outs),
            )

        state = d_q, jnp.zeros_like(keys), jnp.zeros_like(values)
        d_q, d_keys, d_values = for_each_seen(
            tile, plan.row_starts, plan.row_ends, sizes, attend, state
        )
        d_keys = rows_first(d_keys / LOG2_E, tile.size)
        return d_q, tile.put(d_k, d_keys), tile.put(d_v, rows_first(d_values, tile.size))

    carry = jnp.zeros(q.shape, jnp.float32), jnp.zeros_like(k), jnp.zeros_like(v)
    d_q, d_k, d_v = for_each_tile(plan.segment_ends, plan.block_kv, visit, carry)
    return d_q.astype(q.dtype), d_k, d_v

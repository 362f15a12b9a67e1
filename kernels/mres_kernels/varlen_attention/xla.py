"""Blockwise version in plain XLA, with its own backward: the CPU path, and right on any device.

Axes: g key/value heads, r query heads per key/value head, t rows, k head width.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mres_kernels.varlen_attention.plan import Plan

LOG2_E = math.log2(math.e)
HIDDEN = -1e30  # score of a hidden key; finite, so that no difference of two is NaN


def varlen_attention(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    *,
    scale: float,
) -> Float[Array, "t h k"]:
    """See `api.varlen_attention`."""
    return _attend(q, k, v, plan, scale)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, plan, scale):
    return _attend_fwd(q, k, v, plan, scale)[0]


def _attend_fwd(q, k, v, plan, scale):
    out, lse = jax.custom_batching.sequential_vmap(functools.partial(_forward, scale=scale))(
        q, k, v, plan
    )
    return out, (q, k, v, plan, out, lse)


def _attend_bwd(scale, saved, d_out):
    backward = jax.custom_batching.sequential_vmap(functools.partial(_backward, scale=scale))
    return *backward(*saved, d_out), None


_attend.defvjp(_attend_fwd, _attend_bwd)


def _tile(x, i, size, axis):
    return lax.dynamic_slice_in_dim(x, i * size, size, axis)


def _heads_first(x, num_kv: int, rows: int):
    """`[t (g r) k] -> [g r rows k]`, padding rows added."""
    t, h, k = x.shape
    x = jnp.pad(x, ((0, rows - t), (0, 0), (0, 0)))
    return x.reshape(rows, num_kv, h // num_kv, k).transpose(1, 2, 0, 3)


def _rows_first(x, t: int):
    g, r, _, k = x.shape
    return x[:, :, :t].transpose(2, 0, 1, 3).reshape(t, g * r, k)


def _pad_rows(x, rows):
    return jnp.pad(x, (0, rows - x.shape[0]))


def _blocked(plan: Plan):
    """Starts and ends padded to whole query blocks, and the padded lengths."""
    rows_q = plan.kv_range.shape[0] * plan.block_q
    rows_kv = plan.q_range.shape[0] * plan.block_kv
    rows = max(rows_q, rows_kv)
    return _pad_rows(plan.starts, rows), _pad_rows(plan.ends, rows), rows


def _seen(starts, ends, i, j, plan):
    key = j * plan.block_kv + jnp.arange(plan.block_kv, dtype=jnp.int32)
    starts, ends = (_tile(x, i, plan.block_q, 0)[:, None] for x in (starts, ends))
    return (starts <= key[None]) & (key[None] < ends)


def _clean(x, real):
    return jnp.where(real[:, None, None], x, 0)


def _forward(q, k, v, plan, *, scale):
    t, h, head_dim = q.shape
    g = k.shape[1]
    r = h // g
    starts, ends, rows = _blocked(plan)
    real = plan.ends > plan.starts
    bq, bk = plan.block_q, plan.block_kv
    q, k, v = (_heads_first(_clean(x, real), g, rows) for x in (q, k, v))
    k, v = k[:, 0], v[:, 0]
    factor = scale * LOG2_E

    def q_block(_, i):
        q_tile = _tile(q, i, bq, 2)

        def kv_block(j, carry):
            top, total, acc = carry
            k_tile, v_tile = _tile(k, j, bk, 1), _tile(v, j, bk, 1)
            s = factor * jnp.einsum(
                "grqk,gyk->grqy", q_tile, k_tile, preferred_element_type=jnp.float32
            )
            s = jnp.where(_seen(starts, ends, i, j, plan)[None, None], s, HIDDEN)
            new_top = jnp.maximum(top, s.max(axis=-1))
            p = jnp.exp2(s - new_top[..., None])
            shrink = jnp.exp2(top - new_top)
            acc = acc * shrink[..., None] + jnp.einsum(
                "grqy,gyk->grqk", p.astype(v.dtype), v_tile, preferred_element_type=jnp.float32
            )
            return new_top, total * shrink + p.sum(axis=-1), acc

        init = (
            jnp.full((g, r, bq), HIDDEN / 2, jnp.float32),  # above HIDDEN: hidden keys weigh 0
            jnp.zeros((g, r, bq), jnp.float32),
            jnp.zeros((g, r, bq, head_dim), jnp.float32),
        )
        top, total, acc = lax.fori_loop(plan.kv_range[i, 0], plan.kv_range[i, 1], kv_block, init)
        safe = jnp.where(total > 0, total, 1)
        return None, ((acc / safe[..., None]).astype(q.dtype), top + jnp.log2(safe))

    num_q = plan.kv_range.shape[0]
    _, (out, lse) = lax.scan(q_block, None, jnp.arange(num_q, dtype=jnp.int32))
    out = jnp.moveaxis(out, 0, 2).reshape(g, r, num_q * bq, head_dim)
    lse = jnp.moveaxis(lse, 0, 2).reshape(g, r, num_q * bq)
    return _rows_first(out, t), lse


def _backward(q, k, v, plan, out, lse, d_out, *, scale):
    t, h, head_dim = q.shape
    g = k.shape[1]
    starts, ends, rows = _blocked(plan)
    real = plan.ends > plan.starts
    bq, bk = plan.block_q, plan.block_kv
    dtypes = q.dtype, k.dtype, v.dtype
    q, k, v, out, d_out = (_heads_first(_clean(x, real), g, rows) for x in (q, k, v, out, d_out))
    k, v = k[:, 0], v[:, 0]
    delta = jnp.einsum("grtk,grtk->grt", out, d_out, preferred_element_type=jnp.float32)
    lse = jnp.pad(lse, ((0, 0), (0, 0), (0, rows - lse.shape[2])))
    factor = scale * LOG2_E
    dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

    def kv_block(d_q, j):
        k_tile, v_tile = _tile(k, j, bk, 1), _tile(v, j, bk, 1)

        def q_block(i, carry):
            d_q, d_k, d_v = carry
            q_tile, d_out_tile = _tile(q, i, bq, 2), _tile(d_out, i, bq, 2)
            seen = _seen(starts, ends, i, j, plan)[None, None]
            s = factor * dot("grqk,gyk->grqy", q_tile, k_tile)
            p = jnp.where(seen, jnp.exp2(s - _tile(lse, i, bq, 2)[..., None]), 0)
            d_v += dot("grqy,grqk->gyk", p.astype(d_out.dtype), d_out_tile)
            d_p = dot("grqk,gyk->grqy", d_out_tile, v_tile)
            d_s = jnp.where(seen, p * (d_p - _tile(delta, i, bq, 2)[..., None]), 0)
            d_s = (scale * d_s).astype(q.dtype)
            d_k += dot("grqy,grqk->gyk", d_s, q_tile)
            d_q_tile = _tile(d_q, i, bq, 2) + dot("grqy,gyk->grqk", d_s, k_tile)
            return lax.dynamic_update_slice_in_dim(d_q, d_q_tile, i * bq, 2), d_k, d_v

        zeros = jnp.zeros((g, bk, head_dim), jnp.float32)
        d_q, d_k, d_v = lax.fori_loop(
            plan.q_range[j, 0], plan.q_range[j, 1], q_block, (d_q, zeros, zeros)
        )
        return d_q, (d_k, d_v)

    num_kv = plan.q_range.shape[0]
    d_q, (d_k, d_v) = lax.scan(
        kv_block, jnp.zeros(q.shape, jnp.float32), jnp.arange(num_kv, dtype=jnp.int32)
    )

    def join(x):
        return jnp.moveaxis(x, 0, 1).reshape(g, 1, num_kv * bk, head_dim)

    grads = d_q, join(d_k), join(d_v)
    return tuple(_rows_first(x, t).astype(d) for x, d in zip(grads, dtypes))

"""What forward and backward share."""

import math

import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import tpu as pltpu

from mres_kernels._typing import Array, Bool, Float, Int32
from mres_kernels._work import WorkList, make_work_list
from mres_kernels.varlen_attention._checks import decline_rows, decline_types
from mres_kernels.varlen_attention.pallas_tpu._sizes import LANES, LARGEST, SMEM_ITEMS, Tiles
from mres_kernels.varlen_attention.plan import Plan

Interpret = bool | pltpu.InterpretParams  # how to run without a TPU


def check(q: Array, k: Array, v: Array) -> None:
    """Declines what the kernels do not take.

    Raises:
      NotImplementedError: a length, head size or dtype; says which would do.
    """
    decline_rows("pallas_tpu", LANES, q.shape[0])
    decline_types("pallas_tpu", (jnp.bfloat16, jnp.float32), q, k, v)
    if q.shape[2] % 8:
        raise NotImplementedError(f"pallas_tpu: head size {q.shape[2]} is no multiple of 8.")


def query_major(plan: Plan, tiles: Tiles) -> WorkList:
    """For each query tile, the key tiles that it sees."""
    return _work_list(plan.starts, plan.ends, tiles.q, tiles.kv)


def key_major(plan: Plan, tiles: Tiles) -> WorkList:
    """For each key tile, the query tiles that see it."""
    return _work_list(plan.row_starts, plan.row_ends, tiles.kv, tiles.q)


def _work_list(starts, ends, outer: int, inner: int) -> WorkList:
    length = starts.shape[0]
    steps = (length // outer) * (length // inner)
    if steps > SMEM_ITEMS:
        most = math.isqrt(SMEM_ITEMS) * LARGEST
        can_grow = length <= most and outer * inner < LARGEST**2
        cure = (
            f"pad the pack to a multiple of {LARGEST}, which allows larger tiles"
            if can_grow
            else f"split the pack, {most} rows are the most"
        )
        raise NotImplementedError(
            f"pallas_tpu: {length} rows in tiles of {outer} by {inner} can need {steps} steps, but "
            f"scalar memory holds {SMEM_ITEMS}; {cure}."
        )
    return make_work_list(starts, ends, outer=outer, inner=inner, length=length)


def dot(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
    """Product over one axis of each, sums in float32."""
    return lax.dot_general(
        a,
        b,
        (((a_axis,), (b_axis,)), ((), ())),
        precision=lax.Precision.HIGHEST if a.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


def seen(bounds_ref, first, size: int) -> Bool[Array, "s q"]:
    """Which of `size` keys from `first` on each query of the tile sees, keys first."""
    keys = first + lax.broadcasted_iota(jnp.int32, (size, bounds_ref.shape[1]), 0)
    return (bounds_ref[0:1, :] <= keys) & (keys < bounds_ref[1:2, :])


def bounds(plan: Plan) -> Int32[Array, "8 t"]:
    """Intervals as rows of one tile of sublanes."""
    rows = jnp.zeros((8, plan.starts.shape[0]), jnp.int32)
    return rows.at[0].set(plan.starts).at[1].set(plan.ends)


def clear_queries(x: Float[Array, "t h k"], plan: Plan) -> Float[Array, "t h k"]:
    """Zeros in the rows that ask nothing."""
    return jnp.where((plan.ends > plan.starts)[:, None, None], x, 0)


def clear_keys(x: Float[Array, "t g k"], plan: Plan) -> Float[Array, "t g k"]:
    """Zeros in the rows that nobody asks."""
    return jnp.where((plan.row_ends > plan.row_starts)[:, None, None], x, 0)


def by_group(x: Float[Array, "t h k"], g: int) -> Float[Array, "g r k t"]:
    """Query heads by key/value head, rows last."""
    t, h, width = x.shape
    return x.transpose(1, 2, 0).reshape(g, h // g, width, t)


def from_group(x: Float[Array, "g r k t"]) -> Float[Array, "t h k"]:
    """Undoes `by_group`."""
    g, group, width, t = x.shape
    return x.reshape(g * group, width, t).transpose(2, 0, 1)

"""The forward kernel.

Axes: t rows, h query heads, g key/value heads, k head width, o query tiles, i queries of a tile.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from mres_kernels._typing import Array, Float, Float32
from mres_kernels.varlen_attention._ranges import make_ranges
from mres_kernels.varlen_attention._vjp import LOG2_E
from mres_kernels.varlen_attention.pallas_triton._common import (
    HIDDEN,
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


def forward(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    *,
    scale: float,
    tiles: Tiles,
    interpret: bool = False,
) -> tuple[Float[Array, "t h k"], Float32[Array, "h t"]]:
    """The output, and the logarithms to base 2 of the softmax denominators."""
    t, h, width = q.shape
    group = h // k.shape[1]
    ranges = stack(make_ranges(plan.starts, plan.ends, outer=tiles.outer, inner=tiles.inner))
    rows = pl.BlockSpec((tiles.outer, None, padded(width)), lambda i, n: (i, n, 0))
    all_keys = pl.BlockSpec((t, None, padded(width)), lambda i, n: (0, n // group, 0))
    bounds = pl.BlockSpec((tiles.outer,), lambda i, n: (i,))
    return pl.pallas_call(
        functools.partial(
            _kernel, factor=scale * LOG2_E, inner=tiles.inner, pieces=pieces_of(width)
        ),
        grid=(t // tiles.outer, h),
        in_specs=[
            pl.BlockSpec(ranges.shape, lambda i, n: (0, 0)),
            rows,
            all_keys,
            all_keys,
            bounds,
            bounds,
        ],
        out_specs=[rows, pl.BlockSpec((None, tiles.outer), lambda i, n: (n, i))],
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((h, t), jnp.float32),
        ],
        compiler_params=plt.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
        interpret=interpret,
        name="varlen_attention_forward",
    )(ranges, q, k, v, plan.starts, plan.ends)


def _kernel(
    ranges_ref,  # [o 5]
    q_ref,  # [i k]
    k_ref,  # [t k]
    v_ref,  # [t k]
    starts_ref,  # [i]
    ends_ref,  # [i]
    out_ref,  # [i k]
    lse_ref,  # [i]
    *,
    factor: float,
    inner: int,
    pieces: tuple[Piece, ...],
):
    run = run_of(ranges_ref, pl.program_id(0))
    queries = load(q_ref, slice(None), pieces)
    starts, ends = starts_ref[...], ends_ref[...]
    size = starts.shape[0]

    def attend(first, index, live, state):
        top, total, sums = state
        rows = pl.ds(first, inner)
        scores = dot_heads(queries, load(k_ref, rows, pieces, live))
        if index is not None:
            scores = jnp.where(seen(index, starts, ends), scores, HIDDEN)
        # Scaled here and not before, so that the exponent is one multiply-add.
        new_top = jnp.maximum(top, scores.max(axis=1) * factor)
        weights = jnp.exp2(scores * factor - new_top[:, None])
        shrink = jnp.exp2(top - new_top)
        values = load(v_ref, rows, pieces, live)
        weights_ = weights.astype(v_ref.dtype)
        sums = [
            x * shrink[:, None] + dot(weights_, value, 1, 0)
            for x, value in zip(sums, values, strict=True)
        ]
        return new_top, total * shrink + weights.sum(axis=1), sums

    # The maximum starts where hidden scores weigh exactly nothing.
    state = (
        jnp.full(size, HIDDEN / 2 * factor, jnp.float32),
        jnp.zeros(size, jnp.float32),
        [jnp.zeros((size, piece.size), jnp.float32) for piece in pieces],
    )
    top, total, sums = run.visit(inner, attend, state)
    divisor = jnp.where(total > 0, total, 1.0)
    store(out_ref, [x / divisor[:, None] for x in sums], pieces)
    lse_ref[...] = top + jnp.log2(divisor)

"""Pallas kernel for TPU: reads of each row's cache no more than what it holds, up to a block.

One step is one block of positions of one row, for all heads; a flat list of them is prefetched and
its length is the grid. The few new tokens see each other outside the kernel, and both parts are put
together by the logarithms of their denominators.

Axes: l layers, m rows, n new tokens, h query heads, g key/value heads, r query heads per key/value
head, q queries of one key/value head (n times r), s cached positions, k head width.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from mres_kernels import _work
from mres_kernels._typing import Array, Float, Float32, Int
from mres_kernels.decode_attention.xla import score_new

LANES = 128
BLOCK_BYTES = 1 << 20  # of the keys of one step: long enough a read to hide its latency
HIDDEN = -1e30  # score of a hidden key
LOWEST = HIDDEN / 2  # where the maximum starts: hidden scores then weigh exactly nothing
LOG2_E = math.log2(math.e)


def decode_attention(
    q: Float[Array, "m n h k"],
    new_keys: Float[Array, "m n g k"],
    new_values: Float[Array, "m n g k"],
    keys: Float[Array, "*l m g max_len k"],
    values: Float[Array, "*l m g max_len k"],
    lengths: Int[Array, " m"],
    *,
    layer: int | Int[Array, ""] | None = None,
    scale: float,
    block: int | None = None,
    interpret: bool | pltpu.InterpretParams = False,
) -> Float[Array, "m n h k"]:
    """See `api.decode_attention`.

    Raises:
      NotImplementedError: a cache whose length is no multiple of 128.
    """
    m, n, h, width = q.shape
    if layer is None:
        keys, values, layer = keys[None], values[None], 0
    g, max_len = keys.shape[2:4]
    if max_len % LANES:
        raise NotImplementedError(
            f"pallas_tpu: a cache of {max_len} positions is no multiple of {LANES}; make it "
            f"{-(-max_len // LANES) * LANES}."
        )
    queries = q.reshape(m, n, g, h // g, width)
    scaled = (queries * (scale * LOG2_E)).astype(q.dtype)
    scaled = scaled.transpose(0, 2, 1, 3, 4).reshape(m, g, -1, width)
    block = block or choose_block(keys)
    cache = keys, values, lengths, layer
    old, old_lse = attend_cache(scaled, *cache, block=block, interpret=interpret)
    old = old.reshape(m, g, n, h // g, width).transpose(0, 2, 1, 3, 4)
    old_lse = old_lse.reshape(m, g, n, h // g).transpose(0, 1, 3, 2)
    scores = score_new(queries, new_keys) * (scale * LOG2_E)
    top = jnp.maximum(scores.max(axis=-1), old_lse)
    weights, old_weight = jnp.exp2(scores - top[..., None]), jnp.exp2(old_lse - top)
    total = weights.sum(axis=-1) + old_weight
    shares = (weights / total[..., None]).astype(new_values.dtype)
    new = jnp.einsum("mgrnj,mjgk->mngrk", shares, new_values, preferred_element_type=jnp.float32)
    old_share = (old_weight / total).transpose(0, 3, 1, 2)
    return (new + old * old_share[..., None]).astype(q.dtype).reshape(m, n, h, width)


def choose_block(keys: Float[Array, "l m g max_len k"] | jax.ShapeDtypeStruct) -> int:
    """The largest power of 2 times `LANES` that divides the cache and keeps to `BLOCK_BYTES`."""
    g, max_len, width = keys.shape[2:]
    block = LANES
    while max_len % (2 * block) == 0 and 2 * block * g * width * keys.dtype.itemsize <= BLOCK_BYTES:
        block *= 2
    return block


def attend_cache(
    queries: Float[Array, "m g q k"],
    keys: Float[Array, "l m g s k"],
    values: Float[Array, "l m g s k"],
    lengths: Int[Array, " m"],
    layer: int | Int[Array, ""],
    *,
    block: int,
    interpret: bool | pltpu.InterpretParams = False,
) -> tuple[Float32[Array, "m g q k"], Float32[Array, "m g q"]]:
    """The kernel itself: attention over the cache, and base-2 logarithms of the denominators.

    It takes the cache of all layers, and reads one: a slice of it would be copied beforehand.
    A row without cached positions gives zeros and a logarithm below all others.
    """
    m, g, rows, width = queries.shape
    lengths = lengths.astype(jnp.int32)
    starts = jnp.zeros_like(lengths)
    work = _work.make_work_list(starts, lengths, outer=1, inner=block, length=keys.shape[3])

    def row_at(w, items, lengths, layer):
        return _work.outer_of(items[w]), 0, 0, 0

    def cache_at(w, items, lengths, layer):
        return layer[0], _work.outer_of(items[w]), 0, _work.inner_of(items[w]), 0

    out, lse = pl.pallas_call(
        functools.partial(_kernel, block=block),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(work.num_items,),
            in_specs=[
                pl.BlockSpec((None, g, rows, width), row_at),
                pl.BlockSpec((None, None, g, block, width), cache_at),
                pl.BlockSpec((None, None, g, block, width), cache_at),
            ],
            out_specs=[
                pl.BlockSpec((None, g, rows, width), row_at),
                pl.BlockSpec((None, g, rows, LANES), row_at),
            ],
            scratch_shapes=[
                pltpu.VMEM((g, rows, LANES), jnp.float32),
                pltpu.VMEM((g, rows, LANES), jnp.float32),
                pltpu.VMEM((g, rows, width), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((m, g, rows, width), jnp.float32),
            jax.ShapeDtypeStruct((m, g, rows, LANES), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        cost_estimate=pl.CostEstimate(
            flops=4 * queries.size * keys.shape[3],
            transcendentals=queries.size // width * keys.shape[3],
            bytes_accessed=2 * keys.nbytes // keys.shape[0],  # of rows that are full
        ),
        interpret=interpret,
        name="decode_attention",
    )(work.items, lengths, jnp.asarray(layer, jnp.int32)[None], queries, keys, values)
    return out, lse[..., 0]


def _kernel(
    items_ref,  # [w] the work list
    lengths_ref,  # [m] cached positions
    _,  # [1] the layer, for the blocks
    q_ref,  # [g q k] queries, scaled for base 2
    k_ref,  # [g s k]
    v_ref,  # [g s k]
    out_ref,  # [g q k]
    lse_ref,  # [g q lanes] the same in all lanes
    top_ref,  # [g q lanes] the greatest score so far
    total_ref,  # [g q lanes] the sum of weights so far
    acc_ref,  # [g q k] the weighted sum of values so far
    *,
    block: int,
):
    item = items_ref[pl.program_id(0)]
    flags = _work.flags_of(item)
    precision = lax.Precision.HIGHEST if q_ref.dtype == jnp.float32 else None

    def dot(a, b, b_axis: int):
        dims = (((1,), (b_axis,)), ((), ()))
        return lax.dot_general(a, b, dims, precision, preferred_element_type=jnp.float32)

    @pl.when((flags & _work.FIRST) != 0)
    def _():
        top_ref[...] = jnp.full_like(top_ref, LOWEST)
        total_ref[...] = jnp.zeros_like(total_ref)
        acc_ref[...] = jnp.zeros_like(acc_ref)

    def visit(*, masked: bool):
        for head in range(q_ref.shape[0]):
            scores = dot(q_ref[head], k_ref[head], 1)
            if masked:
                first = _work.inner_of(item) * block
                position = first + lax.broadcasted_iota(jnp.int32, scores.shape, 1)
                scores = jnp.where(position < lengths_ref[_work.outer_of(item)], scores, HIDDEN)
            top = top_ref[head]
            new_top = jnp.maximum(top, scores.max(axis=1, keepdims=True))
            weights = jnp.exp2(scores - new_top[:, :1])
            shrink = jnp.exp2(top - new_top)
            top_ref[head] = new_top
            total_ref[head] = shrink * total_ref[head] + weights.sum(axis=1, keepdims=True)
            new = dot(weights.astype(v_ref.dtype), v_ref[head], 0)
            acc_ref[head] = acc_ref[head] * shrink[:, :1] + new

    kind = flags & (_work.EMPTY | _work.FULL)
    pl.when(kind == _work.FULL)(lambda: visit(masked=False))
    pl.when(kind == 0)(lambda: visit(masked=True))

    @pl.when((flags & _work.LAST) != 0)
    def _():
        total = total_ref[...]
        share = jnp.where(total == 0, 0.0, 1.0 / total)
        out_ref[...] = acc_ref[...] * share[:, :, :1]
        lse_ref[...] = top_ref[...] + jnp.log2(jnp.where(total == 0, 1.0, total))

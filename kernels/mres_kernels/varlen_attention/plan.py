"""Who sees whom: one half-open key interval per query row, and the block ranges it implies.

Axes: t rows of the pack, n segments, x query blocks, y key blocks.
"""

import dataclasses
import functools
import math

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax

from mres_kernels._typing import Array, Int, Int32
from mres_kernels.varlen_attention._checks import (
    check_block,
    check_cu_seqlens,
    check_length,
    check_mask,
    check_segment_ids,
    check_spans,
)

DEFAULT_BLOCKS = ((2048, 128), (math.inf, 192))  # up to this length, this block (rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Row `i` sees the keys `starts[i] <= j < ends[i]`; an empty interval is a padding row.

    Made once per pack and shared by all layers, forward and backward. The ranges are half open,
    in blocks. Shapes depend on the length alone, so one compile serves every mix of segments.
    """

    starts: Int32[Array, " t"]
    ends: Int32[Array, " t"]
    row_starts: Int32[Array, " t"]  # key `j` is seen by the rows from row_starts[j] ...
    row_ends: Int32[Array, " t"]  # ... to row_ends[j]
    segment_ends: Int32[Array, " t"]  # where the segment of each row ends; 0 for padding
    kv_range: Int32[Array, "x 2"]  # key blocks that a query block meets
    q_range: Int32[Array, "y 2"]  # query blocks that meet a key block
    block_q: int  # rows
    block_kv: int


_STATIC = ("block_q", "block_kv")
_LEAVES = tuple(f.name for f in dataclasses.fields(Plan) if f.name not in _STATIC)


def _unflatten(static: tuple, leaves) -> Plan:
    """Builds a plan unchecked: jax passes batched arrays and placeholders through here too."""
    plan = object.__new__(Plan)
    for name, value in zip(_LEAVES + _STATIC, (*leaves, *static), strict=True):
        object.__setattr__(plan, name, value)
    return plan


jax.tree_util.register_pytree_with_keys(
    Plan,
    lambda plan: (
        [(jax.tree_util.GetAttrKey(name), getattr(plan, name)) for name in _LEAVES],
        tuple(getattr(plan, name) for name in _STATIC),
    ),
    _unflatten,
)


def make_plan(
    segment_ids: Int[Array | np.ndarray, " t"] | None = None,
    *,
    cu_seqlens: Int[Array | np.ndarray, " n_plus_1"] | None = None,
    causal: bool = False,
    window: int | None = None,
    spans: Int[Array | np.ndarray, " t"] | None = None,
    length: int | None = None,
    block_q: int | None = None,
    block_kv: int | None = None,
) -> Plan:
    """Returns the plan of one pack.

    Works on traced arrays, and on concrete ones, which are checked.

    Args:
      segment_ids: rows of one segment share an id; 1..n in order, then 0 for padding.
      cu_seqlens: instead of `segment_ids`: the first row of each segment, then the end of the
        last; rows from there on are padding. Repeats are empty segments.
      causal: row `i` sees no key after `i`.
      window: row `i` sees only keys less than `window` rows away.
      spans: with `causal`: rows of one span (an id other than 0, contiguous, inside one segment)
        see the whole span, as pictures inside causal text do.
      length: rows of the pack; needed when `segment_ids` is not given. A multiple of 16.
      block_q: rows per query block; must divide the length. Chosen from the length when None.
      block_kv: likewise for keys.

    Raises:
      ValueError: an impossible description of the pack, with the row or segment at fault.
    """
    length = check_length(segment_ids, cu_seqlens, length)
    check_mask(causal=causal, window=window, spans=spans, length=length)
    for name, block in (("block_q", block_q), ("block_kv", block_kv)):
        if block is not None:
            check_block(name, block, length)
    if segment_ids is None and cu_seqlens is None:
        cu_seqlens = np.array([0, length], np.int32)
    _check_contents(segment_ids, cu_seqlens, spans, length)
    default = min(length, next(size for top, size in DEFAULT_BLOCKS if length <= top))
    return _derive(
        segment_ids,
        cu_seqlens,
        spans,
        length=length,
        causal=causal,
        window=window,
        block_q=block_q or default,
        block_kv=block_kv or default,
    )


def _check_contents(segment_ids, cu_seqlens, spans, length: int) -> None:
    """Checks what is concrete; the contents of traced arrays are not known."""

    def known(x) -> bool:
        return x is not None and not isinstance(x, jax.core.Tracer)

    owners = None
    if known(segment_ids):
        owners = np.asarray(segment_ids)
        check_segment_ids(owners)
    if known(cu_seqlens):
        cu = np.asarray(cu_seqlens)
        check_cu_seqlens(cu, length)
        owners = np.zeros(length, np.int32)
        owners[: cu[-1]] = np.repeat(np.arange(1, cu.size), np.diff(cu))
    if known(spans):
        check_spans(np.asarray(spans), owners)


# Compiled also when called on concrete arrays: one by one, its steps compile for seconds.
@functools.partial(jax.jit, static_argnames=["length", "causal", "window", "block_q", "block_kv"])
def _derive(
    segment_ids,
    cu_seqlens,
    spans,
    *,
    length: int,
    causal: bool,
    window: int | None,
    block_q: int,
    block_kv: int,
) -> Plan:
    if segment_ids is not None:
        segment_starts, segment_ends = _runs(segment_ids.astype(jnp.int32))
    else:
        segment_starts, segment_ends = _segments(cu_seqlens.astype(jnp.int32), length)
    starts, ends = _narrow(segment_starts, segment_ends, causal, window)
    if spans is not None:
        starts, ends = _widen(starts, ends, spans.astype(jnp.int32))
    row_starts, row_ends = _transpose(starts, ends)
    return Plan(
        starts=starts,
        ends=ends,
        row_starts=row_starts,
        row_ends=row_ends,
        segment_ends=segment_ends,
        kv_range=_block_range(starts, ends, block_q, block_kv),
        q_range=_block_range(row_starts, row_ends, block_kv, block_q),
        block_q=block_q,
        block_kv=block_kv,
    )


def _segments(cu: Int32[Array, " n_plus_1"], length: int):
    """First row and end of each row's segment; both 0 for padding."""
    row = jnp.arange(length, dtype=jnp.int32)
    after = jnp.searchsorted(cu, row, side="right").clip(1, cu.shape[0] - 1)
    real = row < cu[-1]
    return jnp.where(real, cu[after - 1], 0), jnp.where(real, cu[after], 0)


def _runs(ids: Int32[Array, " t"]) -> tuple[Int32[Array, " t"], Int32[Array, " t"]]:
    """First row and end of the run of equal ids around each row; both 0 where the id is."""
    length = ids.shape[0]
    row = jnp.arange(length, dtype=jnp.int32)
    change = ids[1:] != ids[:-1]
    edge = jnp.ones(1, bool)
    starts = lax.cummax(jnp.where(jnp.concatenate([edge, change]), row, 0))
    ends = lax.cummin(jnp.where(jnp.concatenate([change, edge]), row + 1, length), reverse=True)
    return jnp.where(ids > 0, starts, 0), jnp.where(ids > 0, ends, 0)


def _narrow(starts, ends, causal: bool, window: int | None):
    """Applies causality and the window to intervals that are whole segments."""
    row = jnp.arange(starts.shape[0], dtype=jnp.int32)
    real = ends > starts
    if window is not None:
        starts = jnp.maximum(starts, row - (window - 1))
        ends = jnp.minimum(ends, row + window)
    if causal:
        ends = jnp.minimum(ends, row + 1)
    return jnp.where(real, starts, 0), jnp.where(real, ends, 0)


def _widen(starts, ends, spans: Int32[Array, " t"]):
    """Lets the rows of a span see all of it."""
    span_starts, span_ends = _runs(spans)
    inside = (spans > 0) & (ends > starts)
    starts = jnp.where(inside, jnp.minimum(starts, span_starts), starts)
    return starts, jnp.where(inside, jnp.maximum(ends, span_ends), ends)


def _transpose(starts, ends):
    """The rows that see each key: an interval too, as starts and ends never fall."""
    length = starts.shape[0]
    key = jnp.arange(length, dtype=jnp.int32)
    real = ends > starts
    row_starts = jnp.searchsorted(jnp.where(real, ends, length), key, side="right")
    row_ends = jnp.searchsorted(jnp.where(real, starts, length), key, side="right")
    row_starts, row_ends = row_starts.astype(jnp.int32), row_ends.astype(jnp.int32)
    return jnp.where(real, row_starts, 0), jnp.where(real, row_ends, 0)


def _block_range(starts, ends, block: int, other: int) -> Int32[Array, "x 2"]:
    """The blocks of the other side between the first and the last that a block meets."""
    length = starts.shape[0]
    pad = (0, -length % block)
    real = ends > starts
    starts = jnp.pad(jnp.where(real, starts, length), pad, constant_values=length)
    first = starts.reshape(-1, block).min(axis=1) // other
    end = -(-jnp.pad(ends, pad).reshape(-1, block).max(axis=1) // other)
    return jnp.stack([jnp.minimum(first, end), end], axis=1)

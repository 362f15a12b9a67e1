"""Who sees whom: one half-open key interval per query row, and the block ranges it implies.

Axes: t rows of the pack, n segments, x query blocks, y key blocks.
"""

import dataclasses
import math

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Int32

ROW_MULTIPLE = 16  # rows; the smallest tile that any implementation works on
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
    length = _check_length(segment_ids, cu_seqlens, length)
    if window is not None and window < 1:
        raise ValueError(f"make_plan: window={window} hides every key; it must be at least 1.")
    if spans is not None and not causal:
        raise ValueError("make_plan: spans lift the causal mask, but causal=False.")
    block_q = _check_block("block_q", block_q, length)
    block_kv = _check_block("block_kv", block_kv, length)
    segment_starts, segment_ends = _segment_bounds(segment_ids, cu_seqlens, length)
    starts, ends = _narrow(segment_starts, segment_ends, causal, window)
    if spans is not None:
        starts, ends = _widen(starts, ends, spans, segment_starts)
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


def _check_length(segment_ids, cu_seqlens, length: int | None) -> int:
    if segment_ids is not None and cu_seqlens is not None:
        raise ValueError("make_plan: segment_ids and cu_seqlens both given; they say the same.")
    if segment_ids is not None:
        if length is not None and length != segment_ids.shape[0]:
            raise ValueError(
                f"make_plan: length={length}, but segment_ids has {segment_ids.shape[0]} rows."
            )
        length = segment_ids.shape[0]
    if length is None:
        raise ValueError("make_plan: needs length= when segment_ids is not given.")
    if length < 1 or length % ROW_MULTIPLE:
        raise ValueError(
            f"make_plan: length={length} is not a positive multiple of {ROW_MULTIPLE}; "
            f"pad the pack to {max(-(-length // ROW_MULTIPLE), 1) * ROW_MULTIPLE} rows."
        )
    return length


def _check_block(name: str, block: int | None, length: int) -> int:
    if block is None:
        return min(length, next(size for top, size in DEFAULT_BLOCKS if length <= top))
    if block < ROW_MULTIPLE or block % ROW_MULTIPLE or length % block:
        raise ValueError(
            f"make_plan: {name}={block} must be a multiple of {ROW_MULTIPLE} that divides "
            f"length={length} (remainder {length % max(block, 1)})."
        )
    return block


def _concrete(x) -> bool:
    return not isinstance(x, jax.core.Tracer)


def _segment_bounds(segment_ids, cu_seqlens, length: int):
    """First row and end of each row's segment; both 0 for padding."""
    row = jnp.arange(length, dtype=jnp.int32)
    if segment_ids is None and cu_seqlens is None:
        cu_seqlens = np.array([0, length], np.int32)
    if cu_seqlens is not None:
        if _concrete(cu_seqlens):
            check_cu_seqlens(np.asarray(cu_seqlens), length)
        cu = jnp.asarray(cu_seqlens).astype(jnp.int32)
        after = jnp.searchsorted(cu, row, side="right").clip(1, cu.shape[0] - 1)
        real = row < cu[-1]
        return jnp.where(real, cu[after - 1], 0), jnp.where(real, cu[after], 0)
    if _concrete(segment_ids):
        check_segment_ids(np.asarray(segment_ids))
    ids = jnp.asarray(segment_ids).astype(jnp.int32)
    starts, ends = _runs(ids)
    return jnp.where(ids > 0, starts, 0), jnp.where(ids > 0, ends, 0)


def _runs(ids: Int32[Array, " t"]) -> tuple[Int32[Array, " t"], Int32[Array, " t"]]:
    """First row and end of the run of equal ids around each row."""
    length = ids.shape[0]
    row = jnp.arange(length, dtype=jnp.int32)
    change = ids[1:] != ids[:-1]
    edge = jnp.ones(1, bool)
    first = jnp.concatenate([edge, change])
    last = jnp.concatenate([change, edge])
    starts = lax.cummax(jnp.where(first, row, 0))
    ends = lax.cummin(jnp.where(last, row + 1, length), reverse=True)
    return starts, ends


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


def _widen(starts, ends, spans, segment_starts):
    """Lets the rows of a span see all of it."""
    if spans.shape != starts.shape:
        raise ValueError(
            f"make_plan: spans has {spans.shape[0]} rows, but the pack has {starts.shape[0]}."
        )
    if _concrete(spans):
        segments = np.asarray(segment_starts) if _concrete(segment_starts) else None
        check_spans(np.asarray(spans), segments)
    spans = jnp.asarray(spans).astype(jnp.int32)
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


def check_segment_ids(ids: np.ndarray) -> None:
    """Raises `ValueError` unless `ids` are contiguous runs 1..n, then zeros."""
    if ids.min() < 0:
        row = int(ids.argmin())
        raise ValueError(f"make_plan: segment_ids[{row}]={ids[row]} is negative.")
    previous = np.concatenate([[0], ids[:-1]])
    number = np.maximum.accumulate(previous)
    good = (ids == 0) | ((ids == previous) & (ids > 0)) | (ids == number + 1)
    good &= ~((ids > 0) & (previous == 0) & (np.arange(ids.size) > 0))
    if not good.all():
        row = int(good.argmin())
        raise ValueError(
            f"make_plan: segment_ids[{row}]={ids[row]} after {previous[row]}; ids must be "
            f"contiguous runs 1..n in order, then 0 for padding."
        )


def check_cu_seqlens(cu: np.ndarray, length: int) -> None:
    """Raises `ValueError` unless `cu` rises from 0 to at most `length`."""
    if cu.size < 1 or cu[0] != 0:
        raise ValueError(f"make_plan: cu_seqlens must begin with 0, got {cu[:1].tolist()}.")
    falls = np.flatnonzero(np.diff(cu) < 0)
    if falls.size:
        at = int(falls[0])
        raise ValueError(
            f"make_plan: cu_seqlens falls from {cu[at]} to {cu[at + 1]} at segment {at + 1}; "
            "segments must be in order and must not overlap."
        )
    if cu[-1] > length:
        raise ValueError(
            f"make_plan: cu_seqlens ends at {cu[-1]}, but length={length} (over by "
            f"{cu[-1] - length})."
        )


def check_spans(spans: np.ndarray, segment_starts: np.ndarray | None) -> None:
    """Raises `ValueError` unless each span is one run of rows inside one segment."""
    if spans.min() < 0:
        row = int(spans.argmin())
        raise ValueError(f"make_plan: spans[{row}]={spans[row]} is negative.")
    begins = np.flatnonzero(np.diff(spans, prepend=0) & (spans > 0))
    ids, counts = np.unique(spans[begins], return_counts=True)
    if (counts > 1).any():
        span = ids[counts > 1][0]
        rows = begins[spans[begins] == span].tolist()
        raise ValueError(f"make_plan: span {span} begins at rows {rows}; a span is one run.")
    if segment_starts is None:
        return
    for begin in begins:
        owners = np.unique(segment_starts[spans == spans[begin]])
        if owners.size > 1:
            raise ValueError(
                f"make_plan: span {spans[begin]} from row {begin} lies in {owners.size} segments, "
                f"which begin at rows {owners.tolist()}."
            )

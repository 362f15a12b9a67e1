"""Who sees whom: one half-open key interval per query row, and the block ranges it implies.

Axes: t rows of the pack, n segments, x query blocks, y key blocks.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Int32

ROW_MULTIPLE = 16  # rows; the smallest tile that any implementation works on
DEFAULT_BLOCK = 128  # rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Row `i` sees the keys `starts[i] <= j < ends[i]`; an empty interval is a padding row.

    Made once per pack and shared by all layers, forward and backward. The ranges are half open,
    in blocks. Shapes depend on the length alone, so one compile serves every mix of segments.
    """

    starts: Int32[Array, " t"]
    ends: Int32[Array, " t"]
    kv_range: Int32[Array, "x 2"]  # key blocks that a query block meets
    q_range: Int32[Array, "y 2"]  # query blocks that meet a key block
    block_q: int = dataclasses.field(metadata={"static": True})
    block_kv: int = dataclasses.field(metadata={"static": True})


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
    starts, ends = _segment_bounds(segment_ids, cu_seqlens, length)
    starts, ends = _narrow(starts, ends, causal, window, spans)
    block_q = _check_block("block_q", block_q, length)
    block_kv = _check_block("block_kv", block_kv, length)
    kv_range = _kv_range(starts, ends, block_q, block_kv)
    q_range = _q_range(kv_range, -(-length // block_kv))
    return Plan(
        starts=starts,
        ends=ends,
        kv_range=kv_range,
        q_range=q_range,
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
        return min(DEFAULT_BLOCK, length)
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


def _narrow(starts, ends, causal: bool, window: int | None, spans):
    """Applies causality, the window and the spans to intervals that are whole segments."""
    row = jnp.arange(starts.shape[0], dtype=jnp.int32)
    real = ends > starts
    if window is not None:
        starts = jnp.maximum(starts, row - (window - 1))
        ends = jnp.minimum(ends, row + window)
    if causal:
        ends = jnp.minimum(ends, row + 1)
    if spans is not None:
        spans = jnp.asarray(spans).astype(jnp.int32)
        span_starts, span_ends = _runs(spans)
        inside = spans > 0
        starts = jnp.where(inside, jnp.minimum(starts, span_starts), starts)
        ends = jnp.where(inside, jnp.maximum(ends, span_ends), ends)
    return jnp.where(real, starts, 0), jnp.where(real, ends, 0)


def _kv_range(starts, ends, block_q: int, block_kv: int) -> Int32[Array, "x 2"]:
    """The key blocks between the first and the last key that a query block sees."""
    length = starts.shape[0]
    pad = -length % block_q
    real = ends > starts
    starts = jnp.pad(jnp.where(real, starts, length), (0, pad), constant_values=length)
    ends = jnp.pad(jnp.where(real, ends, 0), (0, pad))
    first = starts.reshape(-1, block_q).min(axis=1) // block_kv
    last = -(-ends.reshape(-1, block_q).max(axis=1) // block_kv)
    return jnp.stack([jnp.minimum(first, last), last], axis=1)


def _q_range(kv_range: Int32[Array, "x 2"], num_kv: int) -> Int32[Array, "y 2"]:
    """The query blocks between the first and the last that meet a key block."""
    num_q = kv_range.shape[0]
    block = jnp.arange(num_kv, dtype=jnp.int32)[:, None]
    meets = (kv_range[None, :, 0] <= block) & (block < kv_range[None, :, 1])
    q_block = jnp.arange(num_q, dtype=jnp.int32)[None]
    first = jnp.where(meets, q_block, num_q).min(axis=1)
    last = jnp.where(meets, q_block + 1, 0).max(axis=1)
    return jnp.stack([jnp.minimum(first, last), last], axis=1)


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

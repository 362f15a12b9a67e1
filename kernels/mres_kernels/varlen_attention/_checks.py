"""What is refused before any work: one line with the row, segment or shape at fault."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

ROW_MULTIPLE = 16  # rows; the smallest tile that any implementation works on
MAX_HEAD_DIM = 256
MIN_SCALE = 1e-20  # of what scales scores when they are known, and not q before


def check_arrays(q, k, v, length: int) -> None:
    """Whether queries, keys and values go with each other and with a plan of `length` rows."""
    if k.shape != v.shape:
        raise ValueError(f"varlen_attention: k is {k.shape}, but v is {v.shape}.")
    if len({q.dtype, k.dtype, v.dtype}) > 1 or not jnp.issubdtype(q.dtype, jnp.floating):
        raise ValueError(
            f"varlen_attention: q, k, v are {q.dtype}, {k.dtype}, {v.dtype}; they must be of one "
            "floating type."
        )
    t, h, head_dim = q.shape
    if k.shape[0] != t or k.shape[2] != head_dim:
        raise ValueError(
            f"varlen_attention: q has {t} rows of head size {head_dim}, but k has {k.shape[0]} of "
            f"{k.shape[2]}."
        )
    if h % k.shape[1]:
        raise ValueError(
            f"varlen_attention: {h} query heads are not a multiple of {k.shape[1]} key/value heads."
        )
    if head_dim > MAX_HEAD_DIM:
        raise ValueError(f"varlen_attention: head size {head_dim} is over {MAX_HEAD_DIM}.")
    if length != t:
        raise ValueError(f"varlen_attention: the plan has {length} rows, but q has {t}.")


def decline_types(implementation: str, types: Iterable[Any], q, k, v) -> None:
    """Raises `NotImplementedError` where q, k, v are not all of one of the types."""
    found = {x.dtype for x in (q, k, v)}
    if len(found) > 1 or found.pop() not in types:
        names = ", ".join(x.dtype.name for x in (q, k, v))
        have = " or ".join(jnp.dtype(x).name for x in types)
        raise NotImplementedError(f"{implementation}: q, k, v are {names}; have {have}.")


def decline_rows(implementation: str, multiple: int, length: int) -> None:
    """Raises `NotImplementedError` where a pack is not whole tiles of `multiple` rows."""
    if length % multiple:
        raise NotImplementedError(
            f"{implementation}: {length} rows are no multiple of {multiple}; pad the pack to "
            f"{-(-length // multiple) * multiple}."
        )


def decline_scale(implementation: str, scale: float) -> None:
    """Raises `NotImplementedError` where scores keep no order once scaled."""
    if not scale > MIN_SCALE:
        raise NotImplementedError(
            f"{implementation}: scale={scale} is not above {MIN_SCALE}; negate q and the scale."
        )


def check_length(segment_ids, cu_seqlens, length: int | None) -> int:
    """The number of rows of the pack."""
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


def check_block(name: str, block: int, length: int) -> None:
    if block < ROW_MULTIPLE or block % ROW_MULTIPLE or length % block:
        raise ValueError(
            f"make_plan: {name}={block} must be a multiple of {ROW_MULTIPLE} that divides "
            f"length={length} (remainder {length % max(block, 1)})."
        )


def check_mask(*, causal: bool, window: int | None, spans, length: int) -> None:
    if window is not None and window < 1:
        raise ValueError(f"make_plan: window={window} hides every key; it must be at least 1.")
    if spans is not None and not causal:
        raise ValueError("make_plan: spans lift the causal mask, but causal=False.")
    if spans is not None and spans.shape != (length,):
        raise ValueError(f"make_plan: spans has {spans.shape[0]} rows, but the pack has {length}.")


def check_segment_ids(ids: np.ndarray) -> None:
    """Contiguous runs 1..n in order, then zeros."""
    if ids.min() < 0:
        row = int(ids.argmin())
        raise ValueError(f"make_plan: segment_ids[{row}]={ids[row]} is negative.")
    previous = np.concatenate([[0], ids[:-1]])
    first = np.arange(ids.size) == 0
    good = (ids == previous) | ((ids == previous + 1) & ((previous > 0) | first)) | (ids == 0)
    if not good.all():
        row = int(good.argmin())
        raise ValueError(
            f"make_plan: segment_ids[{row}]={ids[row]} after {previous[row]}; ids must be "
            "contiguous runs 1..n in order, then 0 for padding."
        )


def check_cu_seqlens(cu: np.ndarray, length: int) -> None:
    """Rises from 0 to at most `length`."""
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


def check_spans(spans: np.ndarray, segment_ids: np.ndarray | None) -> None:
    """Each span is one run of rows, inside one segment where those are known."""
    if spans.min() < 0:
        row = int(spans.argmin())
        raise ValueError(f"make_plan: spans[{row}]={spans[row]} is negative.")
    begins = np.flatnonzero((np.diff(spans, prepend=0) != 0) & (spans > 0))
    for span in np.unique(spans[begins]):
        rows = begins[spans[begins] == span].tolist()
        if len(rows) > 1:
            raise ValueError(f"make_plan: span {span} begins at rows {rows}; a span is one run.")
        owners = [] if segment_ids is None else np.unique(segment_ids[spans == span]).tolist()
        if len(owners) > 1:
            raise ValueError(
                f"make_plan: span {span} from row {rows[0]} lies in segments {owners}; a span "
                "must not cross a border (0 is padding)."
            )

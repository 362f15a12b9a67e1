import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from mres_kernels.varlen_attention import make_plan

LENGTH, BLOCK_Q, BLOCK_KV = 96, 32, 48


def seen_by_definition(ids, *, causal, window, spans):
    """`[query, key]` straight from the words of `make_plan`."""
    row, key = np.indices((ids.size, ids.size))
    seen = np.abs(row - key) < (window or ids.size)
    if causal:
        seen &= key <= row
    if spans is not None:
        seen |= (spans[:, None] == spans[None]) & (spans[:, None] > 0)
    return seen & (ids[:, None] == ids[None]) & (ids[:, None] > 0)


def seen_by_intervals(starts, ends):
    index = np.arange(starts.size)
    return (np.asarray(starts)[:, None] <= index) & (index < np.asarray(ends)[:, None])


@st.composite
def packs(draw):
    """Segment lengths that fit, empty ones among them, and spans inside segments."""
    lengths = draw(st.lists(st.sampled_from([0, 1, 2, 15, 31, 32, 33, 48, 96]), max_size=6))
    cu = np.minimum(np.cumsum([0, *lengths]), LENGTH)
    cu = np.pad(cu, (0, 7 - cu.size), mode="edge").astype(np.int32)
    ids = np.zeros(LENGTH, np.int32)
    spans = np.zeros(LENGTH, np.int32)
    for segment, (start, end) in enumerate(itertools.pairwise(cu), start=1):
        ids[start:end] = segment
        if end - start > 2 and draw(st.booleans()):
            first = draw(st.integers(start, end - 1))
            spans[first : draw(st.integers(first + 1, end))] = segment
    return cu, ids, spans


MASKS = [
    {"causal": False, "window": None},
    {"causal": False, "window": 5},
    {"causal": True, "window": None},
    {"causal": True, "window": 5},
    {"causal": True, "window": None, "spans": True},
    {"causal": True, "window": 5, "spans": True},
]


@functools.partial(jax.jit, static_argnames=["causal", "window"])
def make_traced(cu, spans, *, causal, window):
    return make_plan(
        cu_seqlens=cu,
        length=LENGTH,
        causal=causal,
        window=window,
        spans=spans,
        block_q=BLOCK_Q,
        block_kv=BLOCK_KV,
    )


@pytest.mark.parametrize("mask", MASKS, ids=str)
@settings(max_examples=20)
@given(pack=packs())
def test_intervals_both_ways_are_the_mask(mask, pack):
    cu, ids, spans = pack
    spans = spans if mask.get("spans") else None
    plan = make_traced(cu, spans, causal=mask["causal"], window=mask["window"])
    seen = seen_by_definition(ids, causal=mask["causal"], window=mask["window"], spans=spans)
    np.testing.assert_array_equal(seen_by_intervals(plan.starts, plan.ends), seen)
    np.testing.assert_array_equal(seen_by_intervals(plan.row_starts, plan.row_ends), seen.T)
    blocks = seen.reshape(LENGTH // BLOCK_Q, BLOCK_Q, LENGTH // BLOCK_KV, BLOCK_KV).any((1, 3))
    np.testing.assert_array_equal(hull(blocks), plan.kv_range)
    np.testing.assert_array_equal(hull(blocks.T), plan.q_range)


def hull(meets):
    """First and end of what each row of `meets` holds; where nothing, both the same."""
    count = meets.shape[1]
    first = np.where(meets, np.arange(count), count).min(axis=1)
    end = np.where(meets, np.arange(count) + 1, 0).max(axis=1)
    return np.stack([np.minimum(first, end), end], axis=1)


def test_cu_seqlens_and_segment_ids_say_the_same():
    ids = np.repeat([1, 2, 3, 0], [5, 1, 20, 6]).astype(np.int32)
    from_ids = make_plan(ids, causal=True)
    from_cu = make_plan(cu_seqlens=np.array([0, 5, 6, 26]), length=32, causal=True)
    traced = jax.jit(functools.partial(make_plan, causal=True))(ids)
    for plan in (from_cu, traced):
        jax.tree.map(np.testing.assert_array_equal, plan, from_ids)


def test_without_segments_the_pack_is_one():
    plan = make_plan(length=32)
    assert np.unique(plan.starts).tolist() == [0]
    assert np.unique(plan.ends).tolist() == [32]


def test_one_compile_serves_every_mix_of_segments():
    traces = []

    @jax.jit
    def starts(ids):
        traces.append(ids.shape)
        return make_plan(ids).starts

    for lengths in ([32], [16, 16], [1, 2, 3]):
        ids = np.repeat(np.arange(1, len(lengths) + 1), lengths)
        starts(jnp.asarray(np.pad(ids, (0, 32 - ids.size)), jnp.int32))
    assert traces == [(32,)]


def ids_of(*values):
    return np.array(values + (0,) * (16 - len(values)), np.int32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs length= when segment_ids is not given."),
        ({"length": 1000}, "length=1000 is not a positive multiple of 16; pad the pack to 1008"),
        ({"length": 0}, "length=0 is not a positive multiple of 16; pad the pack to 16 rows."),
        ({"segment_ids": ids_of(1), "length": 32}, "length=32, but segment_ids has 16 rows."),
        (
            {"segment_ids": ids_of(1), "cu_seqlens": np.array([0, 1])},
            "segment_ids and cu_seqlens both given; they say the same.",
        ),
        ({"segment_ids": ids_of(1, -2)}, r"segment_ids\[1\]=-2 is negative."),
        ({"segment_ids": ids_of(2)}, r"segment_ids\[0\]=2 after 0; ids must be contiguous"),
        ({"segment_ids": ids_of(1, 3)}, r"segment_ids\[1\]=3 after 1; ids must be"),
        ({"segment_ids": ids_of(1, 2, 1)}, r"segment_ids\[2\]=1 after 2; ids must be"),
        ({"segment_ids": ids_of(1, 0, 2)}, r"segment_ids\[2\]=2 after 0; ids must be"),
        ({"cu_seqlens": np.array([1, 4]), "length": 16}, r"must begin with 0, got \[1\]."),
        (
            {"cu_seqlens": np.array([0, 9, 4]), "length": 16},
            "cu_seqlens falls from 9 to 4 at segment 2; segments must be in order",
        ),
        (
            {"cu_seqlens": np.array([0, 20]), "length": 16},
            r"cu_seqlens ends at 20, but length=16 \(over by 4\).",
        ),
        ({"length": 64, "block_q": 48}, "block_q=48 must be a multiple of 16 that divides length="),
        ({"length": 64, "block_kv": 8}, "block_kv=8 must be a multiple of 16 that divides"),
        ({"length": 64, "window": 0}, "window=0 hides every key; it must be at least 1."),
        ({"length": 16, "spans": ids_of(1)}, "spans lift the causal mask, but causal=False."),
        ({"length": 16, "spans": ids_of(-1), "causal": True}, r"spans\[0\]=-1 is negative."),
        (
            {"length": 16, "spans": ids_of(1, 0, 1), "causal": True},
            r"span 1 begins at rows \[0, 2\]; a span is one run.",
        ),
        (
            {"segment_ids": ids_of(1, 1, 2), "spans": ids_of(0, 7, 7), "causal": True},
            r"span 7 from row 1 lies in segments \[1, 2\]; a span must not cross a border",
        ),
        (
            {"length": 32, "spans": ids_of(1), "causal": True},
            "spans has 16 rows, but the pack has 32.",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_an_impossible_pack_is_refused_with_its_numbers(arguments, message):
    with pytest.raises(ValueError, match=f"^make_plan: .*{message}") as caught:
        make_plan(**arguments)
    assert "\n" not in str(caught.value)

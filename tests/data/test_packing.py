"""Packs: every example once and whole, no buffer exceeded, nothing lost, buffers well used."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mres_jax import testing
from mres_jax.data.ladder import fit_ladder
from mres_jax.data.packing import check_fits, empty_pack, example_slices, pack, plan_packs
from mres_jax.data.packing_report import packing_report
from mres_jax.data.patches import block_positions
from mres_jax.data.position_weights import position_weights
from mres_jax.data.spec import PositionTable
from mres_jax.data.types import Example, ExampleSize, Rung
from mres_jax.data.windows import window_layout
from mres_jax.errors import PackingError
from mres_jax.geometry import Grid
from mres_jax.testing.mixtures import llava_like_sizes

MERGE, ROW = 2, 12


def rung(max_patches, max_tokens, max_views=8, max_examples=8):
    return Rung(
        max_patches=max_patches,
        max_tokens=max_tokens,
        max_views=max_views,
        max_examples=max_examples,
    )


LADDER = (rung(16, 24, 2, 2), rung(64, 48, 4, 4), rung(256, 96))
SIZES = st.lists(
    st.builds(ExampleSize, st.integers(0, 256), st.integers(1, 96), st.integers(0, 8)), max_size=60
)


@given(SIZES, st.integers(1, 20))
def test_every_example_is_in_one_pack_and_no_pack_exceeds_its_rung(sizes, lookahead):
    plans = plan_packs(sizes, LADDER, lookahead=lookahead)
    assert sorted(i for plan in plans for i in plan.indices) == list(range(len(sizes)))
    for plan in plans:
        total = np.sum([sizes[i] for i in plan.indices], axis=0)
        limits = (plan.rung.max_patches, plan.rung.max_tokens, plan.rung.max_views)
        assert (total <= limits).all()
        assert 1 <= len(plan.indices) <= plan.rung.max_examples


@given(SIZES, st.integers(1, 20))
def test_a_pack_opens_with_the_example_that_waits_longest(sizes, lookahead):
    waiting = set(range(len(sizes)))
    for plan in plan_packs(sizes, LADDER, lookahead=lookahead):
        oldest = min(waiting)
        assert plan.indices[0] == oldest
        assert max(plan.indices) < oldest + lookahead + len(sizes) - len(waiting)
        waiting -= set(plan.indices)


@given(SIZES)
def test_a_pack_takes_the_smallest_rung_that_holds_it(sizes):
    for plan in plan_packs(sizes, LADDER):
        total = ExampleSize(*np.sum([sizes[i] for i in plan.indices], axis=0).tolist())
        smaller = LADDER[: LADDER.index(plan.rung)]
        assert all(
            total.num_patches > low.max_patches
            or total.num_tokens > low.max_tokens
            or total.num_views > low.max_views
            or len(plan.indices) > low.max_examples
            for low in smaller
        )


@given(SIZES)
def test_a_list_and_an_array_of_sizes_give_the_same_plan(sizes):
    array = np.array(sizes, np.int64).reshape(-1, 3)
    assert plan_packs(sizes, LADDER) == plan_packs(array, LADDER)


def test_rows_like_llava_665k_fill_their_packs():
    """At least 0.97 of patches and 0.95 of tokens; so many that the last packs weigh little."""
    sizes = llava_like_sizes(4_000, seed=1)
    report = packing_report(sizes, plan_packs(sizes, fit_ladder(sizes)))
    assert report.num_examples == 4_000
    assert report.patch_efficiency >= 0.97, str(report)
    assert report.token_efficiency >= 0.95, str(report)


def test_the_ladder_has_the_ratio_of_the_data():
    sizes = [ExampleSize(400, 200, 1), ExampleSize(0, 100, 0)] * 10
    assert fit_ladder(sizes, (1_000, 4_000), multiple=10) == (
        rung(1_000, 750, 8, 16),
        rung(4_000, 3_000, 24, 40),
    )


def test_the_top_rung_holds_the_largest_example():
    sizes = [ExampleSize(100, 10, 1)] * 99 + [ExampleSize(0, 700, 9)]
    (only,) = fit_ladder(sizes, (100,), multiple=128)
    assert (only.max_tokens, only.max_views) == (768, 16)


def test_a_ladder_needs_patches_to_find_a_ratio():
    with pytest.raises(PackingError, match=r"2 examples have no patches.*Give the rungs"):
        fit_ladder([ExampleSize(0, 10, 0)] * 2)


def make_example(grids, num_text, rng, *, labels=None):
    """A random example: its views between text tokens."""
    visual = sum(grid.num_visual_tokens(MERGE) for grid in grids)
    slots = np.concatenate([np.full(num_text, -1), np.arange(visual)]).astype(np.int32)
    patches = sum(grid.num_patches for grid in grids)
    positions = [block_positions(grid, merge_size=MERGE) for grid in grids]
    return Example(
        tokens=rng.integers(1, 100, len(slots), dtype=np.int32),
        slots=slots,
        positions=rng.integers(0, 100, (3, len(slots)), dtype=np.int32),
        loss_mask=rng.random(len(slots)) < 0.5,
        patches=rng.integers(0, 256, (patches, ROW), dtype=np.uint8),
        patch_positions=np.concatenate([np.zeros((0, 2), np.int32), *positions]),
        grids=tuple(grids),
        views=(),
        patch_labels={} if labels is None else {labels: rng.integers(0, 9, patches, np.int32)},
    )


GRIDS = st.builds(lambda h, w: Grid(1, MERGE * h, MERGE * w), *[st.integers(1, 4)] * 2)
EXAMPLES = st.lists(
    st.tuples(st.lists(GRIDS, max_size=3), st.integers(1, 6)), min_size=1, max_size=5
)
ROOMY = rung(1_024, 512, 16, 8)


def unpack(packed):
    """The examples of a pack, read back from its segment ids."""
    views = example_slices(packed.patch_segment_ids)
    examples, first_view, first_visual = [], 0, 0
    for where in example_slices(packed.segment_ids):
        index = packed.visual_index[where]
        visual = int((index >= 0).sum())
        count, tokens = 0, 0
        while tokens < visual:
            tokens += int(packed.grid_thw[first_view + count].prod()) // MERGE**2
            count += 1
        rows = views[first_view : first_view + count]
        here = slice(rows[0].start, rows[-1].stop) if rows else slice(0, 0)
        examples.append(
            Example(
                tokens=packed.tokens[where],
                slots=np.where(index >= 0, index - first_visual, -1).astype(np.int32),
                positions=packed.positions[:, where],
                loss_mask=np.array([False, *packed.loss_mask[where][:-1]]),
                patches=packed.patches[here],
                patch_positions=packed.patch_positions[here],
                grids=tuple(Grid(*g) for g in packed.grid_thw[first_view:][:count].tolist()),
                views=(),
                patch_labels={k: v[here] for k, v in packed.patch_labels.items()},
            )
        )
        first_view, first_visual = first_view + count, first_visual + visual
    return examples


@given(EXAMPLES)
@settings(max_examples=50)
def test_unpacking_gives_the_examples_back(parts):
    rng = np.random.default_rng(0)
    examples = [make_example(grids, text, rng, labels="ink") for grids, text in parts]
    back = unpack(pack(examples, ROOMY))
    assert len(back) == len(examples)
    for one, other in zip(examples, back, strict=True):
        assert one.grids == other.grids
        for field in ("tokens", "slots", "positions", "patches", "patch_positions"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field), field)
            assert getattr(one, field).dtype == getattr(other, field).dtype
        np.testing.assert_array_equal(one.loss_mask[1:], other.loss_mask[1:])
        np.testing.assert_array_equal(one.patch_labels["ink"], other.patch_labels["ink"])


@given(EXAMPLES)
@settings(max_examples=50)
def test_padding_is_zero_and_points_nowhere(parts):
    rng = np.random.default_rng(0)
    examples = [make_example(grids, text, rng, labels="ink") for grids, text in parts]
    packed = pack(examples, ROOMY)
    patches, tokens, views = np.sum([e.size for e in examples], axis=0)
    for name in ("patches", "patch_positions", "patch_segment_ids"):
        assert len(getattr(packed, name)) == ROOMY.max_patches
        assert not getattr(packed, name)[patches:].any()
    for name in ("tokens", "segment_ids", "targets", "loss_mask"):
        assert len(getattr(packed, name)) == ROOMY.max_tokens
        assert not getattr(packed, name)[tokens:].any()
    assert packed.positions.shape == (3, ROOMY.max_tokens)
    assert not packed.positions[:, tokens:].any()
    assert packed.grid_thw.shape == (ROOMY.max_views, 3)
    assert not packed.grid_thw[views:].any()
    assert (packed.visual_index[tokens:] == -1).all()
    assert (packed.patch_labels["ink"][patches:] == -1).all()


@given(EXAMPLES)
@settings(max_examples=50)
def test_targets_are_the_next_token_of_the_same_example(parts):
    rng = np.random.default_rng(0)
    examples = [make_example(grids, text, rng) for grids, text in parts]
    packed = pack(examples, ROOMY)
    for where, example in zip(example_slices(packed.segment_ids), examples, strict=True):
        np.testing.assert_array_equal(packed.targets[where], [*example.tokens[1:], 0])
        np.testing.assert_array_equal(packed.loss_mask[where], [*example.loss_mask[1:], False])


def test_segment_ids_count_views_and_examples_from_one():
    rng = np.random.default_rng(0)
    two, none = [Grid(1, 2, 2), Grid(1, 2, 4)], []
    packed = pack([make_example(two, 1, rng), make_example(none, 2, rng)], rung(16, 8))
    assert packed.patch_segment_ids.tolist() == [1] * 4 + [2] * 8 + [0] * 4
    assert packed.segment_ids.tolist() == [1] * 4 + [2] * 2 + [0] * 2
    assert packed.visual_index.tolist() == [-1, 0, 1, 2] + [-1] * 4


TABLE = PositionTable(side=3, resize="linear_corners")


def made_for_a_tower(grids, rng):
    """An example with what a tower may ask the host for."""
    return dataclasses.replace(
        make_example(grids, 2, rng),
        windows=window_layout(grids, side=2, merge_size=MERGE),
        position_weights=position_weights(grids, TABLE, merge_size=MERGE),
    )


def test_windows_and_position_weights_follow_their_patches_into_the_pack():
    rng = np.random.default_rng(0)
    grids = [[Grid(1, 6, 4)], [], [Grid(1, 2, 8), Grid(1, 4, 4)]]
    packed = pack([made_for_a_tower(some, rng) for some in grids], ROOMY)
    whole = [grid for some in grids for grid in some]
    used = sum(grid.num_patches for grid in whole)
    windows = window_layout(whole, side=2, merge_size=MERGE)
    for found, expected in zip(packed.windows, windows, strict=True):
        np.testing.assert_array_equal(found[:used], expected)
    ids = packed.patch_segment_ids
    np.testing.assert_array_equal(ids[packed.windows.order], ids)  # windows never leave a view
    expected = position_weights(whole, TABLE, merge_size=MERGE)
    np.testing.assert_array_equal(packed.position_weights[:used], expected)
    assert not packed.position_weights[used:].any()


@pytest.mark.parametrize("sides", [{}, {"window_side": 2, "positions": TABLE}])
def test_a_pack_of_padding_has_the_arrays_of_any_other(sides):
    rng = np.random.default_rng(0)
    spec = testing.tiny_spec(testing.tiny_tokenizer())
    example = made_for_a_tower([], rng) if sides else make_example([], 2, rng)
    rows = np.zeros((0, spec.patch_row_size), np.uint8)
    packs = (
        empty_pack(ROOMY, dataclasses.replace(spec, **sides)),
        pack([dataclasses.replace(example, patches=rows)], ROOMY),
    )
    one, other = (jax.tree.map(lambda x: (x.shape, x.dtype), packed) for packed in packs)
    assert one == other


def test_examples_of_two_towers_do_not_share_a_pack():
    rng = np.random.default_rng(0)
    examples = [made_for_a_tower([], rng), make_example([], 2, rng)]
    message = "pack: example 1 has no windows, others have. Assemble all with one spec."
    with pytest.raises(PackingError, match=f"^{message}$"):
        pack(examples, ROOMY)


def test_label_names_make_every_pack_alike():
    rng = np.random.default_rng(0)
    examples = [make_example([Grid(1, 2, 2)], 1, rng)]
    assert pack(examples, ROOMY).patch_labels == {}
    labels = pack(examples, ROOMY, label_names=("ink",)).patch_labels
    assert list(labels) == ["ink"]
    assert (labels["ink"] == -1).all()


def test_an_example_larger_than_the_top_rung_is_named():
    sizes = [ExampleSize(10, 5, 1), ExampleSize(300, 90, 1), ExampleSize(260, 9, 1)]
    with pytest.raises(PackingError) as info:
        plan_packs(sizes, LADDER)
    assert str(info.value) == (
        "pack: example 1 needs 300 patches, but max_patches=256 (over by 44); 2 of 3 examples are "
        "too large. Shrink its views to the budget, choose a policy with fewer visual tokens, or "
        "raise `max_patches`."
    )


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (ExampleSize(0, 97, 0), r"needs 97 tokens, but max_tokens=96 \(over by 1\).*Shorten it"),
        (ExampleSize(8, 9, 9), r"needs 9 views, but max_views=8.*Give it fewer pictures"),
    ],
)
def test_the_resource_that_lacks_is_named(size, message):
    with pytest.raises(PackingError, match=message):
        check_fits([size], LADDER[-1])


def test_examples_that_do_not_fit_together_are_refused():
    rng = np.random.default_rng(0)
    examples = [make_example([Grid(1, 2, 2)], 1, rng), make_example([Grid(1, 4, 4)], 1, rng)]
    with pytest.raises(PackingError) as info:
        pack(examples, rung(16, 96))
    assert str(info.value) == (
        "pack: 2 examples need 20 patches, but max_patches=16 (over by 4). Largest: example 1, 16 "
        "patches. Split them over more packs."
    )


@pytest.mark.parametrize(
    ("ladder", "message"),
    [
        ((), r"the ladder has no rung"),
        ((rung(16, 96), rung(64, 48)), r"is not larger than .* in every field"),
        ((rung(16, 0),), r"holds no example"),
        ((rung(-1, 8),), r"holds no example"),
    ],
)
def test_what_is_no_ladder_is_refused(ladder, message):
    with pytest.raises(PackingError, match=message):
        plan_packs([], ladder)


def test_no_examples_and_no_lookahead_are_refused():
    with pytest.raises(PackingError, match=r"no examples"):
        pack([], ROOMY)
    with pytest.raises(PackingError, match=r"lookahead=0 must be at least 1"):
        plan_packs([], LADDER, lookahead=0)


def test_rows_of_two_models_do_not_share_a_pack():
    rng = np.random.default_rng(0)
    one = make_example([Grid(1, 2, 2)], 1, rng)
    other = make_example([], 1, rng)
    other = type(other)(**{**vars(other), "patches": np.zeros((0, 48), np.uint8)})
    with pytest.raises(PackingError, match=r"patch rows of \[12, 48\] values"):
        pack([one, other], ROOMY)

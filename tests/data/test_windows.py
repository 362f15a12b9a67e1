"""Windows: every patch in one of them, each of them one rectangle, packs as their examples."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mres_jax.data.packing import example_slices
from mres_jax.data.patches import block_positions
from mres_jax.data.windows import pack_windows, window_layout
from mres_jax.geometry import Grid

GRIDS = st.builds(
    lambda t, h, w, m: (Grid(t, m * h, m * w), m),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 3),
)


def test_a_view_of_20_by_12_patches_has_the_windows_of_the_released_model():
    """Ends as `transformers` gives them: 8 x 8 patches, 8 x 4 at the right, 4 rows below."""
    windows = window_layout([Grid(1, 20, 12)], side=4, merge_size=2)
    ends = [part.stop for part in example_slices(windows.segment_ids)]
    assert ends == [64, 96, 160, 192, 224, 240]


@given(GRIDS, st.integers(1, 4))
def test_every_window_is_a_full_rectangle_of_one_frame(made, side):
    grid, merge_size = made
    windows = window_layout([grid], side=side, merge_size=merge_size)
    frame, place = np.divmod(windows.order, grid.h * grid.w)
    places = block_positions(grid, merge_size=merge_size)[place]
    assert sorted(windows.order.tolist()) == list(range(grid.num_patches))
    for where in example_slices(windows.segment_ids):
        assert len(set(frame[where].tolist())) == 1
        corner, far = places[where].min(0), places[where].max(0)
        assert (corner % (side * merge_size) == 0).all()
        extent = far - corner + 1
        left = np.array([grid.h, grid.w]) - corner
        assert extent.tolist() == np.minimum(side * merge_size, left).tolist()
        assert where.stop - where.start == extent.prod()


@given(GRIDS, st.integers(1, 4))
def test_merge_blocks_stay_whole_and_in_order_within_a_window(made, side):
    grid, merge_size = made
    order, ids = window_layout([grid], side=side, merge_size=merge_size)
    blocks = order.reshape(-1, merge_size**2)
    np.testing.assert_array_equal(blocks - blocks[:, :1], [np.arange(merge_size**2)] * len(blocks))
    inside = ids.reshape(-1, merge_size**2)[:, 0]
    falls = (np.diff(blocks[:, 0]) < 0) & (np.diff(inside) == 0)
    assert not falls.any()


def test_views_stand_one_behind_the_other_and_so_do_examples():
    grids = [Grid(1, 6, 4), Grid(1, 2, 2), Grid(2, 4, 10)]
    whole = window_layout(grids, side=2, merge_size=2)
    parts = [window_layout(some, side=2, merge_size=2) for some in (grids[:2], [], grids[2:])]
    packed = pack_windows(parts, 200)
    used = len(whole.order)
    np.testing.assert_array_equal(packed.order[:used], whole.order)
    np.testing.assert_array_equal(packed.segment_ids[:used], whole.segment_ids)
    np.testing.assert_array_equal(packed.order[used:], np.arange(used, 200))
    assert not packed.segment_ids[used:].any()


@pytest.mark.parametrize("grids", [[], [Grid(1, 2, 2)]])
def test_types_are_those_that_travel(grids):
    assert {x.dtype for x in window_layout(grids, side=2, merge_size=2)} == {np.dtype(np.int32)}

"""Taps: what a table says at its points, straight lines between them."""

import numpy as np
from hypothesis import given, strategies as st

from mres_jax.data.patches import block_positions
from mres_jax.data.taps import position_taps
from mres_jax.geometry import Grid

SIDES = st.integers(1, 60)


def read(table: np.ndarray, grid: Grid, merge_size: int) -> np.ndarray:
    """A table `[side side]` as a tower reads it, by frame, row and column of the view."""
    taps = position_taps([grid], side=len(table), merge_size=merge_size)
    values = (table.reshape(-1)[taps.index].astype(np.float64) * taps.weight).sum(axis=1)
    places = np.tile(block_positions(grid, merge_size=merge_size), (grid.t, 1))
    out = np.full(grid, np.nan)
    out[np.repeat(np.arange(grid.t), grid.h * grid.w), places[:, 0], places[:, 1]] = values
    return out


@given(st.integers(1, 2), SIDES, SIDES, st.integers(1, 48), st.integers(1, 2))
def test_a_table_that_rises_evenly_is_read_as_an_even_rise_from_corner_to_corner(
    frames, rows, columns, side, merge_size
):
    grid = Grid(frames, rows * merge_size, columns * merge_size)
    down, right = np.indices((side, side))
    found = read(100 * down + right, grid, merge_size)
    at = [np.linspace(0, side - 1, n) if n > 1 else np.zeros(1) for n in (grid.h, grid.w)]
    expected = 100 * at[0][:, None] + at[1]
    # places of up to 47 in float32, times 100
    np.testing.assert_allclose(found, np.broadcast_to(expected, grid), rtol=0, atol=1e-3)


def test_a_view_of_the_tables_own_size_reads_each_entry_alone():
    side = 6
    taps = position_taps([Grid(1, side, side)], side=side, merge_size=2)
    assert np.array_equal(np.sort(taps.weight, axis=1), [[0, 0, 0, 1]] * side**2)
    table = np.arange(side**2).reshape(side, side)
    np.testing.assert_array_equal(read(table, Grid(1, side, side), 2)[0], table)


def test_views_stand_one_behind_the_other_and_types_are_those_that_travel():
    grids = [Grid(1, 4, 6), Grid(2, 2, 2)]
    whole = position_taps(grids, side=5, merge_size=2)
    parts = [position_taps([grid], side=5, merge_size=2) for grid in grids]
    for together, *alone in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(together, np.concatenate(alone))
    none = position_taps([], side=5, merge_size=2)
    assert [(x.shape, x.dtype) for x in none] == [
        ((0, 4), np.dtype(np.int32)),
        ((0, 4), np.dtype(np.float32)),
    ]

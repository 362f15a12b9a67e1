"""Position weights: what a table says at its points, straight lines between them."""

import numpy as np
from hypothesis import given, strategies as st

from mres_jax.data.patches import block_positions
from mres_jax.data.position_weights import position_weights
from mres_jax.data.spec import PositionTable
from mres_jax.geometry import Grid

SIDES = st.integers(1, 60)


def linear(side: int) -> PositionTable:
    return PositionTable(side=side, resize="linear_corners")


def read(table: np.ndarray, grid: Grid, merge_size: int) -> np.ndarray:
    """A table `[side side]` as a tower reads it, by frame, row and column of the view."""
    weights = position_weights([grid], linear(len(table)), merge_size=merge_size)
    values = np.einsum("pi,pj,ij->p", weights[:, 0], weights[:, 1], table.astype(np.float64))
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
    # weights rounded to float32, times values of up to 4,747
    np.testing.assert_allclose(found, np.broadcast_to(expected, grid), rtol=0, atol=1e-3)


def test_a_view_of_the_tables_own_size_reads_each_entry_alone():
    side = 6
    for resize in ("none", "bicubic", "bicubic_antialias", "linear_corners", "linear_antialias"):
        table = PositionTable(side=side, resize=resize)
        weights = position_weights([Grid(1, side, side)], table, merge_size=2)
        places = block_positions(Grid(1, side, side), merge_size=2)
        np.testing.assert_array_equal(weights, np.eye(side)[places])


def test_views_stand_one_behind_the_other_and_types_are_those_that_travel():
    grids = [Grid(1, 4, 6), Grid(2, 2, 2)]
    whole = position_weights(grids, linear(5), merge_size=2)
    alone = [position_weights([grid], linear(5), merge_size=2) for grid in grids]
    np.testing.assert_array_equal(whole, np.concatenate(alone))
    none = position_weights([], linear(5), merge_size=2)
    assert (none.shape, none.dtype) == ((0, 2, 5), np.dtype(np.float32))

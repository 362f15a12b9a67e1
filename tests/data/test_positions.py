"""Rotary positions of prompts, by rule."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mres_jax.data.positions import POSITION_RULES, rotary_positions
from mres_jax.errors import ConfigError, PromptError
from mres_jax.geometry import Grid

MERGE = 2
GRIDS = st.builds(lambda h, w: Grid(1, MERGE * h, MERGE * w), *[st.integers(1, 9)] * 2)
RUNS = st.lists(st.integers(0, 9) | GRIDS, max_size=8)


def test_mrope_of_text_picture_text():
    """3 text tokens, a grid of 4 x 6 patches, 3 text tokens: the values of the released model."""
    positions = rotary_positions("mrope", [3, Grid(1, 4, 6), 3], merge_size=2)
    assert positions.tolist() == [
        [0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7, 8],
        [0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7, 8],
        [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8],
    ]
    assert positions.max() + 1 - positions.shape[1] == -3


@given(RUNS)
def test_every_rule_gives_three_rows_over_all_tokens(runs):
    length = sum(r.num_visual_tokens(MERGE) if isinstance(r, Grid) else r for r in runs)
    for rule in POSITION_RULES:
        positions = rotary_positions(rule, runs, merge_size=MERGE)
        assert positions.shape == (3, length)
        assert positions.dtype == np.int32


@given(RUNS)
def test_plain_counts_every_token(runs):
    positions = rotary_positions("plain", runs, merge_size=MERGE)
    assert (positions == np.arange(positions.shape[1])).all()


@given(st.lists(st.integers(0, 9), max_size=8))
def test_mrope_of_text_alone_is_plain(runs):
    rows = [rotary_positions(rule, runs, merge_size=MERGE) for rule in ("plain", "mrope")]
    np.testing.assert_array_equal(*rows)


@given(RUNS, GRIDS)
def test_mrope_text_after_a_picture_stands_behind_all_of_it(runs, grid):
    positions = rotary_positions("mrope", [*runs, grid, 1], merge_size=MERGE)
    assert (positions[:, -1] == positions[:, :-1].max() + 1).all()


def test_an_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match=r"unknown rule '3d'; have plain, mrope"):
        rotary_positions("3d", [1], merge_size=2)


@pytest.mark.parametrize("grid", [Grid(1, 3, 4), Grid(1, 4, 0), Grid(0, 4, 4)])
@pytest.mark.parametrize("rule", POSITION_RULES)
def test_a_grid_that_is_not_whole_visual_tokens_is_refused(rule, grid):
    with pytest.raises(PromptError, match=r"not whole visual tokens of 2 x 2 patches"):
        rotary_positions(rule, [grid], merge_size=2)


def test_mrope_refuses_clips():
    with pytest.raises(PromptError, match=r"grid_thw=\(2, 4, 4\) is a clip"):
        rotary_positions("mrope", [Grid(2, 4, 4)], merge_size=2)

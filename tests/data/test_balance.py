"""Packs in order of their attention: none lost, and ranks that compute a step are even."""

import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mres_jax.data.balance import attention_pairs, balanced_order
from mres_jax.data.ladder import fit_ladder
from mres_jax.data.packing import plan_packs
from mres_jax.data.types import ExampleSize, Rung
from mres_jax.testing.mixtures import llava_like_sizes
from mres_jax.training.meshes import slowest_and_mean

RANKS = 8
LADDER = tuple(
    Rung(max_patches=size, max_tokens=size, max_views=4, max_examples=4) for size in (8, 16, 32)
)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50)), max_size=40), st.integers(0, 12))
def test_every_pack_stays_once_in_its_window(packs, window):
    rungs, pairs = [LADDER[rung] for rung, _ in packs], [count for _, count in packs]
    order = balanced_order(rungs, pairs, window)
    size = window or 1
    for first in range(0, len(packs), size):
        part = order[first : first + size]
        assert sorted(part) == list(range(first, min(first + size, len(packs))))
    for low, high in itertools.pairwise(order[:window]):
        assert packs[low] <= packs[high]


def test_pairs_are_of_views_and_of_tokens():
    sizes = [ExampleSize(8, 10, 2), ExampleSize(0, 3, 0)]
    assert attention_pairs(sizes).tolist() == [2 * 4**2 + 10**2, 9]


def test_a_step_takes_as_long_as_the_dearest_pack_of_each_group():
    rungs, costs = ["a", "b", "a", "a"], [5, 7, 1, 2]
    assert slowest_and_mean(costs, rungs, 2) == (5 + 2 + 7, (5 + 7 + 1 + 2) / 2)


@pytest.mark.parametrize("begins", [0, 3], ids=["at a window", "inside one"])
def test_ranks_are_even_wherever_steps_begin_on_sizes_like_public_data(begins):
    sizes = llava_like_sizes(6_000)
    plans = plan_packs(sizes, fit_ladder(sizes, (8_192,)), lookahead=32)
    each = attention_pairs(sizes)
    pairs = np.array([each[list(plan.indices)].sum() for plan in plans])
    rungs = [plan.rung for plan in plans]

    def imbalance(order) -> float:
        steps = range(begins, len(order) - RANKS, RANKS)
        sums = [
            slowest_and_mean(pairs[order[at : at + RANKS]].tolist(), [0] * RANKS, RANKS)
            for at in steps
        ]
        slowest, mean = np.sum(sums, axis=0)
        return slowest / mean - 1

    drawn = imbalance(np.arange(len(plans)))
    even = imbalance(np.array(balanced_order(rungs, pairs, 32 * RANKS)))
    assert even < 0.05 < 0.5 < drawn

"""Heights at which text is read, and pairs of policies, on counts known beforehand."""

import dataclasses
import math

import pytest

from mres_jax.data.documents import Question
from mres_jax.evaluation.legibility import (
    HeightCount,
    compare,
    count_heights,
    legibility_limit,
    rising_shares,
)
from mres_jax.evaluation.trials import Trial
from mres_jax.geometry import Box, Size, View
from mres_jax.testing import said

ANSWER = said("7", views=(View(item=0, crop=Box(0, 0, 100, 100), size=Size(50, 50)),))


def make_trial(name: str, is_right: bool, *, height: int = 10, kind: str = "rc") -> Trial:
    question = Question(
        id=name,
        text="What is the total?",
        answer="7",
        type=kind,  # type: ignore[arg-type]
        scorer="exact",
        box=None,
        text_height=height,
        tags=("total", "invoice", "C", "NM"),
    )
    answer = dataclasses.replace(ANSWER, text="7" if is_right else "1")
    return Trial(question, "scale:0.5", answer)


def test_heights_are_those_of_the_view_in_half_pixels_and_of_reading_only():
    trials = [
        make_trial("a", True, height=10),
        make_trial("b", False, height=11),
        make_trial("c", True, height=11),
        make_trial("d", True, height=11, kind="sc"),
    ]
    assert count_heights(trials) == [HeightCount(5.0, 1, 1), HeightCount(5.5, 2, 1)]


def test_shares_never_fall_and_keep_the_whole():
    counts = [HeightCount(float(i), 10, right) for i, right in enumerate((1, 5, 3, 4, 9, 8, 10))]
    shares = rising_shares(counts)
    assert shares == sorted(shares)
    assert 10 * sum(shares) == pytest.approx(sum(count.num_right for count in counts))
    assert shares[1:4] == [0.4, 0.4, 0.4]


@pytest.mark.parametrize(
    ("right", "limit"),
    [
        ((0, 0, 10, 10), 4.75),  # half way between the middles of the bins at 4 and at 5 px
        ((10, 10, 10, 10), 3.25),  # all are read: no lower than what was measured
        ((0, 1, 2, 4), math.inf),
        ((6, 0, 3, 7), 5.25 + 0.2 / 0.4),  # a lucky low bin counts with those above it: 0.3
    ],
)
def test_the_limit_is_where_half_of_the_values_are_read(right, limit):
    counts = [HeightCount(3.0 + i, 10, n) for i, n in enumerate(right)]
    assert legibility_limit(counts) == pytest.approx(limit)


def test_pairs_are_the_same_questions_and_only_those_that_are_kept():
    first = [make_trial(name, name in "abc") for name in "abcde"]
    second = [make_trial(name, name in "ae", height=4 if name in "bd" else 20) for name in "aebdz"]
    found = compare(first, second)
    assert found.num_questions == 4  # c has no partner, z none either
    assert (found.first, found.second) == (0.5, 0.5)
    assert found.difference.mean == 0.0
    low = compare(first, second, keep=lambda _, other: other.text_height < 5)
    assert (low.num_questions, low.first, low.second) == (2, 0.5, 0.0)
    assert low.difference.mean == 0.5


def test_no_pairs_say_nothing():
    found = compare([], [])
    assert found.num_questions == 0
    assert math.isnan(found.first)
    assert (found.difference.low, found.difference.high) == (-1.0, 1.0)

"""Means of scores and their differences, with intervals that know which questions hang together.

Axes: n questions, g groups, z resamples.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from mres_jax.scoring import Interval, paired_interval, wilson_interval

SAMPLES = 2_000
SEED = 0


def mean_interval(scores: Sequence[float], groups: Sequence[str]) -> Interval:
    """Returns the mean of scores with its 95 % interval.

    Wilson's where all are 0 or 1 and no two questions are of one group, and where all are alike,
    with a trial per group; else that of a bootstrap of groups.

    Args:
      scores: 0 to 1, at least one.
      groups: of each; questions of a group are drawn together.
    """
    values = np.asarray(scores, np.float64)
    numbers = group_numbers(groups)
    num_groups, mean = int(numbers.max()) + 1, float(values.mean())
    is_binary = bool(((values == 0) | (values == 1)).all())
    if is_binary and (num_groups == len(values) or mean in (0.0, 1.0)):
        low, high = wilson_interval(mean * num_groups, num_groups)[1:]
        return Interval(mean, low, high)
    drawn = resample_means(values[None], numbers)[0]
    return Interval(mean, *_middle(drawn))


def difference_interval(
    first: Sequence[float], second: Sequence[float], groups: Sequence[str]
) -> tuple[Interval, float]:
    """Returns mean of first less mean of second, paired, and the share of resamples above 0.

    The interval is that of a bootstrap of groups; where no question differs, which no resample
    could tell from a difference of nothing, that of as many equal pairs. Resamples in which both
    are equal count half.

    Args:
      first, second: scores of the same questions.
      groups: of each.
    """
    values, numbers = np.asarray([first, second], np.float64), group_numbers(groups)
    if (values[0] == values[1]).all():
        return paired_interval(0, 0, int(numbers.max()) + 1), 0.5
    drawn = resample_means(values, numbers)
    differences = drawn[0] - drawn[1]
    ahead = float((differences > 0).mean() + (differences == 0).mean() / 2)
    mean = float((values[0] - values[1]).mean())
    return Interval(mean, *_middle(differences)), ahead


def group_numbers(groups: Sequence[str]) -> Int[np.ndarray, " n"]:
    """Returns groups as numbers from 0, in the order in which they come."""
    places: dict[str, int] = {}
    return np.array([places.setdefault(group, len(places)) for group in groups], np.int64)


def resample_means(
    values: Float[np.ndarray, "k n"], numbers: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "k z"]:
    """Returns the means of resamples; groups are drawn with replacement, the same for all rows.

    Args:
      values: k scores of each question.
      numbers: group of each question, from 0.
    """
    num_groups = int(numbers.max()) + 1
    counts = np.bincount(numbers, minlength=num_groups).astype(np.float64)
    sums = np.stack([np.bincount(numbers, weights=row, minlength=num_groups) for row in values])
    rng = np.random.Generator(np.random.PCG64(SEED))
    means = np.empty((len(values), SAMPLES))
    for z in range(SAMPLES):
        weights = np.bincount(rng.integers(num_groups, size=num_groups), minlength=num_groups)
        means[:, z] = sums @ weights / (counts @ weights)
    return means


def _middle(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5)).tolist()
    return low, high

"""Two models on the same items: differences by cell, paired."""

from typing import NamedTuple

import numpy as np

from mres_jax.errors import MresError
from mres_jax.evaluation.rc_bench.cuts import CELLS
from mres_jax.evaluation.rc_bench.results import SAMPLES, Result
from mres_jax.evaluation.rc_bench.variation import (
    ALIKE,
    SHAPE,
    cell_means,
    cell_numbers,
    resample,
)
from mres_jax.scoring import Interval, paired_interval


class Difference(NamedTuple):
    """The first model's mean score less the second's.

    Attributes:
      accuracy: over all items, with its 95 % interval: of the bootstrap, or as in the cells where
        all resamples agree.
      counts: items, `int64 [a r]`.
      means: by cell, `float64 [a r]`.
      low, high: 95 % interval by cell, `float64 [a r]`: `paired_interval`, which is sound for few
        items and for such as do not differ; -1 to 1 where there are none.
    """

    accuracy: Interval
    counts: np.ndarray
    means: np.ndarray
    low: np.ndarray
    high: np.ndarray


def subtract(first: Result, second: Result, *, samples: int = SAMPLES, seed: int = 0) -> Difference:
    """Returns the paired difference of two models on one set.

    Args:
      first, second: results on the same set.
      samples, seed: of the bootstrap.

    Raises:
      MresError: they are of different sets.
    """
    digests = [result.summary["set"]["sha256"] for result in (first, second)]
    order = {name: i for i, name in enumerate(second.ids)}
    if digests[0] != digests[1] or set(order) != set(first.ids):
        names = [result.summary["set"]["name"] for result in (first, second)]
        raise MresError(
            f"rcbench: {first.name} is on the set {names[0]} ({digests[0][:8]}), {second.name} on "
            f"{names[1]} ({digests[1][:8]}). Differences are of answers to the same questions."
        )
    other = second.scores[[order[name] for name in first.ids]]
    scores = np.stack([first.scores, other])
    drawn = resample(scores, first.cells, samples=samples, seed=seed)
    apart, numbers = scores[0] - scores[1], cell_numbers(first.cells)
    cells = [_of_pairs(apart[numbers == cell]) for cell in range(len(CELLS))]
    _, low, high = (np.array(each).reshape(SHAPE) for each in zip(*cells, strict=True))
    counts, means = cell_means(apart, first.cells)
    differences = ((drawn[0] - drawn[1]) * counts / counts.sum()).sum(axis=(1, 2))
    overall = _of_pairs(apart)
    if np.ptp(differences) > ALIKE:
        ends = np.percentile(differences, (2.5, 97.5)).clip(-1.0, 1.0).tolist()
        overall = Interval(overall.mean, *ends)
    return Difference(overall, counts, means, low, high)


def _of_pairs(apart: np.ndarray) -> Interval:
    """Mean of the differences of some items; one of a half is half a pair."""
    more, less = (float(np.maximum(x, 0.0).sum()) for x in (apart, -apart))
    return paired_interval(more, less, len(apart))

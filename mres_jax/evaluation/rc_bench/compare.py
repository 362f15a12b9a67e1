"""Two models on the same items: differences by cell, paired."""

from typing import NamedTuple

import numpy as np

from mres_jax.errors import MresError
from mres_jax.evaluation.rc_bench.results import SAMPLES, Result
from mres_jax.evaluation.rc_bench.variation import cell_means, resample
from mres_jax.scoring import Interval


class Difference(NamedTuple):
    """The first model's mean score less the second's.

    Attributes:
      accuracy: over all items, with its 95 % interval.
      counts: items, `int64 [a r]`.
      means: by cell, `float64 [a r]`.
      low, high: 95 % interval by cell, `float64 [a r]`.
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
    counts, means = cell_means(scores[0] - scores[1], first.cells)
    differences = drawn[0] - drawn[1]
    overall = (differences * counts / counts.sum()).sum(axis=(1, 2))
    low, high = np.percentile(differences, (2.5, 97.5), axis=0)
    ends = np.percentile(overall, (2.5, 97.5)).tolist()
    return Difference(
        Interval(float((scores[0] - scores[1]).mean()), *ends), counts, means, low, high
    )

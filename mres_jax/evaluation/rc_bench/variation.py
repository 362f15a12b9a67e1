"""Accuracy by cell, how much it varies over areas and over ratios, and intervals of all of it.

Axes: a area bins, r ratio bins, n items, z resamples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mres_jax.errors import MresError
from mres_jax.evaluation.rc_bench.cuts import AREAS, CELLS, RATIOS
from mres_jax.scoring import Interval, wilson_interval

SHAPE = (len(AREAS), len(RATIOS))
ALIKE = 1e-9  # resamples that differ by less differ by rounding


class Variation(NamedTuple):
    """A coefficient of variation, %.

    Attributes:
      value: sample standard deviation over mean, or None: fewer than two bins, or a mean of 0.
      interval: 95 %, of the bootstrap; None where some resample has no value, or all are alike.
      noise: what `value` would be about if all bins were equally good and only the few items in
        each made them differ; None where a cell has one item only.
    """

    value: float | None
    interval: tuple[float, float] | None
    noise: float | None


class Means(NamedTuple):
    """Means of scores, with 95 % intervals of the bootstrap; Wilson's where all resamples agree.

    Attributes:
      accuracy: over items.
      areas: by area bin, over its cells; those without items are left out.
      ratios: by ratio bin, likewise.
      acv: over area bins.
      rcv: over ratio bins.
    """

    accuracy: Interval
    areas: dict[str, Interval]
    ratios: dict[str, Interval]
    acv: Variation
    rcv: Variation


def coefficient_of_variation(means: Sequence[float]) -> float | None:
    """Returns the sample standard deviation (n - 1) over the mean, %; None where there is none.

    Reference:
      ACV and RCV of RC-Bench (arXiv:2506.12776). That n - 1 divides is inferred from the published
      maps: n would be 1 to 2 points off.

    Example:
      >>> round(coefficient_of_variation([0.4, 0.5, 0.6]), 6)
      20.0
    """
    values = np.asarray(means, np.float64)
    if len(values) < 2 or not values.mean():
        return None
    return float(100 * values.std(ddof=1) / values.mean())


def measure(
    scores: np.ndarray, cells: Sequence[tuple[str, str]], *, samples: int, seed: int
) -> Means:
    """Returns the means of scores with their intervals.

    Args:
      scores: `float64 [n]`, 0 to 1.
      cells: of each.
      samples: resamples of the bootstrap, which draws items within their cells.
      seed: of the bootstrap.
    """
    (drawn,) = resample(scores[None], cells, samples=samples, seed=seed)
    counts, means = cell_means(scores, cells)
    share = counts / counts.sum()
    resamples = (drawn * share).sum(axis=(1, 2))
    has, noise = counts > 0, _noise(scores, cells, counts)
    return Means(
        accuracy=_interval(float(scores.mean()), resamples, len(scores)),
        areas=_bins(AREAS, means, drawn, counts, axis=1),
        ratios=_bins(RATIOS, means, drawn, counts, axis=0),
        acv=_variation(means, drawn, has, noise, axis=1),
        rcv=_variation(means, drawn, has, noise, axis=0),
    )


def cell_means(
    scores: np.ndarray, cells: Sequence[tuple[str, str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns items `int64 [a r]` and mean score `float64 [a r]`, 0 where there are no items."""
    index = cell_numbers(cells)
    counts = np.bincount(index, minlength=len(CELLS)).reshape(SHAPE)
    sums = np.bincount(index, weights=scores, minlength=len(CELLS)).reshape(SHAPE)
    return counts, sums / np.maximum(counts, 1)


def cell_numbers(cells: Sequence[tuple[str, str]]) -> np.ndarray:
    """Returns the place of each cell in `CELLS`, `int64 [n]`."""
    return np.array([CELLS.index(cell) for cell in cells], np.int64)


def resample(
    scores: np.ndarray, cells: Sequence[tuple[str, str]], *, samples: int, seed: int
) -> np.ndarray:
    """Returns mean scores of resampled items by cell, `[k z a r]`.

    Of the n items of a cell, n - 1 are drawn with replacement: so the variance of a resampled mean
    is s^2 / n with the unbiased s^2, where n draws would give (n - 1) / n of it. A cell of one item
    says nothing of its spread. Its mean is moved by the deviation of an item drawn from the whole
    set, which is too wide rather than too narrow: between cells there are differences too.
    Means of such cells may leave [0, 1]. All of `scores` see the same draws, which makes
    differences paired.

    Args:
      scores: `float64 [k n]`, of k models on the same items.
      cells: of each item.
      samples: number of resamples, z.
      seed: equal seeds draw equally, whatever the order of items in other cells.

    Reference:
      Rao and Wu, 1988, "Resampling inference with complex survey data", with n - 1 draws, which
      leaves nothing to rescale; Cochran, 1977, "Sampling techniques", 5A.12, on strata of one.
    """
    if not 1 <= samples <= 100_000:
        raise MresError(f"bootstrap: {samples} resamples; 1 to 100,000 are possible.")
    drawn = np.zeros((len(scores), samples, len(CELLS)))
    numbers = cell_numbers(cells)
    total = len(numbers)
    whole = scores[:, np.argsort(numbers, kind="stable")]
    deviations = (whole - whole.mean(axis=1, keepdims=True)) * (total / max(total - 1, 1)) ** 0.5
    for cell in np.unique(numbers):
        mine = scores[:, numbers == cell]
        rng = np.random.Generator(np.random.PCG64([seed, int(cell)]))
        count = mine.shape[1]
        if count == 1:
            drawn[:, :, cell] = mine + deviations[:, rng.integers(total, size=samples)]
            continue
        picks = rng.integers(count, size=(samples, count - 1))
        for model, own in enumerate(mine):
            drawn[model, :, cell] = own[picks].mean(axis=1)
    return drawn.reshape(len(scores), samples, *SHAPE)


def bin_means(means: np.ndarray, has: np.ndarray, *, axis: int) -> np.ndarray:
    """Returns the means over cells along an axis, of the bins that have items.

    Args:
      means: `[*b a r]`.
      has: which cells have items, `bool [a r]`.
      axis: of `[a r]` that goes.
    """
    count = has.sum(axis=axis)
    sums = np.where(has, means, 0.0).sum(axis=axis - 2)
    return sums[..., count > 0] / count[count > 0]


def _bins(
    names: Sequence[str], means: np.ndarray, drawn: np.ndarray, counts: np.ndarray, *, axis: int
) -> dict[str, Interval]:
    has = counts > 0
    present = [names[i] for i in np.flatnonzero(has.any(axis=axis)).tolist()]
    middles = bin_means(means, has, axis=axis)
    resamples = bin_means(drawn, has, axis=axis)
    # as many items as would tell as much, were cells not weighted alike
    shares = bin_means(1 / np.maximum(counts, 1), has, axis=axis)
    items = has.sum(axis=axis)[has.any(axis=axis)] / shares
    return {
        name: _interval(float(middles[i]), resamples[:, i], round(items[i]))
        for i, name in enumerate(present)
    }


def _interval(mean: float, resamples: np.ndarray, items: int) -> Interval:
    """The middle of the resamples; Wilson's where they agree, which is no certainty."""
    low, high = _middle(resamples)
    if high - low < ALIKE:
        return Interval(mean, *wilson_interval(mean * items, items)[1:])
    return Interval(mean, max(0.0, low), min(1.0, high))


def _variation(
    means: np.ndarray, drawn: np.ndarray, has: np.ndarray, noise: np.ndarray | None, *, axis: int
) -> Variation:
    middles, resamples = (bin_means(x, has, axis=axis) for x in (means, drawn))
    value = coefficient_of_variation(middles.tolist())
    if value is None:
        return Variation(None, None, None)
    averages = resamples.mean(axis=1)
    interval = None
    if (averages > 0).all() and np.ptp(resamples, axis=0).max() > ALIKE:
        interval = _middle(100 * resamples.std(axis=1, ddof=1) / averages)
    if noise is None:
        return Variation(value, interval, None)
    # variance of a bin's mean: that of the mean of the means of its cells
    of_bins = np.where(has, noise, 0.0).sum(axis=axis)[has.any(axis=axis)]
    of_bins = of_bins / has.sum(axis=axis)[has.any(axis=axis)] ** 2
    return Variation(value, interval, float(100 * np.sqrt(of_bins.mean()) / middles.mean()))


def _noise(
    scores: np.ndarray, cells: Sequence[tuple[str, str]], counts: np.ndarray
) -> np.ndarray | None:
    """Variance of each cell's mean, `[a r]`; None where a cell has one item only."""
    if (counts == 1).any():
        return None
    _, means = cell_means(scores, cells)
    _, squares = cell_means(scores**2, cells)
    return (squares - means**2) / np.maximum(counts - 1, 1)


def _middle(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5)).tolist()
    return low, high

"""Meaningful complexity: how many kinds of parts a picture has, at four scales.

Axes: h, w positions, H, W windows, c coordinates, n positions of a sample, k clusters.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mres_jax.errors import MresError
from mres_jax.resolution.complexity.mixture import (
    MIN_VARIANCE,
    Mixture,
    fit_mixture,
    spread_centres,
)
from mres_jax.resolution.complexity.thumbnail import SIDE, Image, thumbnail

LEVELS, MAX_CLUSTERS = 4, 8
SAMPLE = 4_096  # positions that mixtures are fitted on
PARAMETER_BITS = 32
SMALL = 10_000  # positions; smaller maps are summed over smaller windows
MAX_AXES, KEPT_AXES = 3, 2  # more coordinates are projected on the main axes

Map = Float[np.ndarray, "h w c"]


class Level(NamedTuple):
    """What one scale of a picture came to.

    Attributes:
      clusters: kinds of positions of the shortest description; 0 where none beats listing them.
      bits: entropy of what stands in the windows; 0 where there are fewer than two kinds.
    """

    clusters: int
    bits: float


def mdl_complexity(image: Image, *, side: int = SIDE, sample: int = SAMPLE) -> float:
    """Returns the meaningful complexity of a picture, bits: near 0 for a flat one and for noise.

    Positions are clustered by the mixture with the shortest description, windows are described by
    the clusters in them, and so on at four scales; each gives the entropy of its windows.

    Reference:
      Mahon and Lukasiewicz, 2024, "Minimum description length clustering to measure meaningful
      image complexity", Pattern Recognition 145, 109889. Ours: mixtures are fitted on `sample`
      positions, begin at the points that lie farthest apart and take a fixed number of steps, so
      that a picture has one number; entropies are those of all windows.

    Args:
      image: upright RGB.
      side: it is resized to the area of a square of this side, px.
      sample: positions that mixtures are fitted on.
    """
    return sum(level.bits for level in mdl_levels(image, side=side, sample=sample))


def mdl_levels(image: Image, *, side: int = SIDE, sample: int = SAMPLE) -> list[Level]:
    """Returns the scales of a picture, the finest first; after one without clusters there is none.

    Raises:
      MresError: a sample too small to tell clusters apart.
    """
    if sample < 2 * MAX_CLUSTERS:
        raise MresError(f"complexity: sample={sample} must be at least {2 * MAX_CLUSTERS}.")
    features: Map = thumbnail(image, side=side) / 255.0
    levels: list[Level] = []
    for number in range(LEVELS):
        labels, clusters = _cluster(features, sample)
        if clusters < 2:
            return [*levels, Level(clusters, 0.0)]
        features = _window_counts(labels, clusters, _window(labels, number))
        levels.append(Level(clusters, _entropy(features)))
    return levels


def description_bits(points: Float[np.ndarray, "n c"], mixture: Mixture, spread: float) -> float:
    """Returns the bits that a mixture and these points, given the mixture, take.

    Parameters, then for each point its cluster and its place in it; a point whose place costs more
    than listing it is listed instead.

    Args:
      points: what is described.
      mixture: describes them.
      spread: largest less smallest value of the data, over all axes.
    """
    axes = points.shape[1]
    listed = axes * math.log2(spread)
    own = mixture.assign(points)
    places = -mixture.log_densities(points)[np.arange(len(points)), own] / math.log(2)
    inside = places <= listed
    counts = np.bincount(own, minlength=len(mixture.weights))
    names = np.log2(len(points) / counts[own])
    bits = (names + places)[inside].sum() + (~inside).sum() * listed
    return float(bits + parameter_bits(mixture, spread))


def parameter_bits(mixture: Mixture, spread: float) -> float:
    """Returns the bits that the means and variances of a mixture take."""
    return 2 * mixture.means.size * (math.log2(spread) + PARAMETER_BITS)


def _cluster(features: Map, sample: int) -> tuple[Int[np.ndarray, "h w"], int]:
    """Labels of all positions, and how many there are; 0 where listing all is shortest."""
    flat = features.reshape(-1, features.shape[-1])
    spread = float(flat.max() - flat.min())
    if spread == 0:
        return np.zeros(features.shape[:2], np.int64), 0
    flat = _main_axes(flat) if flat.shape[1] > MAX_AXES else flat
    spread = float(flat.max() - flat.min())
    chosen = np.random.default_rng(0).permutation(len(flat))[:sample]
    points = flat[np.sort(chosen)]
    best = _shortest(points, spread, times=len(flat) / len(points))
    if best is None:
        return np.zeros(features.shape[:2], np.int64), 0
    _, labels = np.unique(best.assign(flat), return_inverse=True)
    return labels.reshape(features.shape[:2]), int(labels.max()) + 1


def _shortest(points: Float[np.ndarray, "n c"], spread: float, *, times: float) -> Mixture | None:
    """The mixture with the shortest description; None where listing the points is shorter.

    A sample stands for all positions: its bits count `times`, parameters once.
    """
    centres, best = spread_centres(points, MAX_CLUSTERS), None
    least = times * points.size * math.log2(spread)
    for count in range(1, MAX_CLUSTERS + 1):
        mixture = fit_mixture(points, centres[:count], min_variance=MIN_VARIANCE * spread**2)
        model = parameter_bits(mixture, spread)
        bits = model + times * (description_bits(points, mixture, spread) - model)
        if bits < least:
            best, least = mixture, bits
    return best


def _main_axes(flat: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n 2"]:
    """The coordinates along the axes of greatest variance."""
    centred = flat - flat.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return centred @ axes[:, ::-1][:, :KEPT_AXES]


def _window(labels: Int[np.ndarray, "h w"], level: int) -> int:
    """Side of the windows of a scale, positions."""
    side = 4 * 2**level if labels.size > SMALL else 2 * (level + 1)
    return min(side, *labels.shape)


def _window_counts(
    labels: Int[np.ndarray, "h w"], clusters: int, side: int
) -> Float[np.ndarray, "H W k"]:
    """How often each cluster stands in each window."""
    kinds = np.pad(np.eye(clusters)[labels], ((1, 0), (1, 0), (0, 0)))
    sums = kinds.cumsum(0).cumsum(1)
    tall = sums[side:] - sums[:-side]
    return tall[:, side:] - tall[:, :-side]


def _entropy(counts: Map) -> float:
    """Entropy of the different count vectors, bits."""
    flat = counts.reshape(-1, counts.shape[-1]).astype(np.uint64)
    # equal vectors have equal sums of products with odd numbers, and different ones hardly ever
    factors = np.random.default_rng(1).integers(0, 2**63, flat.shape[1], np.uint64) * 2 + 1
    _, sizes = np.unique((flat * factors).sum(1), return_counts=True)
    shares = sizes / sizes.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0

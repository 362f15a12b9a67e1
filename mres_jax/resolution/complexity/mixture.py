"""Gaussian mixtures of independent axes, fitted without any chance.

Axes: n points, c coordinates, k components.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

MIN_VARIANCE = 1e-6  # of the squared range of the data, and the least of any component
LLOYD_STEPS, EM_STEPS = 4, 8

Points = Float[np.ndarray, "n c"]
Centres = Float[np.ndarray, "k c"]


class Mixture(NamedTuple):
    """Weights, means and variances of the components.

    Attributes:
      weights: shares of the points, summing to 1.
      means: of each axis.
      variances: of each axis, in squared units of the data.
    """

    weights: Float[np.ndarray, " k"]
    means: Float[np.ndarray, "k c"]
    variances: Float[np.ndarray, "k c"]

    def log_densities(self, points: Points) -> Float[np.ndarray, "n k"]:
        """Natural logarithm of the density of every component alone, its weight left out."""
        precisions = 1 / self.variances
        squares = (
            points**2 @ precisions.T
            - 2 * points @ (self.means * precisions).T
            + (self.means**2 * precisions).sum(1)
        )
        return -0.5 * (squares + np.log(2 * math.pi * self.variances).sum(1))

    def assign(self, points: Points) -> Int[np.ndarray, " n"]:
        """The likeliest component of each point, its weight counted."""
        return (self.log_densities(points) + np.log(self.weights)).argmax(1)


def spread_centres(points: Points, count: int) -> Centres:
    """Returns `count` centres: the mean, then each time the point farthest from all before it.

    The first `k` of them are the centres for `k` components.

    Reference:
      Gonzalez, 1985, "Clustering to minimize the maximum intercluster distance".
    """
    centres = [points.mean(0)]
    nearest = ((points - centres[0]) ** 2).sum(1)
    for _ in range(count - 1):
        centres.append(points[nearest.argmax()])
        nearest = np.minimum(nearest, ((points - centres[-1]) ** 2).sum(1))
    return np.stack(centres)


def fit_mixture(points: Points, centres: Centres, *, min_variance: float) -> Mixture:
    """Returns a mixture with one component per centre that keeps any points.

    A few steps of Lloyd's, then of EM; the numbers of steps are fixed, so equal points give equal
    mixtures.
    """
    for _ in range(LLOYD_STEPS):
        shares = _nearest(points, centres)
        totals = shares.sum(0)
        centres = (shares.T @ points)[totals > 0] / totals[totals > 0, None]
    mixture = _maximize(points, _nearest(points, centres), min_variance)
    for _ in range(EM_STEPS):
        scores = mixture.log_densities(points) + np.log(mixture.weights)
        shares = np.exp(scores - scores.max(1, keepdims=True))
        mixture = _maximize(points, shares / shares.sum(1, keepdims=True), min_variance)
    return mixture


def _nearest(points: Points, centres: Centres) -> Float[np.ndarray, "n k"]:
    distances = (centres**2).sum(1) - 2 * points @ centres.T
    return np.eye(len(centres))[distances.argmin(1)]


def _maximize(points: Points, shares: Float[np.ndarray, "n k"], least: float) -> Mixture:
    """Weights, means and variances of points that belong to components by `shares`."""
    totals = shares.sum(0)
    kept = totals > 1e-9
    shares, totals = shares[:, kept], totals[kept]
    means = (shares.T @ points) / totals[:, None]
    squares = (shares.T @ points**2) / totals[:, None]
    return Mixture(totals / len(points), means, np.maximum(squares - means**2, least))

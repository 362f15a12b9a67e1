"""One resolution per picture under a mean budget, from the same two signals. Ours.

Axes: n rows, r candidates.
"""

import numpy as np
from jaxtyping import Float, Int

from mres_jax.errors import MresError
from mres_jax.resolution.task.measure import MeasuredTask

_STEPS = 60  # of halving the interval of k


def select_per_image(task: MeasuredTask, mean_tokens: float) -> Int[np.ndarray, " n"]:
    """Returns the candidate of each row: the more complex and the more in doubt, the larger.

    A row's side is that of the smallest candidate times 1 + k z, z its complexity times its
    variance of uncertainty, relative to the task's means; k is as large as the budget lets it be.

    Args:
      task: measured.
      mean_tokens: visual tokens that a row may take on average.

    Raises:
      MresError: not even the smallest candidate fits.
    """
    least = float(task.tokens[:, 0].mean())
    if mean_tokens < least:
        raise MresError(
            f"task {task.name}: a mean of {mean_tokens:g} visual tokens is below the {least:g} "
            f"that {task.candidates[0].policy} takes. Raise the budget, or add smaller candidates."
        )
    signal = relative_signal(task)
    low, high = 0.0, 1.0
    while high < 1e12 and _mean(task, _picked(task, high * signal)) <= mean_tokens:
        low, high = high, 4 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        fits = _mean(task, _picked(task, middle * signal)) <= mean_tokens
        low, high = (middle, high) if fits else (low, middle)
    return _picked(task, low * signal)


def relative_signal(task: MeasuredTask) -> Float[np.ndarray, " n"]:
    """Returns complexity times variance of each row over the means of both; 0 where one is 0."""
    parts = (task.complexity, task.variance)
    first, second = (part / part.mean() if part.mean() > 0 else part for part in parts)
    return first * second


def _picked(task: MeasuredTask, growth: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    sides = np.array([candidate.side for candidate in task.candidates])
    wanted = sides[0] * (1 + growth)
    return np.abs(wanted[:, None] - sides).argmin(1)


def _mean(task: MeasuredTask, picked: Int[np.ndarray, " n"]) -> float:
    return float(np.take_along_axis(task.tokens, picked[:, None], 1).mean())

"""How high text must be in what a model sees to be read, measured on the model itself.

Heights are those of capital letters, pixels of the view.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mres_jax.evaluation.trials import Trial
from mres_jax.scoring import Interval, paired_interval

STEP = 0.5  # px, width of a bin of heights


class HeightCount(NamedTuple):
    """Values to be read whose capitals are `height` to `height + STEP` px high in the view."""

    height: float
    num_questions: int
    num_right: int


class Comparison(NamedTuple):
    """The same questions under two policies.

    Attributes:
      num_questions: asked under both.
      first, second: shares right.
      difference: first less second, with its paired 95 % interval.
    """

    num_questions: int
    first: float
    second: float
    difference: Interval


def count_heights(trials: Sequence[Trial]) -> list[HeightCount]:
    """Counts the `rc` questions among trials by the height of their text in the view."""
    counts: dict[float, list[bool]] = {}
    for trial in trials:
        if trial.question.type == "rc" and trial.answer.views:
            height = STEP * math.floor(trial.text_height / STEP)
            counts.setdefault(height, []).append(trial.is_right)
    return [HeightCount(h, len(right), sum(right)) for h, right in sorted(counts.items())]


def legibility_limit(counts: Sequence[HeightCount], *, share: float = 0.5) -> float:
    """Returns the height from which on at least `share` of the values are read, px.

    The shares are first made to rise with the height (isotonic regression); between the middles
    of two bins they are taken to rise in a line. Infinite where `share` is never reached.

    Example:
      >>> counts = [HeightCount(4.0, 10, 0), HeightCount(5.0, 10, 4), HeightCount(6.0, 9, 9)]
      >>> legibility_limit(counts)
      5.416666666666667
    """
    heights = [count.height + STEP / 2 for count in counts]
    shares = rising_shares(counts)
    for i, reached in enumerate(shares):
        if reached >= share:
            if i == 0:
                return heights[0]
            part = (share - shares[i - 1]) / (reached - shares[i - 1])
            return heights[i - 1] + part * (heights[i] - heights[i - 1])
    return math.inf


def rising_shares(counts: Sequence[HeightCount]) -> list[float]:
    """Returns the never falling shares that are nearest to those counted (pooled neighbours).

    Reference:
      Ayer et al., 1955, "An empirical distribution function for sampling with incomplete
      information": pool adjacent violators.
    """
    blocks: list[list[int]] = []  # right, asked, bins
    for _, asked, right in counts:
        blocks.append([right, asked, 1])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    return [right / asked for right, asked, bins in blocks for _ in range(bins)]


def compare(
    first: Sequence[Trial],
    second: Sequence[Trial],
    *,
    kind: str = "rc",
    keep: Callable[[Trial, Trial], bool] = lambda first, second: True,
) -> Comparison:
    """Compares two policies on the questions of a type that both were asked.

    Args:
      first, second: trials of one policy each.
      kind: type of the questions.
      keep: which pairs count.
    """
    others = {trial.question.id: trial for trial in second}
    pairs = [
        (one.is_right, others[one.question.id].is_right)
        for one in first
        if one.question.type == kind
        and one.question.id in others
        and keep(one, others[one.question.id])
    ]
    total = len(pairs)
    first_only, second_only = (pairs.count(wanted) for wanted in ((True, False), (False, True)))
    shares = [sum(pair[i] for pair in pairs) / total if total else math.nan for i in range(2)]
    return Comparison(total, shares[0], shares[1], paired_interval(first_only, second_only, total))

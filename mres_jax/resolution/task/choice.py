"""The resolution of a task, by the formula or by a plain sweep, and how sure that is."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mres_jax.errors import MresError
from mres_jax.resolution.task.formula import Formula, snap
from mres_jax.resolution.task.measure import MeasuredTask

RESAMPLES = 1_000
INTERVAL = (2.5, 97.5)  # percentiles


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen for a task.

    Attributes:
      task: its name.
      policy: the choice.
      method: `formula` or `sweep`.
      confidence: share of resamplings of the rows that choose the same; one that the formula has
        no side for (see `Formula.side`) chooses nothing.
      shares: of every candidate among them, by policy.
      side: before it was brought to a candidate, px, with its 95 % interval; of the sweep the
        candidate's own.
      interval: of `side`, px.
      tokens: mean visual tokens of a row under the choice.
      largest_tokens: under the largest candidate.
      score: mean score under the choice, and of the largest; None where nobody knows.
      largest_score: likewise.
    """

    task: str
    policy: str
    method: str
    confidence: float
    shares: Mapping[str, float]
    side: float
    interval: tuple[float, float]
    tokens: float
    largest_tokens: float
    score: float | None = None
    largest_score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return dataclasses.asdict(self) | {"interval": list(self.interval)}


def choose_by_formula(task: MeasuredTask, formula: Formula, *, seed: int = 0) -> Choice:
    """Returns the candidate nearest to what the formula makes of the task; needs no answers.

    Raises:
      MresError: as `Formula.side`.
    """

    def side(rows: Int[np.ndarray, " n"]) -> float:
        return formula.side(float(task.complexity[rows].mean()), float(task.variance[rows].mean()))

    return _choose(task, "formula", side, seed)


def choose_by_sweep(task: MeasuredTask, *, seed: int = 0) -> Choice:
    """Returns the candidate with the highest mean score, of equal ones the smallest.

    The honest baseline: it needs an answer for every row.

    Raises:
      MresError: nobody knows what is right.
    """
    if task.scores is None:
        raise MresError(
            f"task {task.name}: its rows have no answers, so a sweep cannot tell which candidate "
            "is best. Give answers, or calibrate a formula on reference tasks that have them."
        )
    scores = task.scores
    sides = [candidate.side for candidate in task.candidates]
    return _choose(task, "sweep", lambda rows: sides[int(scores[rows].mean(0).argmax())], seed)


def _choose(
    task: MeasuredTask, method: str, side: Callable[[Int[np.ndarray, " n"]], float], seed: int
) -> Choice:
    everyone = np.arange(len(task.ids))
    chosen = snap(side(everyone), task.candidates)
    draw = np.random.default_rng(seed)
    sides = []
    for _ in range(RESAMPLES):
        with contextlib.suppress(MresError):
            sides.append(side(draw.integers(0, len(everyone), len(everyone))))
    picks = np.array([snap(each, task.candidates) for each in sides], int)
    shares = np.bincount(picks, minlength=len(task.candidates)) / RESAMPLES
    low, high = np.percentile(sides, INTERVAL)
    score = None if task.scores is None else task.scores.mean(0)
    return Choice(
        task=task.name,
        policy=task.candidates[chosen].policy,
        method=method,
        confidence=float(shares[chosen]),
        shares={c.policy: float(s) for c, s in zip(task.candidates, shares, strict=True)},
        side=float(side(everyone)),
        interval=(float(low), float(high)),
        tokens=float(task.tokens[:, chosen].mean()),
        largest_tokens=float(task.tokens[:, -1].mean()),
        score=_at(score, chosen),
        largest_score=_at(score, -1),
    )


def _at(score: Float[np.ndarray, " r"] | None, index: int) -> float | None:
    return None if score is None else float(score[index])

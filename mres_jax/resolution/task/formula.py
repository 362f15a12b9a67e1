"""From two means of a task to its resolution, and what has to be known for it.

Axes: j reference tasks.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mres_jax.errors import MresError, suggest
from mres_jax.resolution.task.candidates import Candidate
from mres_jax.resolution.task.measure import MeasuredTask

COMBINES = ("product", "sum", "loglinear")
LEAST_TASKS = {"product": 2, "sum": 3, "loglinear": 3}
RIDGE = 1e-3  # of slopes, with signals of deviation about 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Formula:
    """How complexity C and variance of uncertainty V give a side, px.

    `product`: r0 (1 + k C/C_ref V/V_ref), which is never below r0 for k of at least 0. `sum`:
    r0 (1 + a C/C_ref + b V/V_ref). `loglinear`: r0 exp(a + b log(C/C_ref) + c log(V/V_ref)), which
    also reaches below.

    Attributes:
      combine: one of `COMBINES`.
      base_side: r0, px.
      coefficients: k; a, b; or a, b, c.
      complexity_ref: C_ref, mean over the reference tasks.
      variance_ref: V_ref, likewise.
    """

    combine: str
    base_side: float
    coefficients: tuple[float, ...]
    complexity_ref: float
    variance_ref: float

    def side(self, complexity: float, variance: float) -> float:
        """Returns the side for a task, px, before it is brought to a candidate.

        Raises:
          MresError: a signal of zero has no logarithm.
        """
        terms = _terms(self.combine, complexity / self.complexity_ref, variance / self.variance_ref)
        value = float(np.dot(self.coefficients, terms))
        if self.combine == "loglinear":
            return self.base_side * math.exp(min(value, 50.0))
        return self.base_side * (1 + value)

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return dataclasses.asdict(self) | {"coefficients": list(self.coefficients)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Formula":
        """Reads it from JSON.

        Raises:
          MresError: it is none.
        """
        try:
            made = cls(**{**content, "coefficients": tuple(map(float, content["coefficients"]))})
            _check_numbers(made)
            made.side(made.complexity_ref, made.variance_ref)
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise MresError(
                f"resolution: a calibration that does not read: {str(error).rstrip('.')}."
            ) from None
        return made


def _check_numbers(formula: Formula) -> None:
    if formula.combine not in COMBINES:
        raise ValueError(f"combine={formula.combine!r} is none of {', '.join(COMBINES)}")
    if not all(map(math.isfinite, formula.coefficients)):
        raise ValueError(f"coefficients={list(formula.coefficients)} must be finite")
    for name in ("base_side", "complexity_ref", "variance_ref"):
        value = getattr(formula, name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}={value} must be finite and above 0")


def snap(side: float, candidates: Sequence[Candidate]) -> int:
    """Returns the candidate nearest to a side; beyond the ends the last one."""
    return int(np.argmin([abs(candidate.side - side) for candidate in candidates]))


def calibrate(
    tasks: Sequence[MeasuredTask], *, combine: str = "product", base_side: float | None = None
) -> Formula:
    """Returns the formula that fits the best candidates of reference tasks, least squares.

    For the product k is sum z (r/r0 - 1) / sum z^2 over the tasks.

    Args:
      tasks: with scores and common candidates.
      combine: one of `COMBINES`.
      base_side: r0, px; the smallest candidate when None, from which a product can only go up.

    Raises:
      MresError: an unknown form; too few tasks; different candidates; no signal at all.
    """
    _check_tasks(tasks, combine)
    candidates = tasks[0].candidates
    base = candidates[0].side if base_side is None else base_side
    signals = np.array([[t.complexity.mean(), t.variance.mean()] for t in tasks])
    refs = signals.mean(0)
    if not (refs > 0).all():
        raise MresError(
            "resolution: the reference tasks have no complexity, or answers that do not change "
            f"with resolution (mean complexity {refs[0]:.3g}, mean variance {refs[1]:.3g})."
        )
    sides = np.array([candidates[t.best].side / base for t in tasks])
    terms = np.array([_terms(combine, *signal) for signal in signals / refs])
    target = np.log(sides) if combine == "loglinear" else sides - 1
    return Formula(
        combine=combine,
        base_side=float(base),
        coefficients=tuple(_fit(terms, target, combine).tolist()),
        complexity_ref=float(refs[0]),
        variance_ref=float(refs[1]),
    )


def leave_one_out(tasks: Sequence[MeasuredTask], *, combine: str = "product") -> list[int]:
    """Returns, for each task, by how many candidates a formula from all others misses its best."""
    return _held_out(
        tasks,
        lambda others, task: snap(_side(calibrate(others, combine=combine), task), task.candidates),
    )


def constant_error(tasks: Sequence[MeasuredTask]) -> list[int]:
    """The same for the one candidate that errs least on all other tasks: the honest rival."""
    return _held_out(tasks, lambda others, task: best_constant(others))


def best_constant(tasks: Sequence[MeasuredTask]) -> int:
    """Returns the one candidate that errs least on tasks, of equal ones the smallest."""
    best = np.array([task.best for task in tasks])
    errors = [np.abs(best - i).mean() for i in range(len(tasks[0].candidates))]
    return int(np.argmin(errors))


def _held_out(
    tasks: Sequence[MeasuredTask], choose: Callable[[Sequence[MeasuredTask], MeasuredTask], int]
) -> list[int]:
    return [
        abs(choose([other for other in tasks if other is not task], task) - task.best)
        for task in tasks
    ]


def _side(formula: Formula, task: MeasuredTask) -> float:
    return formula.side(float(task.complexity.mean()), float(task.variance.mean()))


def _terms(combine: str, complexity: float, variance: float) -> Float[np.ndarray, " terms"]:
    """What coefficients are multiplied with; signals relative to their references."""
    if combine == "product":
        return np.array([complexity * variance])
    if combine == "sum":
        return np.array([complexity, variance])
    if complexity <= 0 or variance <= 0:
        raise MresError(
            f"resolution: the log-linear form needs signals above 0, got a complexity of "
            f"{complexity:.3g} and a variance of {variance:.3g} of the reference tasks'. Use "
            "combine=product."
        )
    return np.array([1.0, math.log(complexity), math.log(variance)])


def _fit(terms: Float[np.ndarray, "j c"], target: Float[np.ndarray, " j"], combine: str):
    """Least squares; the slopes of the log-linear form are drawn to 0 a little."""
    ridge = np.diag([0.0, RIDGE, RIDGE]) * len(terms) if combine == "loglinear" else 0.0
    gram = terms.T @ terms + ridge
    return np.linalg.lstsq(gram, terms.T @ target, rcond=None)[0]


def check_scores(task: MeasuredTask) -> None:
    """Raises `MresError` for a reference task that nobody scores on: it has no best candidate."""
    if task.scores is not None and not task.scores.any():
        raise MresError(
            f"resolution: no candidate scores anything on reference task {task.name} "
            f"({len(task.ids)} rows), so it says nothing about size. Check its answers and its "
            "scorer, or leave it out."
        )


def check_number(number: int, combine: str) -> None:
    """Raises `MresError` where so many reference tasks are too few for a form."""
    if number < LEAST_TASKS[combine]:
        raise MresError(
            f"resolution: {number} reference task{'' if number == 1 else 's'}, but the "
            f"{combine} form needs at least {LEAST_TASKS[combine]}."
        )


def _check_tasks(tasks: Sequence[MeasuredTask], combine: str) -> None:
    if combine not in COMBINES:
        raise MresError(
            f"resolution: no form {combine!r}{suggest(combine, COMBINES)}; have "
            f"{', '.join(COMBINES)}."
        )
    check_number(len(tasks), combine)
    for task in tasks:
        check_scores(task)
    if len({task.candidates for task in tasks}) > 1:
        raise MresError("resolution: reference tasks must be measured under the same candidates.")

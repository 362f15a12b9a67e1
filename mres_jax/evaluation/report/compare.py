"""Two arms on the same questions: by how much they differ, and on which."""

from collections.abc import Sequence
from typing import NamedTuple

from mres_jax.errors import MresError, suggest
from mres_jax.evaluation.arms.bootstrap import difference_interval
from mres_jax.evaluation.arms.points import ArmKey, Pooled, pool
from mres_jax.evaluation.arms.results import ArmResult
from mres_jax.evaluation.arms.samples import Sample
from mres_jax.evaluation.csv_text import to_csv
from mres_jax.scoring import Interval

FLIP = 0.5  # least difference of two scores that is shown as a flip


class Pair(NamedTuple):
    """One question under two arms; `first` is the arm that the others are compared with."""

    seed: int
    first: Sample
    second: Sample

    @property
    def gain(self) -> float:
        """Score of the second less that of the first."""
        return self.second.score - self.first.score


class Comparison(NamedTuple):
    """An arm against the one that all are compared with.

    Attributes:
      task: on which.
      type: of the questions; "" for all of a task.
      first, second: arms.
      pairs: questions that both were asked.
      difference: second less first, with its paired 95 % interval.
      ahead: share of resamples in which the second is ahead.
    """

    task: str
    type: str
    first: Pooled
    second: Pooled
    pairs: list[Pair]
    difference: Interval
    ahead: float

    @property
    def flips(self) -> tuple[list[Pair], list[Pair]]:
        """Questions that the second won and lost, as they come."""
        won = [pair for pair in self.pairs if pair.gain >= FLIP]
        lost = [pair for pair in self.pairs if pair.gain <= -FLIP]
        return won, lost


def compare_all(results: Sequence[ArmResult], against: str | None) -> list[Comparison]:
    """Returns every other arm against one, task by task and type by type.

    Args:
      results: of all runs.
      against: `[MODEL/]POLICY`; None takes the first arm.

    Raises:
      MresError: no such arm, or one id that stands for two questions.
    """
    pooled = pool(results)
    reference = find_arm([each.arm for each in pooled], against)
    comparisons = []
    for first in pooled:
        if first.arm == reference:
            for second in pooled:
                if second.task == first.task and second.arm != reference:
                    comparisons += _compare(first, second)
    return comparisons


def find_arm(arms: Sequence[ArmKey], wanted: str | None) -> ArmKey:
    """Returns the arm that a user names; raises `MresError` where there is none."""
    if wanted is None:
        return arms[0]
    names = {
        name: arm for arm in reversed(arms) for name in (f"{arm.model}/{arm.policy}", arm.policy)
    }
    if wanted not in names:
        known = list(dict.fromkeys(f"{arm.model}/{arm.policy}" for arm in arms))
        raise MresError(
            f"report: no arm {wanted!r}{suggest(wanted, names)}; have {', '.join(known)}."
        )
    return names[wanted]


def _compare(first: Pooled, second: Pooled) -> list[Comparison]:
    there = dict(second.samples)
    pairs = [
        Pair(int(key.partition("/")[0]), sample, there[key])
        for key, sample in first.samples
        if key in there
    ]
    if not pairs:
        return []
    for pair in pairs:
        if (pair.first.question, pair.first.answers) != (pair.second.question, pair.second.answers):
            raise MresError(
                f"report: question {pair.first.id!r} of task {first.task} is another one in "
                f"{first.arm.run} than in {second.arm.run}. Report on them apart."
            )
    by_type = grouped_pairs(pairs)
    kinds = [("", pairs), *(by_type if len(by_type) > 1 else [])]
    return [_one(first, second, kind, some) for kind, some in kinds]


def grouped_pairs(pairs: Sequence[Pair]) -> list[tuple[str, list[Pair]]]:
    """Returns pairs by type of question, types in rising order."""
    kinds = sorted({pair.first.type for pair in pairs})
    return [(kind, [pair for pair in pairs if pair.first.type == kind]) for kind in kinds]


def _one(first: Pooled, second: Pooled, kind: str, pairs: list[Pair]) -> Comparison:
    difference, ahead = difference_interval(
        [pair.second.score for pair in pairs],
        [pair.first.score for pair in pairs],
        [pair.first.group for pair in pairs],
    )
    return Comparison(first.task, kind, first, second, pairs, difference, ahead)


def comparisons_csv(comparisons: Sequence[Comparison]) -> str:
    """Returns the differences as CSV."""
    headers = (
        *("task", "type", "run", "model", "policy", "against_run", "against_model"),
        *("against_policy", "questions", "difference", "low", "high", "ahead", "won", "lost"),
    )
    rows = [
        (
            *(each.task, each.type, *each.second.arm, *each.first.arm, len(each.pairs)),
            *(f"{x:+.4f}" for x in each.difference),
            f"{each.ahead:.4f}",
            *map(len, each.flips),
        )
        for each in comparisons
    ]
    return to_csv(headers, rows)

"""What a figure of evaluations shows: one point per model and policy, task and type of question."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from mres_jax.evaluation.arms.bootstrap import mean_interval
from mres_jax.evaluation.arms.results import ArmResult
from mres_jax.evaluation.arms.samples import Sample
from mres_jax.evaluation.arms.summary import grouped, retention_of
from mres_jax.evaluation.csv_text import to_csv
from mres_jax.scoring import Interval


class ArmKey(NamedTuple):
    """A model under a policy; the seeds of both together."""

    run: str
    model: str
    policy: str


class Point(NamedTuple):
    """One arm on the questions of one panel.

    Attributes:
      arm: which.
      task: its name.
      type: of the questions; "" where a task has one type only.
      num_questions: all seeds together.
      score: with its 95 % interval.
      visual_tokens, retention_ratio, flops: means per question.
      ms: per question; None where it was not measured.
      benchmark: that the task is a copy of, whatever it is called; else the task's name.
    """

    arm: ArmKey
    task: str
    type: str
    num_questions: int
    score: Interval
    visual_tokens: float
    retention_ratio: float
    flops: float
    ms: float | None
    benchmark: str

    @property
    def panel(self) -> tuple[str, str]:
        """Where it is drawn."""
        return self.task, self.type


class Pooled(NamedTuple):
    """The answers of one arm to one task, all seeds together.

    Attributes:
      arm: which.
      task: its name.
      results: one per seed.
      samples: of all of them; ids and groups begin with the seed where there are several.
    """

    arm: ArmKey
    task: str
    results: tuple[ArmResult, ...]
    samples: list[tuple[str, Sample]]

    @property
    def is_generated(self) -> bool:
        """Whether its questions are about generated documents."""
        return self.results[0].summary["made"]["task"].get("type", "").endswith(":Generated")


def pool(results: Sequence[ArmResult]) -> list[Pooled]:
    """Returns the seeds of each arm together, in the order in which arms come."""
    groups: dict[tuple[ArmKey, str], list[ArmResult]] = {}
    for result in results:
        arm = ArmKey(result.run, result.model, result.policy)
        groups.setdefault((arm, result.task), []).append(result)
    return [
        Pooled(
            arm,
            task,
            tuple(some),
            [(f"{result.seed}/{s.id}", s) for result in some for s in result.samples],
        )
        for (arm, task), some in groups.items()
    ]


def points_of(results: Sequence[ArmResult]) -> list[Point]:
    """Returns the points of all arms, a panel per task, and per type where a task has several.

    Generated questions that read and that see have no panel in common: their mean means nothing.
    """
    points = []
    for pooled in pool(results):
        samples = [sample for _, sample in pooled.samples]
        by_type = grouped(samples, lambda sample: sample.type)
        panels = [("", samples), *by_type] if len(by_type) > 1 else [("", samples)]
        if len(panels) > 1 and pooled.is_generated:
            panels = by_type
        points += [_point(pooled, kind, some) for kind, some in panels]
    return points


def _point(pooled: Pooled, kind: str, samples: Sequence[Sample]) -> Point:
    times = [sample.ms for sample in samples if sample.ms is not None]
    again = [result.summary["ms"] for result in pooled.results if result.summary["ms"] is not None]
    return Point(
        arm=pooled.arm,
        task=pooled.task,
        type=kind,
        num_questions=len(samples),
        score=mean_interval([s.score for s in samples], [s.group for s in samples]),
        visual_tokens=statistics.fmean(s.visual_tokens for s in samples),
        retention_ratio=retention_of(samples),
        flops=statistics.fmean(s.flops for s in samples),
        ms=statistics.fmean(times or again) if times or again else None,
        benchmark=pooled.results[0].summary["made"]["task"].get("name", pooled.task),
    )


def points_csv(points: Sequence[Point]) -> str:
    """Returns the numbers of a figure."""
    headers = (
        *ArmKey._fields,
        *("task", "type", "questions", "score", "low", "high"),
        *("visual_tokens", "retention_ratio", "flops", "ms"),
    )
    rows = [
        (
            *point.arm,
            *(point.task, point.type, point.num_questions),
            *(f"{x:.4f}" for x in point.score),
            f"{point.visual_tokens:.2f}",
            f"{point.retention_ratio:.4f}",
            f"{point.flops:.4g}",
            "" if point.ms is None else f"{point.ms:.2f}",
        )
        for point in points
    ]
    return to_csv(headers, rows)

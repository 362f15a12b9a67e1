"""Scores by size and ratio of the picture and by height of the text, where items carry them."""

import bisect
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mres_jax.evaluation.arms.bootstrap import mean_interval
from mres_jax.evaluation.arms.points import ArmKey, Pooled, pool
from mres_jax.evaluation.arms.results import ArmResult
from mres_jax.evaluation.arms.samples import Sample
from mres_jax.evaluation.csv_text import to_csv
from mres_jax.evaluation.rc_bench.cuts import AREAS, RATIOS
from mres_jax.scoring import Interval

HEIGHTS = (4, 6, 8, 10, 12, 16, 24)  # px, between the bins of heights


class Split(NamedTuple):
    """A way to sort questions into bins.

    Attributes:
      name: for people.
      bins: in order.
      bin_of: of a sample; None where it has none.
    """

    name: str
    bins: tuple[str, ...]
    bin_of: Callable[[Sample], str | None]


class Bin(NamedTuple):
    """One arm on the questions of one bin."""

    arm: ArmKey
    task: str
    type: str
    split: str
    bin: str
    num_questions: int
    score: Interval


def _height_names() -> tuple[str, ...]:
    between = [f"{a}-{b}" for a, b in itertools.pairwise(HEIGHTS)]
    return (f"<{HEIGHTS[0]}", *between, f">={HEIGHTS[-1]}")


def _height_bin(height: float | None) -> str | None:
    return _height_names()[bisect.bisect_right(HEIGHTS, height)] if height else None


SPLITS = (
    Split("area of the picture", AREAS, lambda s: s.cell and s.cell[0]),
    Split("width / height", RATIOS, lambda s: s.cell and s.cell[1]),
    Split("capitals in the picture, px", _height_names(), lambda s: _height_bin(s.text_height)),
    Split("capitals as seen, px", _height_names(), lambda s: _height_bin(s.seen_height)),
)


def bins_of(results: Sequence[ArmResult]) -> list[Bin]:
    """Returns the scores of all arms by every split that tells questions apart."""
    return [each for pooled in pool(results) for each in _bins(pooled)]


def _bins(pooled: Pooled) -> list[Bin]:
    samples = [sample for _, sample in pooled.samples]
    types = sorted({sample.type for sample in samples})
    found = []
    for kind in types if len(types) > 1 else [""]:
        mine = [sample for sample in samples if not kind or sample.type == kind]
        for split in SPLITS:
            sorted_in = [(split.bin_of(sample), sample) for sample in mine]
            for name in split.bins:
                some = [sample for bin_name, sample in sorted_in if bin_name == name]
                if some:
                    score = mean_interval([s.score for s in some], [s.group for s in some])
                    found.append(
                        Bin(pooled.arm, pooled.task, kind, split.name, name, len(some), score)
                    )
    return found


def bins_csv(bins: Sequence[Bin]) -> str:
    """Returns the bins as CSV."""
    headers = (*ArmKey._fields, "task", "type", "by", "bin", "questions", "score", "low", "high")
    rows = [
        (*each.arm, *each[1:5], each.num_questions, *(f"{x:.4f}" for x in each.score))
        for each in bins
    ]
    return to_csv(headers, rows)

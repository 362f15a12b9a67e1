"""What one arm came to: scores with intervals, and what they cost."""

import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mres_jax.evaluation.arms.bootstrap import mean_interval
from mres_jax.evaluation.arms.samples import Sample
from mres_jax.rewards import grounding


def summarize(samples: Sequence[Sample], *, ms: float | None = None) -> dict[str, Any]:
    """Returns the numbers of an arm; plain values.

    Args:
      samples: all of them.
      ms: per question, where no line has a time.
    """
    measured = [sample.ms for sample in samples if sample.ms is not None]
    return {
        "num_questions": len(samples),
        "score": list(_score(samples)),
        "types": {
            kind: {"num_questions": len(some), "score": list(_score(some))}
            for kind, some in grouped(samples, lambda sample: sample.type)
            if kind
        },
        "metrics": sorted({sample.metric for sample in samples}),
        "benchmark": circular(samples) | overlaps(samples),
        "visual_tokens": statistics.fmean(sample.visual_tokens for sample in samples),
        "retention_ratio": retention_of(samples),
        "flops": statistics.fmean(sample.flops for sample in samples),
        "ms": statistics.fmean(measured) if measured else ms,
        "num_timed": len(measured),
        "notes": notes_of(samples),
        "views_px": _sizes(samples),
    }


def _score(samples: Sequence[Sample]):
    return mean_interval([s.score for s in samples], [s.group for s in samples])


def grouped(
    samples: Iterable[Sample], key: Callable[[Sample], Any]
) -> list[tuple[Any, list[Sample]]]:
    """Returns samples by key, keys in rising order."""
    groups: dict[Any, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(key(sample), []).append(sample)
    return sorted(groups.items())


def circular(samples: Sequence[Sample]) -> dict[str, Any]:
    """Returns the share of groups that are right in every member, where a group is one question.

    HR-Bench asks each question four times, its options turned; this is its stricter number. Groups
    that are not there as often as they have options, as where `limit` cuts one, do not count.
    """
    groups = grouped(samples, lambda sample: sample.group)
    if {s.metric for s in samples} != {"choice"} or len(groups) == len(samples):
        return {}
    if any(len({_stem(sample) for sample in some}) > 1 for _, some in groups):
        return {}  # several questions about one picture
    groups = [(name, some) for name, some in groups if len(some) == _num_options(some[0])]
    if not groups:
        return {}
    whole = [min(sample.score for sample in some) for _, some in groups]
    names = [name for name, _ in groups]
    return {"circular": {"num_groups": len(groups), "score": list(mean_interval(whole, names))}}


def _num_options(sample: Sample) -> int:
    return len(re.findall(r"\n[A-Z]\. ", sample.question))


def _stem(sample: Sample) -> str:
    return sample.question.partition("\nA. ")[0]


def overlaps(samples: Sequence[Sample]) -> dict[str, Any]:
    """Returns the share of spans that overlap by 0.3, 0.5 and 0.7, where all questions ask for one.

    The mean overlap is the score itself.
    """
    if {sample.metric for sample in samples} != {"span_iou"}:
        return {}
    recall = grounding([sample.score for sample in samples]).recall
    return {f"recall@{least}": share for least, share in recall.items()}


def notes_of(samples: Sequence[Sample]) -> dict[str, Any]:
    """Returns how many answers came with a note, such as a window that was not found, and one."""
    notes = [sample.note for sample in samples if sample.note]
    return {"count": len(notes), "first": notes[0]} if notes else {}


def retention_of(samples: Sequence[Sample]) -> float:
    """Returns visual tokens spent / at native resolution, over all samples that looked.

    No mean of ratios: small pictures, where a ratio is coarse, would outweigh large ones.
    """
    looked = [sample for sample in samples if sample.retention_ratio and sample.visual_tokens]
    native = sum(sample.visual_tokens / sample.retention_ratio for sample in looked)
    return sum(sample.visual_tokens for sample in looked) / native if native else 0.0


def _sizes(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Sides of the views, px: mean height and width, over all views."""
    sizes = [view.encoded_size for sample in samples for view in sample.views]
    if not sizes:
        return {}
    return {
        "mean": [
            statistics.fmean(s.height for s in sizes),
            statistics.fmean(s.width for s in sizes),
        ],
        "smallest": list(min(sizes, key=lambda s: s.area)),
        "largest": list(max(sizes, key=lambda s: s.area)),
    }

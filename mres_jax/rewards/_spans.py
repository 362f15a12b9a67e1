"""Spans of time in a clip: what an answer names, and how well it overlaps."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

_CLOCK = r"(?:(\d{1,3}):)?(\d{1,3}):(\d{1,2}(?:\.\d+)?)"
_PLAIN = r"(?:(?<!\w)-)?\d{1,6}(?:\.\d+)?"  # between two times a hyphen is no sign
_TIME = re.compile(rf"{_CLOCK}|({_PLAIN})")


class Span(NamedTuple):
    """Seconds from the start of a clip."""

    start: float
    end: float


def parse_span(text: str) -> Span | None:
    """Returns the first two times of an answer as a span, or None where they make none.

    Times are seconds, or `mm:ss` and `hh:mm:ss`.

    Example:
      >>> parse_span("[12.5, 30.0]"), parse_span("from 1:05 to 1:20"), parse_span("30 to 12")
      (Span(start=12.5, end=30.0), Span(start=65.0, end=80.0), None)
      >>> parse_span("4.1-31.9 s")
      Span(start=4.1, end=31.9)
    """
    times = [_seconds(match) for match in _TIME.finditer(text)]
    if len(times) < 2 or not 0 <= times[0] < times[1]:
        return None
    return Span(*times[:2])


def span_iou(a: Span, b: Span) -> float:
    """Returns intersection over union of two spans; 0 where they only touch or either is empty.

    Reference:
      Gao et al., 2017, "TALL", arXiv:1705.02101, section 4.2.

    Example:
      >>> span_iou(Span(0, 10), Span(5, 15))
      0.3333333333333333
    """
    overlap = min(a.end, b.end) - max(a.start, b.start)
    if overlap <= 0 or a.end <= a.start or b.end <= b.start:
        return 0.0
    return overlap / (max(a.end, b.end) - min(a.start, b.start))


def best_span_iou(prediction: str, spans: Sequence[Span]) -> float:
    """Returns the overlap of an answer with the nearest of several spans; 0 if it names none."""
    given = parse_span(prediction)
    return max((span_iou(given, span) for span in spans), default=0.0) if given else 0.0


class Grounding(NamedTuple):
    """Temporal grounding over many questions, shares of 1.

    Attributes:
      recall: share with an overlap of at least 0.3, 0.5 and 0.7.
      mean_iou: mean overlap.
    """

    recall: dict[float, float]
    mean_iou: float


def grounding(
    overlaps: Sequence[float], thresholds: Sequence[float] = (0.3, 0.5, 0.7)
) -> Grounding:
    """Returns recall at each threshold and the mean, of one overlap per question.

    Without questions all are NaN: there is nothing to report.

    Example:
      >>> grounding([0.8, 0.5, 0.0, 0.3]).recall
      {0.3: 0.75, 0.5: 0.5, 0.7: 0.25}
    """
    count = len(overlaps)
    if not count:
        return Grounding(dict.fromkeys(thresholds, math.nan), math.nan)
    recall = {t: sum(iou >= t for iou in overlaps) / count for t in thresholds}
    return Grounding(recall, sum(overlaps) / count)


def _seconds(match: re.Match[str]) -> float:
    hours, minutes, seconds, plain = match.groups()
    if plain is not None:
        return float(plain)
    return 3600 * float(hours or 0) + 60 * float(minutes) + float(seconds)

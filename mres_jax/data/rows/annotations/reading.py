"""What the readers of annotation files share: a line and what it says, or why it says nothing."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mres_jax.data.rows.types import Fault, as_text, shown

SECONDS = "[start, end] in seconds"
EARLY = 0.5  # s; spans of NExT-GQA's test set begin at -0.1 and -0.2 s, where the video does
NOTES = ("span from the start",)


class Line(NamedTuple):
    """One annotation.

    Attributes:
      place: where it stands, `line 3` or `row 3`; the first is 1.
      row: of questions, or the `Fault` of an annotation that cannot be used.
      note: of `NOTES`, on one that is used; "" without one.
    """

    place: str
    row: dict[str, Any] | Fault
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Files beside the annotations.

    Attributes:
      spans: of NExT-GQA, where the answers are seen; None: the answer alone is asked.
      videos: of NExT-GQA, from the name of a video to its place; None: they lie side by side.
      suffix: of video files.
    """

    spans: pathlib.Path | None = None
    videos: pathlib.Path | None = None
    suffix: str = ".mp4"


def text(content: Mapping[str, Any], key: str) -> str:
    """Returns a field that has to say something; raises `Fault`."""
    value = as_text(content.get(key)).strip()
    if not value:
        raise Fault("unknown form", f"{key} is missing or empty")
    return value


def letter(options: Sequence[str], answer: str) -> str:
    """Returns the letter of the option that is the answer; raises `Fault` unless there is one."""
    places = [i for i, option in enumerate(options) if option == answer]
    if len(places) != 1:
        raise Fault("no answer", f"{len(places)} of the options are {shown(answer)!r}")
    return chr(ord("A") + places[0])


def span(start: Any, end: Any) -> str:
    """Returns a span of time as answers name it; a start just before the video is its start.

    Raises:
      Fault: it is none.

    Example:
      >>> span("24.3", 30), span(-0.1, 4)
      ('[24.3, 30.0]', '[0.0, 4.0]')
    """
    try:
        first, last = float(start), float(end)
    except (TypeError, ValueError, OverflowError):
        raise Fault("no answer", f"{shown(start)} to {shown(end)} is no span of time") from None
    if not -EARLY <= first < last < 1e6 or last <= 0:
        raise Fault("no answer", f"{first:g} to {last:g} s is no span of time")
    return f"[{max(first, 0.0) + 0.0}, {last}]"  # no -0.0

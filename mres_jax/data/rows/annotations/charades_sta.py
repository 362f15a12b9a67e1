"""Charades-STA: a sentence a line, and when in a video it happens.

Reference:
  Gao et al., 2017, "TALL: Temporal Activity Localization via Language Query", arXiv:1705.02101;
  lines of `charades_sta_train.txt` and `charades_sta_test.txt` are `VIDEO START END##SENTENCE`.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

from mres_jax.data.rows.annotations.reading import SECONDS, Line, Sources, span
from mres_jax.data.rows.types import Fault, shown
from mres_jax.errors import MresError

MARK = "##"


def read_charades_sta(file: pathlib.Path, sources: Sources) -> Iterator[Line]:
    """Yields the rows of a file, of type `grounding`; empty lines are none."""
    with file.open(encoding="utf-8-sig") as stream:
        try:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    yield Line(f"line {number}", _row(line.strip(), number, sources.suffix))
                except Fault as fault:
                    yield Line(f"line {number}", fault)
        except UnicodeDecodeError:
            raise MresError(f"annotations {file}: not UTF-8. Save it as UTF-8.") from None


def _row(line: str, number: int, suffix: str) -> dict[str, Any]:
    head, mark, sentence = line.partition(MARK)
    words, sentence = head.split(), sentence.strip()
    if not mark or len(words) != 3 or not sentence:
        raise Fault("unknown form", f"{shown(line, 60)!r} is not VIDEO START END{MARK}SENTENCE")
    video, start, end = words
    return {
        "id": f"{video}-{number}",
        "video": f"{video}{suffix}",
        "question": f"When in the video does this happen: {sentence}\nAnswer with {SECONDS}.",
        "answer": span(start, end),
        "type": "grounding",
        "options": [],
    }

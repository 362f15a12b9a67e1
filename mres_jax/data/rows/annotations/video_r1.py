"""Video-R1: a JSON list of questions about videos and pictures.

Reference:
  Feng et al., 2025, "Video-R1", arXiv:2503.21776; the fields are those that the data set's card
  (Video-R1/Video-R1-data) shows: `problem_id`, `problem`, `data_type`, `problem_type`, `options`
  with their letters, `solution` in answer tags, `path`, `data_source`.
"""

import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mres_jax.data.rows.annotations.reading import Line, Sources, text
from mres_jax.data.rows.scan import scan_rows
from mres_jax.data.rows.types import Fault, as_text, shown

TYPES = {  # theirs -> a kind of `rewards.reward`
    "multiple choice": "choice",
    "numerical": "number",
    "OCR": "ocr",
    "free-form": "free_text",
    "open-ended": "free_text",
    "regression": "regression",
}
_ITEMS = {"video": "video", "image": "images"}
_ANSWER = re.compile(r"<answer>(.*)</answer>", re.DOTALL)
_LETTERED = re.compile(r"\s*\(?([A-Z])[.):]\s*(.*)", re.DOTALL)


def read_video_r1(file: pathlib.Path, sources: Sources) -> Iterator[Line]:
    """Yields the rows of `Video-R1-260k.json` or a file like it; nothing beside it is read."""
    for number, found in enumerate(scan_rows(file), start=1):
        try:
            yield Line(f"row {number}", _row(found.content))
        except Fault as fault:
            yield Line(f"row {number}", fault)


def _row(content: Any) -> dict[str, Any]:
    if isinstance(content, Fault):
        raise content
    if not isinstance(content, Mapping):
        raise Fault("unknown form", f"a row is an object, got {type(content).__name__}")
    kind, item = text(content, "problem_type"), text(content, "data_type")
    if kind not in TYPES:
        raise Fault("unknown form", f"problem_type {shown(kind)!r}; have {', '.join(TYPES)}")
    if item not in _ITEMS:
        raise Fault("unknown form", f"data_type {shown(item)!r}; have {', '.join(_ITEMS)}")
    path = text(content, "path").removeprefix("./")
    options = _options(content.get("options")) if kind == "multiple choice" else []
    return {
        "id": text(content, "problem_id"),
        _ITEMS[item]: path if item == "video" else [path],
        "question": text(content, "problem"),
        "answer": _answer(text(content, "solution"), options),
        "type": TYPES[kind],
        "options": options,
        "tags": [as_text(content.get("data_source"))] if content.get("data_source") else [],
    }


def _options(value: Any) -> list[str]:
    """Options without the letters before them, which are ours to write."""
    options = [as_text(option) for option in value] if isinstance(value, list) else []
    if len(options) < 2:
        raise Fault("unknown form", f"{len(options)} options of a multiple choice")
    found = [_LETTERED.fullmatch(option) for option in options]
    lettered = [match for match in found if match]
    if not lettered:
        return options
    letters = "".join(match[1] for match in lettered)
    if letters != "".join(chr(ord("A") + i) for i in range(len(options))):
        raise Fault("unknown form", f"{len(options)} options are lettered {shown(letters)!r}")
    return [match[2] for match in lettered]


def _answer(solution: str, options: list[str]) -> str:
    tagged = _ANSWER.search(solution)
    answer = (tagged[1] if tagged else solution).strip()
    if not answer:
        raise Fault("no answer", "the solution is empty")
    known = [chr(ord("A") + i) for i in range(len(options))]
    if options and not set(re.split(r"[\s,]*", answer.strip("."))) - {""} <= set(known):
        raise Fault("no answer", f"the solution {shown(answer)!r} is none of {', '.join(known)}")
    return answer

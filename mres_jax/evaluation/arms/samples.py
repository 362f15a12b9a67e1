"""One answered question as a line of JSON, and back."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

from mres_jax.data.rows.types import Fault, shown
from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import RunError
from mres_jax.evaluation.arms.questions import AskedQuestion
from mres_jax.evaluation.rc_bench.cuts import CELLS
from mres_jax.geometry import View
from mres_jax.inference.view_json import view_from_json, whole_view_to_json
from mres_jax.protocols import Answer

CLOCK = "ms"  # the one field in which a second run may differ


def to_line(
    question: AskedQuestion, answer: Answer, spec: ProcessorSpec, *, ms: float | None
) -> bytes:
    """Returns a line of `samples.jsonl`.

    Args:
      question: that was asked.
      answer: to it.
      spec: of the model.
      ms: wall time of its batch per question; None where something was compiled in it.

    Raises:
      RunError: a score that is no number from 0 to 1.
    """
    score, cost = float(question.grade(answer)), answer.cost
    if not 0 <= score <= 1:  # not a number either
        raise RunError(f"question {question.id!r}: metric {question.metric} gave {score}.")
    is_blind = bool(question.sizes) and not answer.views
    content = {
        "id": question.id,
        "question": question.text,
        "answers": list(question.answers),
        "prediction": answer.text.strip(),
        "score": score,
        "metric": question.metric,
        "type": question.type,
        "group": question.group,
        "visual_tokens": cost.visual_tokens,
        "text_tokens": cost.text_tokens,
        "new_tokens": cost.new_tokens,
        "retention_ratio": 0.0 if is_blind else cost.retention_ratio,
        "flops": cost.flops,
        "picture_px": [list(size) for size in question.sizes],
        "views": [whole_view_to_json(view, spec) for view in answer.views],
        "finish_reason": answer.finish_reason,
        **({"cell": list(question.cell)} if question.cell else {}),
        **_height(question, answer),
        **({"box_px": list(question.box)} if question.box else {}),
        **({"passes": len(answer.passes)} if answer.passes else {}),
        **({"note": answer.note} if answer.note else {}),
        CLOCK: None if ms is None else round(ms, 3),
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _height(question: AskedQuestion, answer: Answer) -> dict[str, float]:
    if not question.text_height:
        return {}
    seen = round(question.seen_height(answer.views), 4)
    return {"text_height_px": question.text_height, "seen_height_px": seen}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """What a line says, as far as reports need it.

    Attributes:
      id, question, answers, prediction, score, metric, type, group, visual_tokens: of the line.
      cell: area and ratio bin; None where no picture is.
      text_height, seen_height: of capitals, px, in the picture and as seen; None where nobody says.
      views: what was looked at.
      ms: None where it was not measured.
      note: what a reader should know of the answer; "" where nothing is.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    prediction: str
    score: float
    metric: str
    type: str
    group: str
    visual_tokens: int
    retention_ratio: float
    flops: float
    cell: tuple[str, str] | None
    text_height: float | None
    seen_height: float | None
    views: tuple[View, ...]
    ms: float | None
    note: str = ""


def from_line(line: bytes) -> Sample:
    """Reads what `to_line` gave.

    Raises:
      Fault: anything else, or a score that is no number from 0 to 1.
    """
    try:
        return _read(json.loads(line))
    except Fault:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Fault("not JSON", shown(f"{type(error).__name__}: {error}")) from None


def _read(content: Mapping[str, Any]) -> Sample:
    texts = {name: _text(content[name], name) for name in _TEXTS}
    return Sample(
        **texts,
        answers=tuple(_text(answer, "answers") for answer in _list(content["answers"], "answers")),
        score=_number(content["score"], "score", most=1.0),
        visual_tokens=int(_number(content["visual_tokens"], "visual_tokens")),
        retention_ratio=_number(content["retention_ratio"], "retention_ratio"),
        flops=_number(content["flops"], "flops"),
        cell=_cell(content.get("cell")),
        text_height=_number_or_none(content.get("text_height_px"), "text_height_px"),
        seen_height=_number_or_none(content.get("seen_height_px"), "seen_height_px"),
        views=tuple(_view(view) for view in _list(content["views"], "views")),
        ms=_number_or_none(content[CLOCK], CLOCK),
        note=_text(content.get("note", ""), "note"),
    )


_TEXTS = ("id", "question", "prediction", "metric", "type", "group")


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Fault("unknown form", f"{name} is {shown(value)}, not a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Fault("unknown form", f"{name} has half a character, a lone surrogate") from None
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise Fault("unknown form", f"{name} is {shown(value)}, not a list")
    return value


def _number(value: Any, name: str, *, most: float = sys.float_info.max) -> float:
    ok = type(value) in (int, float) and 0 <= value <= most  # not a number either
    if not ok:
        raise Fault("unknown form", f"{name} is {shown(value)}")
    return float(value)


def _number_or_none(value: Any, name: str) -> float | None:
    return None if value is None else _number(value, name)


def _cell(value: Any) -> tuple[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or tuple(map(str, value)) not in CELLS:
        raise Fault("unknown form", f"cell is {shown(value)}, not an area and a ratio bin")
    return value[0], value[1]


def _view(content: Any) -> View:
    try:
        return view_from_json(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = shown(f"{type(error).__name__}: {error}")
        raise Fault("unknown form", f"views holds {shown(content)} ({reason})") from None

"""Rows as other tools write them -> `conversations`, `messages` or a `question` with its `answer`.

Reference:
  TRL, "Dataset formats": `prompt` with `completion`, as texts or as turns.
  ms-swift, "Custom dataset": `query`, `response` and `history`; `conversation` of pairs; `loss`.
  Stanford Alpaca: `instruction`, `input`, `output`.
  The Cauldron and FineVision (Hugging Face): `texts`, pairs of `user` and `assistant`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.rows.types import Fault, as_text, shown

_Content = Mapping[str, Any]
_MARKS = ("<bbox>", "<ref-object>")  # of ms-swift, for what stands in `objects`


def unified(content: _Content) -> _Content:
    """Returns a row in one of the three forms; one that is in them already is returned as it is.

    Raises:
      Fault: it is in none, or has something that would be ignored.
    """
    if tools := content.get("tools"):
        raise Fault(
            "unknown form", f"it has tools ({shown(tools, 40)}), which no template here takes"
        )
    if content.get("objects") and any(mark in str(content) for mark in _MARKS):
        have = " and ".join(_MARKS)
        raise Fault("unknown form", f"it has objects at {have}; write the boxes into the text")
    if any(content.get(key) is not None for key in OWN):
        return content
    for key, read in FOREIGN.items():
        if content.get(key) is not None:
            return {**{k: v for k, v in content.items() if k != key}, **read(content)}
    raise Fault("unknown form", f"none of {', '.join((*OWN, *FOREIGN))} is in it")


def check_learned(turn: _Content) -> None:
    """Raises `Fault` for a turn that says that it is not to be learned: all answers are."""
    for key in ("weight", "loss", "loss_scale"):
        if turn.get(key) not in (None, 1, True):
            raise Fault(
                "unknown form", f"a turn has {key} {shown(turn[key])}; all answers are learned"
            )
    if turn.get("tool_calls"):
        raise Fault("unknown form", "a turn calls tools")


def _prompt(content: _Content) -> _Content:
    prompt, completion = content["prompt"], content.get("completion")
    if completion is None:
        raise Fault("no answer", "it has a prompt, but no completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        return {"messages": [*prompt, *completion]}
    return {"question": as_text(prompt), "answer": as_text(completion)}


def _query(content: _Content) -> _Content:
    history = content.get("history") or []
    if not isinstance(history, list) or not all(_is_pair(pair) for pair in history):
        raise Fault("unknown form", "its history is no list of [query, response]")
    return _pairs([*history, [content["query"], content.get("response")]])


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _conversation(content: _Content) -> _Content:
    return _pairs(_columns(content["conversation"], "conversation", "human", "assistant"))


def _texts(content: _Content) -> _Content:
    return _pairs(_columns(content["texts"], "texts", "user", "assistant"))


def _columns(turns: Any, name: str, *keys: str) -> list[list[Any]]:
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise Fault("unknown form", f"{name!r} is not a list of {' and '.join(keys)}")
    return [[turn.get(key) for key in keys] for turn in turns]


def _pairs(pairs: list[list[Any]]) -> _Content:
    names = ("human", "gpt")
    turns = [
        {"from": who, "value": text}
        for pair in pairs
        for who, text in zip(names, pair, strict=True)
    ]
    return {"conversations": turns}


def _instruction(content: _Content) -> _Content:
    parts = [as_text(content["instruction"]), as_text(content.get("input"))]
    return {
        "question": "\n".join(part for part in parts if part.strip()),
        "answer": as_text(content.get("output")),
    }


OWN = ("conversations", "messages", "question")
FOREIGN: dict[str, Callable[[_Content], _Content]] = {
    "prompt": _prompt,
    "query": _query,
    "conversation": _conversation,
    "texts": _texts,
    "instruction": _instruction,
}

"""The contents of a row -> `Row`: LLaVA's form, `messages` lists, and the project's own rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mres_jax.data.rows.foreign import FOREIGN, OWN, check_learned, unified
from mres_jax.data.rows.named import (
    Named,
    Turns,
    clips_of,
    image_names,
    named_in,
    place_clips,
)
from mres_jax.data.rows.types import (
    CLIP_PLACEHOLDER,
    PLACEHOLDER,
    UNMARKED,
    UNNAMED,
    Fault,
    Row,
    as_text,
    shown,
)

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
}


def row_id(content: Any, number: int) -> str:
    """Returns the id of a row, or `#number` where it has none."""
    value = content.get("id") if isinstance(content, Mapping) else None
    return (
        shown(value, 300) if isinstance(value, str | int) and str(value).strip() else f"#{number}"
    )


def parse_row(content: Any, number: int) -> tuple[Row, tuple[str, ...]]:
    """Returns a row and the kinds of notes that it deserves.

    Args:
      content: decoded JSON.
      number: of the row, from 0.

    Raises:
      Fault: it is no conversation that could be used.
    """
    if not isinstance(content, Mapping):
        raise Fault("unknown form", f"a row is an object, got {type(content).__name__}")
    content = unified(content)
    read = next(read for key, read in _FORMS.items() if content.get(key) is not None)
    turns, images = read(content, [*image_names(content), *clips_of(content)])
    turns = _with_system(turns, as_text(content.get("system")))
    turns, images = place_clips(turns, images)
    notes = _check_turns(turns)
    placed = sum(text.count(PLACEHOLDER) for role, text in turns if role == "user")
    if images and not placed:
        first = next(i for i, (role, _) in enumerate(turns) if role == "user")
        turns[first] = ("user", f"{PLACEHOLDER}\n" * len(images) + turns[first][1])
        notes += () if read is _read_question else ("picture put first",)
    elif placed != len(images):
        kind = UNNAMED if placed > len(images) else UNMARKED
        raise Fault(kind, f"{placed} {PLACEHOLDER} placeholders, but {len(images)} pictures")
    return Row(id=row_id(content, number), images=tuple(images), turns=tuple(turns)), notes


def has_form(content: Mapping[str, Any]) -> bool:
    """Whether it is clear how to read a row."""
    return any(content.get(key) is not None for key in (*OWN, *FOREIGN))


def _read_conversations(content: Mapping[str, Any], images: Named) -> tuple[Turns, Named]:
    turns = []
    for turn in _turns(content):
        check_learned(turn)
        keys = ("from", "value") if "from" in turn else ("role", "content")
        turns.append((_role(turn, keys[0]), as_text(turn.get(keys[1]))))
    return turns, images


def _read_messages(content: Mapping[str, Any], images: Named) -> tuple[Turns, Named]:
    named: Named = []
    turns = []
    for turn in _turns(content, "messages"):
        check_learned(turn)
        parts = turn.get("content")
        texts = [_part(part, named) for part in parts] if isinstance(parts, list) else [parts]
        turns.append((_role(turn, "role"), "".join(as_text(text) for text in texts)))
    if named and images:
        raise Fault("unknown form", "pictures are named both in the messages and beside them")
    return turns, named or images


def _part(part: Any, named: Named) -> str:
    """Text of one part of a message; a picture or clip that it names is collected."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("text", "input_text", "output_text"):
        return as_text(part.get("text"))
    if kind not in ("image", "image_url", "input_image", "video", "video_url", "input_video"):
        raise Fault("unknown form", f"a part of a message has type {shown(kind)!r}")
    is_clip = "video" in kind
    if (item := named_in(part, "video" if is_clip else "image")) is not None:
        named.append(item)
    return CLIP_PLACEHOLDER if is_clip else PLACEHOLDER


def _read_question(content: Mapping[str, Any], images: Named) -> tuple[Turns, Named]:
    question, answer = as_text(content["question"]), content.get("answer", content.get("answers"))
    options = content.get("options")
    if isinstance(options, list):
        question = with_options(question, [as_text(option) for option in options])
    answer = next(iter(answer), None) if isinstance(answer, list) else answer
    return [("user", question), ("assistant", "" if answer is None else as_text(answer))], images


def with_options(question: str, options: Sequence[str]) -> str:
    """A question with its options below it, a letter before each."""
    lines = [f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(options)]
    return "\n".join([question, *lines])


def _with_system(turns: Turns, system: str) -> Turns:
    """Turns behind the system's text that stands beside them."""
    if not system.strip():
        return turns
    if turns and turns[0][0] == "system":
        raise Fault("turn order", "a system text stands among the turns and beside them")
    return [("system", system), *turns]


_FORMS: dict[str, Callable[[Mapping[str, Any], Named], tuple[Turns, Named]]] = {
    "conversations": _read_conversations,
    "messages": _read_messages,
    "question": _read_question,
}


def _turns(content: Mapping[str, Any], key: str = "conversations") -> list[Mapping[str, Any]]:
    turns = content[key]
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise Fault("unknown form", f"{key!r} is not a list of turns")
    return turns


def _role(turn: Mapping[str, Any], key: str) -> str:
    role = turn.get(key)
    if not isinstance(role, str) or role not in _ROLES:
        raise Fault("unknown role", f"a turn is from {shown(role)!r}; have {', '.join(_ROLES)}")
    return _ROLES[role]


def _check_turns(turns: Turns) -> tuple[str, ...]:
    """Notes about turns that can be used; raises `Fault` about others."""
    roles = [role for role, _ in turns]
    if "system" in roles[1:]:
        raise Fault("turn order", "a system turn comes late; only the first can be one")
    spoken = [role for role in roles if role != "system"]
    if not spoken:
        raise Fault("empty turn", "no turns")
    for i, (role, text) in enumerate(turns):
        if not text.strip():
            kind = "no answer" if role == "assistant" else "empty turn"
            raise Fault(kind, f"turn {i} ({role}) is empty")
    if spoken[0] != "user":
        raise Fault("turn order", "the assistant speaks first")
    if "assistant" not in spoken:
        raise Fault("no answer", "nobody answers")
    answers = [text for role, text in turns if role == "assistant"]
    notes = ("placeholder in an answer",) if any(PLACEHOLDER in text for text in answers) else ()
    return notes + (("unanswered question",) if spoken[-1] == "user" else ())

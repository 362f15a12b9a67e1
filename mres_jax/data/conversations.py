"""Conversations -> token pieces. A prompt is never rendered to one string and encoded afterwards.

Template parts are trusted and encoded with control tokens on; what people wrote is encoded with
control tokens off, piece by piece. So nobody can forge a turn or a picture by typing.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mres_jax.data.spec import ChatTemplate
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.errors import PromptError

ROLES = ("system", "user", "assistant")
LABEL_MASKS = ("answer", "released")
_CONTROL = re.compile(r"(<[^<>\s]+>)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation.

    Attributes:
      role: `system`, `user` or `assistant`.
      parts: in reading order, text or the index of a picture of the request.
    """

    role: str
    parts: tuple[str | int, ...]

    @property
    def items(self) -> tuple[int, ...]:
        """Pictures of the turn."""
        return tuple(part for part in self.parts if isinstance(part, int))


class Span(NamedTuple):
    """A run of text of a prompt, or the place of one picture, before anything is encoded.

    Attributes:
      text: "" for a picture.
      item: index of the picture, or None for text.
      is_trusted: of a template, which may contain control tokens.
      is_answer: is to be predicted.
      answer_start: characters before those that are.
    """

    text: str
    item: int | None = None
    is_trusted: bool = False
    is_answer: bool = False
    answer_start: int = 0


class Piece(NamedTuple):
    """A run of tokens, or the place of one picture between its two template parts.

    Attributes:
      token_ids: the tokens; none for a picture.
      item: index of the picture, or None for text.
      mask: which of the tokens are to be predicted, one flag each.
    """

    token_ids: tuple[int, ...]
    item: int | None = None
    mask: tuple[bool, ...] = ()


def prompt_messages(
    question: str,
    *,
    num_images: int,
    history: Sequence[tuple[str, str]] = (),
    answer: str | None = None,
) -> list[Message]:
    """Returns the turns of one question; its pictures open the first user turn.

    Args:
      question: text of the last user turn.
      num_images: pictures of the request.
      history: earlier turns, `(role, text)`.
      answer: appended as an assistant turn, for training.

    Raises:
      PromptError: an empty question.
    """
    turns = [*history, ("user", question)]
    if answer is not None:
        turns.append(("assistant", answer))
    first_user = next(i for i, (role, _) in enumerate(turns) if role == "user")
    pictures = tuple(range(num_images))
    return [
        Message(role=role, parts=(*pictures, text) if i == first_user else (text,))
        for i, (role, text) in enumerate(turns)
    ]


def place_images(
    texts: Sequence[tuple[str, str]],
    *,
    num_images: int,
    placeholder: str = "<image>",
    pictures_first: bool = False,
) -> list[Message]:
    """Returns messages for turns whose texts mark the places of pictures, as LLaVA's rows do.

    Line breaks around a placeholder belong to it and go, as does white space that stands alone.

    Args:
      texts: `(role, text)` of each turn.
      num_images: pictures that came with the row.
      placeholder: the mark; it counts in user turns only and stays text elsewhere.
      pictures_first: put the picture of a turn that has one before its text, as LLaVA's training
        does; several stay where they are.

    Raises:
      PromptError: more or fewer placeholders than pictures.
    """
    messages, placed = [], 0
    for role, text in texts:
        chunks = text.split(placeholder) if role == "user" else [text]
        parts: list[str | int] = []
        for i, chunk in enumerate(chunks):
            if i:
                parts.append(placed)
                placed += 1
                chunk = chunk.lstrip("\n")
            if i + 1 < len(chunks):
                chunk = chunk.rstrip("\n")
            if chunk.strip() or (chunk and len(chunks) == 1):
                parts.append(chunk)
        if pictures_first and len(chunks) == 2:
            parts.sort(key=lambda part: isinstance(part, str))
        messages.append(Message(role=role, parts=tuple(parts)))
    if placed != num_images:
        raise PromptError(
            f"prompt: {placed} {placeholder} placeholders, but {num_images} pictures. Give as many "
            "placeholders as pictures."
        )
    return messages


def plain_template(template: ChatTemplate) -> ChatTemplate:
    """Returns a template without turns, for captions: what frames a picture stays.

    Reference:
      Liu et al., 2023, "Visual Instruction Tuning", arXiv:2304.08485: the first stage.
    """
    names = ("turn_open", "turn_close", "after_images", "before_text", "answer_open")
    bare = {**dict.fromkeys(names, ""), "roles": ()}
    return dataclasses.replace(template, system=None, **bare)


def plain_messages(messages: Sequence[Message]) -> list[Message]:
    """Returns a captioned picture without its question: the pictures, the caption, a line break.

    The line break is part of the caption's text, because released code encodes both together.

    Raises:
      PromptError: not one user turn with a picture and its answer.
    """
    roles = [message.role for message in messages]
    pictures = sum(len(message.items) for message in messages)
    if roles != ["user", "assistant"] or not pictures:
        raise PromptError(
            f"prompt: the plain template takes a picture and its caption, but there are "
            f"{len(roles)} turns ({', '.join(roles)}) and {pictures} pictures."
        )
    caption = "".join(part for part in messages[1].parts if isinstance(part, str))
    return [
        Message(role="user", parts=messages[0].items),
        Message(role="assistant", parts=(f"{caption}\n",)),
    ]


def tokenize_messages(
    messages: Sequence[Message],
    template: ChatTemplate,
    tokenizer: Tokenizer,
    *,
    generation_prompt: bool = False,
    label_mask: str | None = None,
    clips: Mapping[int, tuple[str, str]] | None = None,
) -> list[Piece]:
    """Returns the pieces of a conversation, in order.

    Args:
      messages: the turns; the template's system turn is put before them unless they bring one.
      template: trusted text around turns and pictures.
      tokenizer: both doors.
      generation_prompt: end with the opening of an assistant turn.
      label_mask: which tokens are to be predicted. None: nothing. `answer`: the assistant's text
        and the close of its turn. `released`: as NativeRes-LLaVA's training did, assistant turns
        with their header, and in all turns the control tokens of the template and line breaks.
      clips: by item, what a template whose texts are joined writes before and behind a clip.

    Raises:
      PromptError: no turns, an unknown role, an empty turn, a misplaced picture.
    """
    always = _released_ids(template, tokenizer) if label_mask == "released" else frozenset()
    spans = lay_out(
        messages,
        template,
        generation_prompt=generation_prompt,
        label_mask=label_mask,
        clips=clips,
    )
    return [_encoded(span, tokenizer, always) for span in spans]


def lay_out(
    messages: Sequence[Message],
    template: ChatTemplate,
    *,
    generation_prompt: bool = False,
    label_mask: str | None = None,
    clips: Mapping[int, tuple[str, str]] | None = None,
) -> list[Span]:
    """Returns what `tokenize_messages` encodes, span by span; arguments and errors are its own."""
    check_messages(messages)
    if label_mask not in (None, *LABEL_MASKS):
        raise PromptError(f"prompt: label_mask={label_mask!r}; have {', '.join(LABEL_MASKS)}.")
    spans = [Span(template.start, None, True)]
    if messages[0].role != "system" and template.system is not None:
        spans += _turn("system", [template.system], template, label_mask, clips={}, is_trusted=True)
    for message in messages:
        spans += _turn(message.role, message.parts, template, label_mask, clips=clips or {})
    if generation_prompt:
        spans.append(Span(template.opening("assistant"), is_trusted=True))
    spans = [span for span in spans if span.text or span.item is not None]
    return list(_joined(spans)) if template.is_joined else spans


def _joined(spans: Sequence[Span]) -> Iterator[Span]:
    """Texts between pictures and control tokens as one each, without a door for control tokens.

    What a template writes behind the last control token of an answer is not to be predicted: it
    becomes one text with what opens the next turn.
    """
    held: list[Span] = []
    parts = itertools.chain.from_iterable(map(_control_apart, spans))
    for span in [*parts, None]:
        is_control = span and span.is_trusted and span.text[:1] + span.text[-1:] == "<>"
        if span and span.item is None and not is_control:
            held.append(span)
            continue
        if held:
            prompt = "".join(part.text for part in held if not part.is_answer)
            answer = "".join(part.text for part in held if part.is_answer)
            yield Span(prompt + answer, None, False, bool(answer), len(prompt))
            held = []
        if span:
            yield span


def _control_apart(span: Span) -> Iterator[Span]:
    """A template's text with each control token as a span of its own."""
    texts = [text for text in _CONTROL.split(span.text) if text] if span.is_trusted else []
    if len(texts) < 2:
        yield span
        return
    last = max(i for i, text in enumerate(texts) if _CONTROL.fullmatch(text))
    for i, text in enumerate(texts):
        yield span._replace(text=text, is_answer=span.is_answer and i <= last)


def check_messages(messages: Sequence[Message]) -> None:
    """Raises `PromptError` unless the turns can become a prompt."""
    if not messages:
        raise PromptError("prompt: no turns. Give at least a question.")
    seen: set[int] = set()
    for i, message in enumerate(messages):
        where = f"prompt: turn {i} ({message.role})"
        if message.role not in ROLES:
            raise PromptError(
                f"prompt: turn {i} has role {message.role!r}; have {', '.join(ROLES)}."
            )
        if message.role == "system" and i:
            raise PromptError(f"{where} comes late. Only the first turn can be a system turn.")
        if not message.parts:
            raise PromptError(f"{where} is empty. Give it a text or a picture.")
        texts = [part for part in message.parts if isinstance(part, str)]
        if texts and not any(text.strip() for text in texts):
            raise PromptError(f"{where} has an empty text. Write the question.")
        if message.items and message.role != "user":
            raise PromptError(f"{where} has a picture. Only user turns can have pictures.")
        for item in message.items:
            if item in seen:
                raise PromptError(f"{where} places picture {item} a second time. Place it once.")
            seen.add(item)


def _turn(
    role: str,
    parts: Sequence[str | int],
    template: ChatTemplate,
    label_mask: str | None,
    *,
    clips: Mapping[int, tuple[str, str]],
    is_trusted: bool = False,
) -> Iterator[Span]:
    answer = role == "assistant" and label_mask is not None
    header = answer and label_mask == "released"
    last_picture = max((i for i, part in enumerate(parts) if isinstance(part, int)), default=-1)
    yield Span(template.opening(role), None, True, header)
    if role == "assistant":
        yield Span(template.answer_open, None, True, answer)
    elif isinstance(parts[0], str) or parts[0] in clips:
        yield Span(template.before_text, None, True)
    for i, part in enumerate(parts):
        if isinstance(part, int):
            before, behind = clips.get(part, ("", ""))
            yield Span(before, None, True)
            yield Span("", part)
            yield Span(behind, None, True)
            if i == last_picture and i + 1 < len(parts):
                yield Span(template.after_images, None, True)
        else:
            yield Span(part, None, is_trusted, answer)
    yield Span(template.closing(role), None, True, answer)


def _encoded(span: Span, tokenizer: Tokenizer, always: frozenset[int]) -> Piece:
    if span.item is not None:
        return Piece((), span.item)
    if span.answer_start:
        ids, starts = tokenizer.encode_text_with_starts(span.text)
        answer = [span.is_answer and start >= span.answer_start for start in starts]
    else:
        encode = tokenizer.encode_trusted if span.is_trusted else tokenizer.encode_text
        ids = encode(span.text)
        answer = [span.is_answer] * len(ids)
    mask = (flag or token in always for flag, token in zip(answer, ids, strict=True))
    return Piece(tuple(ids), None, tuple(mask))


def _released_ids(template: ChatTemplate, tokenizer: Tokenizer) -> frozenset[int]:
    """Predicted in every turn: control tokens of the template, and line breaks."""
    control = tokenizer.control_token_ids
    frame = tokenizer.encode_trusted(template.opening("user") + template.closing("user"))
    return frozenset(
        {token for token in frame if token in control} | set(tokenizer.encode_trusted("\n"))
    )

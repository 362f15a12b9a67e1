"""Conversations -> token pieces. A prompt is never rendered to one string and encoded afterwards.

Template parts are trusted and encoded with control tokens on; what people wrote is encoded with
control tokens off, piece by piece. So nobody can forge a turn or a picture by typing.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from mres_jax.data.spec import ChatTemplate
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.errors import PromptError

ROLES = ("system", "user", "assistant")
LABEL_MASKS = ("answer", "released")


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
      pictures_first: put the pictures of a turn before its text, as LLaVA's training does.

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
        if pictures_first:
            parts.sort(key=lambda part: isinstance(part, str))
        messages.append(Message(role=role, parts=tuple(parts)))
    if placed != num_images:
        raise PromptError(
            f"prompt: {placed} {placeholder} placeholders, but {num_images} pictures. Give as many "
            "placeholders as pictures."
        )
    return messages


def tokenize_messages(
    messages: Sequence[Message],
    template: ChatTemplate,
    tokenizer: Tokenizer,
    *,
    generation_prompt: bool = False,
    label_mask: str | None = None,
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

    Raises:
      PromptError: no turns, an unknown role, an empty turn, a misplaced picture.
    """
    check_messages(messages)
    writer = _Writer(template, tokenizer, label_mask)
    if messages[0].role != "system" and template.system is not None:
        writer.turn("system", [template.system], trusted=True)
    for message in messages:
        writer.turn(message.role, message.parts)
    if generation_prompt:
        writer.trusted(template.turn_open.format(role="assistant"), False)
    return writer.pieces


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
        if any(isinstance(part, str) and not part.strip() for part in message.parts):
            raise PromptError(f"{where} has an empty text. Write the question.")
        if message.items and message.role != "user":
            raise PromptError(f"{where} has a picture. Only user turns can have pictures.")
        for item in message.items:
            if item in seen:
                raise PromptError(f"{where} places picture {item} a second time. Place it once.")
            seen.add(item)


class _Writer:
    """Collects the pieces of one conversation."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer, label_mask: str | None):
        if label_mask not in (None, *LABEL_MASKS):
            raise PromptError(f"prompt: label_mask={label_mask!r}; have {', '.join(LABEL_MASKS)}.")
        self.template, self.tokenizer, self.label_mask = template, tokenizer, label_mask
        self.pieces: list[Piece] = []
        self.always = self._released_ids() if label_mask == "released" else frozenset()

    def turn(self, role: str, parts: Sequence[str | int], *, trusted: bool = False) -> None:
        """Writes one turn."""
        template, answer = self.template, role == "assistant" and self.label_mask is not None
        encode = self.tokenizer.encode_trusted if trusted else self.tokenizer.encode_text
        last_picture = max((i for i, part in enumerate(parts) if isinstance(part, int)), default=-1)
        self.trusted(template.turn_open.format(role=role), answer and self.label_mask == "released")
        for i, part in enumerate(parts):
            if isinstance(part, int):
                self.pieces.append(Piece((), part))
                if i == last_picture and i + 1 < len(parts):
                    self.trusted(template.after_images, False)
            else:
                self._tokens(encode(part), answer)
        self.trusted(template.turn_close, answer)

    def trusted(self, text: str, answer: bool) -> None:
        """Writes a template's text."""
        if text:
            self._tokens(self.tokenizer.encode_trusted(text), answer)

    def _tokens(self, ids: Sequence[int], answer: bool) -> None:
        mask = tuple(answer or token in self.always for token in ids)
        self.pieces.append(Piece(tuple(ids), None, mask))

    def _released_ids(self) -> frozenset[int]:
        frame = self.template.turn_open + self.template.turn_close
        control = self.tokenizer.control_token_ids
        ids = {i for i in self.tokenizer.encode_trusted(frame) if i in control}
        return frozenset(ids | set(self.tokenizer.encode_trusted("\n")))

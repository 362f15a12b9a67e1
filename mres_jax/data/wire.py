"""Chats in OpenAI's wire format <-> turns and pictures. Any server or client of ours speaks this.

A picture is an `image_url` part of a user turn: a data URL, or the address of a file, which is only
told here and never fetched.

Reference:
  OpenAI's API reference, "Create chat completion", `messages`.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mres_jax.errors import BadImageError, PromptError, suggest

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
DETAILS = (None, "auto", "low", "high")  # a client's wish; what is looked at is the policy's say
_HEAD = 200  # characters within which a data URL comes to its comma


class Chat(NamedTuple):
    """A conversation that ends with a question.

    Attributes:
      turns: `(role, parts)`, see `mres_jax.protocols.Request`; neighbouring texts are joined.
      urls: of the pictures, by their index in the parts.
    """

    turns: tuple[tuple[str, tuple[str | int, ...]], ...]
    urls: tuple[str, ...]

    @property
    def question(self) -> str:
        """The text of the last turn, which is what policies read."""
        return "".join(part for part in self.turns[-1][1] if isinstance(part, str))


def parse_messages(messages: Any) -> Chat:
    """Returns what a client wrote.

    Raises:
      PromptError: not a list of turns; a role, part or field that has no meaning here; an empty
        turn; a last turn that is not the user's. It names the turn.
    """
    if not isinstance(messages, list) or not messages:
        raise PromptError("messages: give a list of turns, {role, content} each, at least one.")
    urls: list[str] = []
    turns = tuple(_turn(i, message, urls) for i, message in enumerate(messages))
    if turns[-1][0] != "user":
        raise PromptError(
            f"messages: turn {len(turns) - 1}, the last, is of role {turns[-1][0]!r}; a chat ends "
            "with a user turn."
        )
    return Chat(turns, tuple(urls))


def picture_urls(messages: Any) -> list[str]:
    """Returns the addresses of all pictures, in order; other parts are not looked at.

    Raises:
      PromptError: an `image_url` part without an address.
    """
    return [_url(part, f"messages: turn {turn}") for turn, part in _picture_parts(messages)]


def with_pictures(messages: Any, replace: Callable[[int], Sequence[str]]) -> Any:
    """Returns the messages with each picture replaced; all else is as it was.

    Args:
      messages: as a client wrote them.
      replace: index of a picture -> addresses of what shall stand there.
    """
    count = 0
    changed = []
    for message in messages:
        if isinstance(message, dict) and isinstance(message.get("content"), list):
            parts: list[Any] = []
            for part in message["content"]:
                if _is_picture(part):
                    parts += [picture_part(url) for url in replace(count)]
                    count += 1
                else:
                    parts.append(part)
            message = message | {"content": parts}
        changed.append(message)
    return changed


def question_of(messages: Any) -> str:
    """Returns the text of the last user turn; "" where there is none."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            parts = content if isinstance(content, list) else [{"text": content}]
            texts = [part.get("text") for part in parts if isinstance(part, dict)]
            return "".join(text for text in texts if isinstance(text, str))
    return ""


def picture_part(url: str) -> dict[str, Any]:
    """Returns a picture as a part of a user turn."""
    return {"type": "image_url", "image_url": {"url": url}}


def clip_part(frames: Sequence[bytes]) -> dict[str, Any]:
    """Returns frames of one size, files of pictures, as a clip in a user turn: vLLM's own form.

    It writes `video/jpeg` for frames one behind another, whatever kind of files they are.
    """
    content = ",".join(base64.b64encode(frame).decode() for frame in frames)
    return {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{content}"}}


def data_url(content: bytes, kind: str = "image/png") -> str:
    """Returns the bytes of a file as an address that holds them.

    Example:
      >>> data_url(b"hi", "text/plain")
      'data:text/plain;base64,aGk='
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def is_data_url(url: str) -> bool:
    """Whether an address holds the file itself."""
    return url[:5].lower() == "data:"


def read_data_url(url: str, *, name: str) -> bytes:
    """Returns the bytes that an address holds; what kind of file it says it is does not matter.

    Raises:
      BadImageError: it is not `data:TYPE;base64,BYTES`; `name` says which picture.
    """
    comma = url.find(",", 0, _HEAD)
    if not is_data_url(url) or not url[: max(comma, 0)].lower().endswith(";base64"):
        raise BadImageError(
            f"picture {name}: it is no data URL of base64. Write data:image/png;base64,BYTES."
        )
    try:
        return base64.b64decode(url[comma + 1 :], validate=True)
    except (binascii.Error, ValueError):
        raise BadImageError(f"picture {name}: its base64 is damaged or cut off.") from None


def _turn(i: int, message: Any, urls: list[str]) -> tuple[str, tuple[str | int, ...]]:
    where = f"messages: turn {i}"
    if not isinstance(message, dict):
        raise PromptError(f"{where} is not an object of role and content.")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        near = suggest(role, ROLES) if isinstance(role, str) else ""
        raise PromptError(f"{where} has role {role!r}{near}; have {', '.join(ROLES)}.")
    for key, value in message.items():
        if key not in ("role", "content", "name", "refusal") and value not in (None, [], {}):
            raise PromptError(f"{where}: {key!r} has no meaning here. Leave it out.")
    parts = list(_parts(message.get("content"), where, urls))
    if not parts:
        raise PromptError(f"{where} ({role}) is empty. Give it a text or a picture.")
    return ROLES[role], tuple(parts)


def _parts(content: Any, where: str, urls: list[str]) -> Iterator[str | int]:
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise PromptError(f"{where}: its content must be a text or a list of parts.")
    text = ""
    for part in content:
        if _is_picture(part):
            if text:
                yield text
            text = ""
            urls.append(_url(part, where))
            yield len(urls) - 1
        else:
            text += _text(part, where)
    if text:
        yield text


def _text(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and "video" in kind:
        raise PromptError(
            f"{where} has a clip ({kind}); send its frames in order, each as an image_url."
        )
    if kind != "text":
        raise PromptError(f"{where} has a part of type {kind!r}; have text, image_url.")
    text = part.get("text")
    if not isinstance(text, str):
        raise PromptError(f"{where} has a text part without a text.")
    if not text.isprintable() and any("\ud800" <= c <= "\udfff" for c in text):
        raise PromptError(f"{where}: its text holds half of a surrogate pair, which is no text.")
    return text


def _is_picture(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image_url"


def _picture_parts(messages: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for turn, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else []:
            if _is_picture(part):
                yield turn, part


def _url(part: Mapping[str, Any], where: str) -> str:
    holder = part.get("image_url")
    url = holder.get("url") if isinstance(holder, dict) else holder
    if not isinstance(url, str) or not url:
        raise PromptError(f'{where} has a picture without address: write {{"url": "data:..."}}.')
    detail = holder.get("detail") if isinstance(holder, dict) else None
    if detail not in DETAILS:
        raise PromptError(f"{where}: detail={detail!r}; have auto, low, high.")
    return url

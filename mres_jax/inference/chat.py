"""A request in OpenAI's form: what stands in its turns, as what it is sent, and what it counts.

Every view is a picture; of a clip each group of frames is a clip of its own behind a line that says
its time, since frames of one clip have one size.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mres_jax.data.assemble import measure
from mres_jax.data.conversations import Message, prompt_messages
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.views import render_view
from mres_jax.data.wire import clip_part, data_url, picture_part
from mres_jax.errors import PromptError
from mres_jax.geometry import View
from mres_jax.inference.show import png
from mres_jax.protocols import Clip, Request

Turn = tuple[str, list[str | View]]


def time_text(seconds: float) -> str:
    """Returns how the time of a frame is written before it, as Qwen3-VL reads it.

    Example:
      >>> time_text(2.5)
      '<2.5 seconds>'
    """
    return f"<{seconds:.1f} seconds>"


def lay_out(request: Request, views: Sequence[View]) -> list[Turn]:
    """Returns the turns of a request with views where its items stand; no two texts are neighbours.

    Raises:
      PromptError: an item with views that stands in no turn.
    """
    turns: Any = request.turns or [
        (turn.role, turn.parts)
        for turn in prompt_messages(
            request.question, num_images=len(request.images), history=request.history
        )
    ]
    placed = {part for _, parts in turns for part in parts if isinstance(part, int)}
    if lost := sorted({view.item for view in views} - placed):
        raise PromptError(
            f"request {request.id!r}: picture {lost[0]} stands in no turn. Write its number among "
            "the parts of one."
        )
    return [(role, list(_joined(_shown(part, views) for part in parts))) for role, parts in turns]


def _shown(part: str | int, views: Sequence[View]) -> list[str | View]:
    """A text, or the views of an item."""
    if isinstance(part, str):
        return [part]
    shown: list[str | View] = []
    for view in views:
        if view.item == part:
            shown += [time_text(view.time or 0.0), view] if view.frames else [view]
    return shown


def _joined(groups: Any) -> Any:
    """Neighbouring texts are one: servers join several as lines."""
    parts = itertools.chain.from_iterable(groups)
    for is_text, some in itertools.groupby(parts, lambda part: isinstance(part, str)):
        if is_text:
            yield "".join(some)
        else:
            yield from some


def chat_messages(
    request: Request, views: Sequence[View], spec: ProcessorSpec
) -> list[dict[str, Any]]:
    """Returns a request as a chat: views as PNG where their items stand, texts as such.

    A turn without pictures is a plain text, which all servers take.

    Raises:
      PromptError: an item with views that stands in no turn.
    """
    return [
        {"role": role, "content": _content(request, parts, spec)}
        for role, parts in lay_out(request, views)
    ]


def _content(
    request: Request, parts: Sequence[str | View], spec: ProcessorSpec
) -> str | list[dict[str, Any]]:
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else _part(request.images[part.item], part, spec)
        for part in parts
    ]


def _part(item: np.ndarray | Clip, view: View, spec: ProcessorSpec) -> dict[str, Any]:
    settings: Mapping[str, Any] = {
        "background": spec.background,
        "pad_first": spec.pad_first,
        "resample": spec.resample,
    }
    if isinstance(item, Clip):
        frames = (item.frames[i] for i in view.frames)
        return clip_part([png(render_view(frame, view, **settings)) for frame in frames])
    return picture_part(data_url(png(render_view(item, view, **settings))))


def prompt_tokens(
    request: Request, views: Sequence[View], spec: ProcessorSpec, tokenizer: Tokenizer
) -> int:
    """Returns the tokens that a chat comes to behind a server which changes no pixel.

    A picture or a group of frames takes `height * width / stride**2` px of its view, and what the
    template writes around it; the rest is text.

    Raises:
      PromptError: as `chat_messages`; a view that is not whole visual tokens.
    """
    placed: list[View] = []
    messages, numbers = [], itertools.count()
    for role, parts in lay_out(request, views):
        items: dict[Any, int] = {}  # views of one picture stand together, groups of frames alone
        written: list[str | int] = []
        for number, part in enumerate(parts):
            if isinstance(part, str):
                written.append(part)
                continue
            key = ("group", number) if part.frames else part.item
            if key not in items:
                items[key] = next(numbers)
                written.append(items[key])
            placed.append(dataclasses.replace(part, item=items[key]))
        messages.append(Message(role=role, parts=tuple(written)))
    return measure(placed, messages, spec, tokenizer, generation_prompt=True).num_tokens

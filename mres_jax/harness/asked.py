"""What lmms-eval hands over for one question -> a request of ours.

Reference:
  lmms-eval 0.7.3: `Instance.args` as its tasks make them (api/task.py), and as its guide for models
  (docs/guides/model_guide.md) describes them, which differ.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.video import FrameSampling, is_clip, open_clip
from mres_jax.data.wire import ROLES
from mres_jax.errors import MresError, PromptError
from mres_jax.inference.handle import to_pixels
from mres_jax.protocols import Clip, Item, Request

Turns = tuple[tuple[str, tuple[str | int, ...]], ...]
_FORMS = (
    "(context, doc_to_messages, generation_kwargs, doc_id, task, split)",
    "(doc_to_messages, generation_kwargs, doc_id, task, split)",
    "(context, generation_kwargs, doc_to_visual, doc_id, task, split)",
)


class Asked(NamedTuple):
    """One question of a harness.

    Attributes:
      task, split, doc_id: where its document stands.
      options: how an answer is generated, as the task says it.
      messages: document -> turns of a chat, in the harness's form.
    """

    task: str
    split: str
    doc_id: Any
    options: Mapping[str, Any]
    messages: Callable[..., Any]

    @property
    def name(self) -> str:
        """What errors and random keys know it by."""
        return f"{self.task}/{self.split}/{self.doc_id}"


def read_arguments(args: Sequence[Any]) -> Asked:
    """Returns the arguments of a harness's request, in any of its three forms.

    Raises:
      MresError: another form, so that a change of the harness is seen.
    """
    match tuple(args):
        case (str(), show, Mapping() as options, doc_id, str(task), str(split)) if callable(show):
            return Asked(task, split, doc_id, options, show)
        case (show, Mapping() as options, doc_id, str(task), str(split)) if callable(show):
            return Asked(task, split, doc_id, options, show)
        case (str(context), Mapping() as options, show, doc_id, str(task), str(split)) if callable(
            show
        ):
            return Asked(task, split, doc_id, options, _visuals_first(context, show))
        case other:
            kinds = ", ".join(type(value).__name__ for value in other)
            raise MresError(
                f"lmms-eval: a request has {len(other)} arguments ({kinds}); known are "
                f"{', '.join(_FORMS)}. Install the version of lmms-eval that pyproject.toml names."
            )


def _visuals_first(context: str, show: Callable[..., Any]) -> Callable[..., Any]:
    """Messages of the form without messages: everything visual, then the text."""

    def messages(document: Any) -> list[dict[str, Any]]:
        parts = [{"type": _kind(visual), "url": visual} for visual in show(document) or ()]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": context}]}]

    return messages


def _kind(visual: Any) -> str:
    return "video" if isinstance(visual, str) and is_clip(visual) else "image"


def to_request(
    messages: Sequence[Mapping[str, Any]],
    *,
    id: str,
    policy: str,
    spec: ProcessorSpec,
    fps: float | None = None,
    max_frames: int | None = None,
) -> Request:
    """Returns a chat of the harness as a request, its pictures and clips opened.

    Args:
      messages: turns, {role, content} each; content is parts {type, text or url}.
      id: of the request.
      policy: how pixels are chosen.
      spec: of the model, which samples clips.
      fps: frames per second of video instead of the model's.
      max_frames: of a clip, instead of the model's.

    Raises:
      MresError: a part or a role that a model here cannot take; a picture or a clip that cannot be
        read. It names the request.
    """
    sampling = FrameSampling.of(spec, fps=fps, max_frames=max_frames)
    items: list[Item] = []
    turns = []
    for turn, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise PromptError(f"{id}: turn {turn} has role {role!r}; have {', '.join(ROLES)}.")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        turns.append((ROLES[role], _parts(parts or (), items, sampling, id)))
    if not turns or not turns[-1][1]:
        raise PromptError(f"{id}: it asks nothing.")
    question = "".join(part for part in turns[-1][1] if isinstance(part, str))
    return Request(id=id, question=question, images=items, policy=policy, turns=tuple(turns))


def _parts(
    parts: Sequence[Mapping[str, Any]], items: list[Item], sampling: FrameSampling, name: str
) -> tuple[str | int, ...]:
    """Texts and the numbers of items; neighbouring texts are one."""
    made: list[str | int] = []
    for part in parts:
        if part.get("type") != "text":
            made.append(len(items))
            items.append(_open(part, len(items), sampling, name))
        elif made and isinstance(made[-1], str):
            made[-1] += str(part["text"])
        else:
            made.append(str(part["text"]))
    return tuple(part for part in made if part != "")


def _open(part: Mapping[str, Any], number: int, sampling: FrameSampling, name: str) -> Item:
    kind, source = part.get("type"), part.get("url")
    if kind not in ("image", "video"):
        raise PromptError(f"{name}: a part of type {kind!r}; a model here sees, it does not hear.")
    cut = [key for key in ("start_time", "end_time") if part.get(key) is not None]
    if cut or isinstance(source, Mapping):
        raise PromptError(
            f"{name}: only a part of a video is asked about ({', '.join(cut) or 'a mapping'}); cut "
            "the file first."
        )
    try:
        if kind == "image":
            return to_pixels(source, name=f"{number}")  # type: ignore[arg-type]
        if not isinstance(source, str | os.PathLike | list | Clip):
            raise MresError(f"a video is a {type(source).__name__}, no path and no frames.")
        return open_clip(source, sampling, fps=sampling.fps)
    except MresError as error:
        raise type(error)(f"{name}: {error}") from None

"""A model here as a harness asks it: requests in, texts and what they cost out."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from mres_jax.errors import ConfigError, MresError
from mres_jax.harness.asked import Asked, read_arguments, to_request
from mres_jax.harness.options import to_sampling
from mres_jax.harness.places import check_space, for_task, kind_for
from mres_jax.inference import VLM, load
from mres_jax.inference.view_json import whole_view_to_json
from mres_jax.protocols import Answer, Request, Sampling, extent_of
from mres_jax.resolution.policies import check_policy, parse_policy

EVERY = 4.0  # s between two lines of progress
TOGETHER = 32  # questions opened and answered at a time, where the harness leaves it to the model


@runtime_checkable
class Instance(Protocol):
    """What a harness calls one request."""

    args: tuple[Any, ...]


class Generated(NamedTuple):
    """One answer for a harness.

    Attributes:
      text: that its task scores.
      num_input, num_output: tokens of the prompt, visual ones included, and of the answer.
      facts: what was looked at and what it cost; plain values.
    """

    text: str
    num_input: int
    num_output: int
    facts: dict[str, Any]


class HarnessModel:
    """Answers the requests of lmms-eval; `plugin` makes a model of the harness out of it.

    Attributes:
      vlm: the model.
      policy: how pixels are chosen, in its canonical spelling.
      task_dict: documents by task and split; the harness puts them there.
    """

    task_dict: Mapping[str, Any]

    def __init__(
        self,
        *,
        pretrained: str | None = None,
        policy: str | None = None,
        dtype: str | None = None,
        max_new_tokens: int = 128,
        fps: float | None = None,
        max_frames: int | None = None,
        coord_space: str = "task",
        seed: int = 0,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        vlm: VLM | None = None,
        **unknown: Any,
    ):
        """Loads the model.

        Args:
          pretrained: directory or hub id; None takes the shipped one.
          policy: how pixels are chosen, for example `budget:256`; None takes the model's own. One
            with commas stands in quotes: `policy="fixed,tokens=182"`.
          dtype: of weights and arithmetic; None takes what suits the device.
          max_new_tokens: of an answer, where a task names no length.
          fps, max_frames: of clips, instead of the model's.
          coord_space: `task` writes places as the task reads them, see `places.for_task`; `model`
            leaves answers as they are.
          seed: of drawn tokens.
          batch_size: questions opened and answered at a time, or `auto`; answers do not depend on
            it.
          max_batch_size: at most so many.
          device: the harness's; None or where jax runs.
          vlm: a model that is loaded already, in place of `pretrained`.
          **unknown: nothing; the parts of a policy that was not quoted end up here.

        Raises:
          MresError: an option that is none; a model or a policy that cannot be had.
        """
        if unknown:
            names = ", ".join(unknown)
            raise ConfigError(
                f"model_args: {names}: no such option. A policy with commas stands in quotes: "
                'policy="fixed,tokens=182".'
            )
        _check_device(device)
        check_space(coord_space)
        self.vlm = vlm or load(pretrained, dtype=dtype)
        chosen = parse_policy(_unquoted(policy) if policy else self.vlm.answerer.policy)
        check_policy(chosen, self.vlm.spec)
        self.policy, self.max_new_tokens = str(chosen), _count("max_new_tokens", max_new_tokens)
        self.fps, self.max_frames, self.seed = fps, max_frames, seed
        self.rewrites = coord_space == "task"
        size = TOGETHER if str(batch_size).startswith("auto") else _count("batch_size", batch_size)
        self.batch_size = min(
            size, _count("max_batch_size", size if max_batch_size is None else max_batch_size)
        )

    def generate(self, requests: Sequence[Instance]) -> list[Generated]:
        """Answers requests, in their order.

        Raises:
          MresError: one that cannot be asked; it names task, split and document.
        """
        asked = [read_arguments(request.args) for request in requests]
        names = list(_names(asked))
        by_sampling: dict[Sampling, list[int]] = {}
        for i, (one, name) in enumerate(zip(asked, names, strict=True)):
            sampling = to_sampling(one.options, max_new_tokens=self.max_new_tokens, name=name)
            by_sampling.setdefault(sampling, []).append(i)
        made: dict[int, Generated] = {}
        say = _progress(len(requests))
        for sampling, numbers in by_sampling.items():
            for at in range(0, len(numbers), self.batch_size):
                some = numbers[at : at + self.batch_size]
                batch = [(asked[i], names[i]) for i in some]
                made |= zip(some, self._answer(batch, sampling), strict=True)
                say(len(made))
        return [made[i] for i in range(len(requests))]

    def _answer(
        self, batch: Sequence[tuple[Asked, str]], sampling: Sampling
    ) -> Iterator[Generated]:
        requests = [self._request(asked, name) for asked, name in batch]
        answers = self.vlm.answer_batch(requests, sampling=sampling, seed=self.seed)
        for (asked, _), request, some in zip(batch, requests, answers, strict=True):
            yield self._generated(asked.task, request, some[0])

    def _request(self, asked: Asked, name: str) -> Request:
        document = self.task_dict[asked.task][asked.split][asked.doc_id]
        return to_request(
            asked.messages(document),
            id=name,
            policy=self.policy,
            spec=self.vlm.spec,
            fps=self.fps,
            max_frames=self.max_frames,
        )

    def _generated(self, task: str, request: Request, answer: Answer) -> Generated:
        kind, cost = kind_for(task) if self.rewrites else None, answer.cost
        text = for_task(answer, request.images, kind) if kind else answer.text
        facts = {
            "policy": self.policy,
            "visual_tokens": cost.visual_tokens,
            "text_tokens": cost.text_tokens,
            "retention_ratio": cost.retention_ratio,
            "items_px": [_sides(extent_of(item)) for item in request.images],
            "views": [whole_view_to_json(view, self.vlm.spec) for view in answer.views],
            "flops": cost.flops,
            "ms": {name: round(value, 3) for name, value in cost.ms.items()},
            "finish_reason": answer.finish_reason,
            **({"coord_frame": answer.coord_frame, "model_text": answer.text} if kind else {}),
            **({"note": answer.note} if answer.note else {}),
        }
        return Generated(text, cost.visual_tokens + cost.text_tokens, cost.new_tokens, facts)


def _sides(extent: Any) -> list[int]:
    return list(getattr(extent, "size", extent))


def _names(asked: Sequence[Asked]) -> Iterator[str]:
    """Names of questions; a harness repeats a request to have it answered several times."""
    seen: dict[str, int] = {}
    for one in asked:
        count = seen[one.name] = seen.get(one.name, 0) + 1
        yield one.name if count == 1 else f"{one.name}#{count}"


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _count(name: str, value: Any) -> int:
    try:
        count = int(value)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise ConfigError(f"{name}={value!r} is no whole number of at least 1.")
    return count


def _check_device(device: str | None) -> None:
    """Raises where the harness wants another device than jax's, or several processes share it."""
    here = jax.default_backend()
    wanted = {"cuda": "gpu"}.get((device or here).partition(":")[0], (device or here))
    if wanted.partition(":")[0] != here:
        raise ConfigError(
            f"device={device}: jax runs on {here} here. Leave --device out, or set JAX_PLATFORMS."
        )
    if jax.process_count() > 1:
        raise MresError(
            f"lmms-eval: {jax.process_count()} processes of jax would each be asked everything. "
            "Start one, or serve the model (mres serve) and ask that."
        )


def _progress(total: int) -> Callable[[int], None]:
    last = time.monotonic()

    def say(done: int) -> None:
        nonlocal last
        if time.monotonic() - last > EVERY or done == total:
            last = time.monotonic()
            print(f"mres: {done:,} of {total:,} answers", file=sys.stderr, flush=True)

    return say

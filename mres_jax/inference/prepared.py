"""Requests that are ready to be packed, and what an answer to one of them cost."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mres_jax.data.canvases import narrowed
from mres_jax.data.conversations import Message, prompt_messages
from mres_jax.data.packing import PackPlan, pack
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import Example, Pack, Rung
from mres_jax.inference import cost
from mres_jax.inference.reduction import TokenReduction
from mres_jax.inference.turns import Completion
from mres_jax.protocols import Answer, Cost, Request


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request with its views cut, resized and tokenized.

    Attributes:
      id: of the request.
      example: its prompt.
      retention_ratio: visual tokens spent / at native resolution.
      host_ms: of making it.
      look_ms: of a policy that looked before it decided; 0 for others.
      look_flops: likewise.
    """

    id: str
    example: Example
    retention_ratio: float
    host_ms: float
    look_ms: float
    look_flops: float


class Packed:
    """Some prompts of a window in one pack."""

    def __init__(self, plan: PackPlan, prompts: Sequence[Prepared], rung: Rung):
        self.indices, self.prompts = plan.indices, [prompts[i] for i in plan.indices]
        self.pack, self.host_ms = pack_prepared(self.prompts, rung)


def rung_of(prompts: Sequence[Prepared], rung: Rung) -> Rung:
    """Returns a rung with the canvases that some prompts need, of those that it has."""
    return narrowed(rung, [c for prompt in prompts for c in prompt.example.canvases])


def pack_prepared(prompts: Sequence[Prepared], rung: Rung) -> tuple[Pack, float]:
    """Returns the pack of some prompts, and the ms that they took on the host so far."""
    start = time.perf_counter()
    packed = pack([prompt.example for prompt in prompts], rung)
    spent = 1e3 * (time.perf_counter() - start)
    return packed, spent + sum(prompt.host_ms for prompt in prompts)


def messages_of(request: Request, kept: Sequence[int]) -> list[Message]:
    """The turns; `kept` are the items that a policy left in."""
    if not request.turns:
        return prompt_messages(request.question, num_images=len(kept), history=request.history)
    place: dict[Any, int] = {item: i for i, item in enumerate(kept)}
    turns = []
    for role, parts in request.turns:
        shown = [place.get(p) if isinstance(p, int) else p for p in parts]
        turns.append(Message(role=role, parts=tuple(p for p in shown if p is not None)))
    return turns


def to_answer(
    prompt: Prepared,
    completion: Completion,
    text: str,
    ms: Mapping[str, float],
    *,
    config: Any,
    spec: ProcessorSpec,
    reduction: TokenReduction | None = None,
    prefill_flops: Callable[[Any, int], float] = cost.prefill_flops,
) -> Answer:
    """Returns an answer with its cost.

    Args:
      prompt: that was answered.
      completion: tokens.
      text: of them.
      ms: by stage.
      config: of the model.
      spec: of its processor.
      reduction: of the visual tokens behind the encoder; None where there was none.
      prefill_flops: of the decoder's configuration and the tokens of the prompt.
    """
    example = prompt.example
    seen = example.num_visual_tokens
    visual_tokens = seen if reduction is None else reduction.keep(seen)
    num_tokens = len(example.tokens) - (seen - visual_tokens)
    new_tokens = len(completion.token_ids)
    moving = 0 if example.still is None else int((~example.still).sum())
    flops = (
        prompt.look_flops
        + cost.encoder_flops(config, example.grids, moving=moving)
        + prefill_flops(config.text_config, num_tokens)
        + cost.decode_flops(config.text_config, num_tokens, new_tokens)
    )
    return Answer(
        text=text,
        token_ids=completion.token_ids,
        logprobs=completion.logprobs,
        entropies=completion.entropies,
        views=example.views,
        coord_frame=spec.coord_frame,
        finish_reason=completion.finish_reason,
        cost=Cost(
            visual_tokens=visual_tokens,
            text_tokens=num_tokens - visual_tokens,
            new_tokens=new_tokens,
            retention_ratio=prompt.retention_ratio * (visual_tokens / seen if seen else 1.0),
            flops=flops,
            ms=ms,
        ),
    )

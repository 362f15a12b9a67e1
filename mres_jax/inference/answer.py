"""Questions about pictures -> answers with their cost, by a model on this machine."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.packing import PackPlan, check_fits, pack
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import Example, Rung
from mres_jax.errors import MresError
from mres_jax.geometry import Size
from mres_jax.inference import cost
from mres_jax.inference.generate import ROWS, Completion, Generator
from mres_jax.inference.ladder import Ladders, default_ladders
from mres_jax.protocols import Answer, Cost, Request, Sampling
from mres_jax.resolution.cost import retention_ratio
from mres_jax.resolution.policies import check_policy, parse_policy
from mres_jax.resolution.policy import Policy

WINDOW = 256  # requests whose pictures are held at a time, and from which packs are filled


class LocalAnswerer:
    """Answers requests with a model in this process; an `mres_jax.protocols.Answerer`.

    Requests are packed together, so that one run of the encoder serves many pictures of any size.
    What is packed with a request does not change its answer beyond the rounding of sums.
    """

    def __init__(
        self,
        model: Any,
        spec: ProcessorSpec,
        tokenizer: Tokenizer,
        *,
        policy: str | None = None,
        ladder: Sequence[Rung] | None = None,
        max_context: int | None = None,
        rows: Sequence[int] = ROWS,
    ):
        """Makes an answerer; nothing is compiled before the first request.

        Args:
          model: an assembled model; its weights are read anew at every call.
          spec: the model's processor.
          tokenizer: the model's.
          policy: for requests that name none; the model's own when None.
          ladder: static lengths of the packs; chosen for the model when None.
          max_context: tokens of prompt and answer together; the model's own when None.
          rows: sizes of the caches, ascending.
        """
        self.model, self.spec, self.tokenizer = model, spec, tokenizer
        self.policy = policy or spec.default_policy
        self.generator = Generator(model, spec, max_context=max_context, rows=rows)
        limit = self.generator.max_context
        self.ladders = Ladders.of(ladder) if ladder else default_ladders(spec, limit)

    def answer(
        self,
        requests: Sequence[Request],
        *,
        n: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[list[Answer]]:
        """Returns `n` answers for each request, in the order of the requests.

        Answers depend on (request id, number of the answer, seed), not on what is asked beside it.

        Raises:
          MresError: a policy that does not exist or that the model cannot take; a prompt that is
            empty or does not fit. Where there are several requests it names the one at fault.
        """
        if n < 1:
            raise ValueError(f"answer: n={n} must be at least 1.")
        sampling = sampling or Sampling()
        policies = self._policies(requests)
        answers: list[list[Answer]] = []
        for at in range(0, len(requests), WINDOW):
            prompts = []
            for request in requests[at : at + WINDOW]:
                try:
                    policy = policies[request.policy or self.policy]
                    prompts.append(self._prepare(request, policy, sampling))
                except MresError as error:
                    if len(requests) == 1:
                        raise
                    raise type(error)(f"request {request.id!r}: {error}") from None
            answers += self._answer_window(prompts, n, sampling, seed)
        return answers

    def _policies(self, requests: Sequence[Request]) -> dict[str, Policy]:
        policies = {}
        for text in {request.policy or self.policy: None for request in requests}:
            policies[text] = parse_policy(text)
            check_policy(policies[text], self.spec)
        return policies

    def _prepare(self, request: Request, policy: Policy, sampling: Sampling) -> "_Prompt":
        start = time.perf_counter()
        sizes = [Size(*image.shape[:2]) for image in request.images]
        views = policy(sizes, request.question, self.spec)
        messages = prompt_messages(
            request.question, num_images=len(request.images), history=request.history
        )
        example = assemble(
            request.images, views, messages, self.spec, self.tokenizer, generation_prompt=True
        )
        self.generator.check_length(request.id, len(example.tokens), sampling.max_new_tokens)
        check_fits([example.size], self.ladders.largest(example.size))
        return _Prompt(
            id=request.id,
            example=example,
            retention_ratio=retention_ratio(views, sizes, self.spec),
            host_ms=1e3 * (time.perf_counter() - start),
        )

    def _answer_window(
        self, prompts: Sequence["_Prompt"], n: int, sampling: Sampling, seed: int
    ) -> list[list[Answer]]:
        answers: list[list[Answer]] = [[] for _ in prompts]
        for plan in self.ladders.plan([prompt.example.size for prompt in prompts]):
            some = self._answer_pack(plan, prompts=prompts, n=n, sampling=sampling, seed=seed)
            for i, here in zip(plan.indices, some, strict=True):
                answers[i] = here
        return answers

    def _answer_pack(
        self,
        plan: PackPlan,
        *,
        prompts: Sequence["_Prompt"],
        n: int,
        sampling: Sampling,
        seed: int,
    ) -> list[list[Answer]]:
        start = time.perf_counter()
        here = [prompts[i] for i in plan.indices]
        packed = pack([prompt.example for prompt in here], plan.rung)
        host_ms = 1e3 * (time.perf_counter() - start) + sum(prompt.host_ms for prompt in here)
        completions, ms = self.generator.generate(
            packed,
            [prompt.id for prompt in here],
            rung=plan.rung,
            sampling=sampling,
            n=n,
            seed=seed,
        )
        ms = {"host": host_ms, **ms}
        return [
            [self._to_answer(prompt, completion, ms) for completion in some]
            for prompt, some in zip(here, completions, strict=True)
        ]

    def _to_answer(self, prompt: "_Prompt", completion: Completion, ms: dict[str, float]) -> Answer:
        example, config = prompt.example, self.model.config
        visual_tokens = example.num_visual_tokens
        num_tokens, new_tokens = len(example.tokens), len(completion.token_ids)
        flops = (
            cost.encoder_flops(config, example.grids)
            + cost.prefill_flops(config.text_config, num_tokens)
            + cost.decode_flops(config.text_config, num_tokens, new_tokens)
        )
        return Answer(
            text=self.tokenizer.decode(completion.token_ids),
            token_ids=completion.token_ids,
            logprobs=completion.logprobs,
            entropies=completion.entropies,
            views=example.views,
            coord_frame=self.spec.coord_frame,
            finish_reason=completion.finish_reason,
            cost=Cost(
                visual_tokens=visual_tokens,
                text_tokens=num_tokens - visual_tokens,
                new_tokens=new_tokens,
                retention_ratio=prompt.retention_ratio,
                flops=flops,
                ms=ms,
            ),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Prompt:
    """A request that is ready to be packed."""

    id: str
    example: Example
    retention_ratio: float
    host_ms: float

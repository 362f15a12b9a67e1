"""Questions about pictures and clips -> answers with their cost, by a model on this machine."""

import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from mres_jax.data.assemble import assemble, measure
from mres_jax.data.packing import PackPlan, check_fits
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import Example, ExampleSize, Rung
from mres_jax.errors import MresError, PolicyError
from mres_jax.geometry import Extent, View
from mres_jax.inference import cost
from mres_jax.inference.allocators import Allocators
from mres_jax.inference.generate import ROWS, Generator
from mres_jax.inference.ladder import Ladders, default_ladders
from mres_jax.inference.pointing import places_text, relevance_map
from mres_jax.inference.prepared import (
    Packed,
    Prepared,
    messages_of,
    pack_prepared,
    rung_of,
    to_answer,
)
from mres_jax.inference.reduction import TokenReduction
from mres_jax.inference.text_stream import TextStream
from mres_jax.inference.turns import Asked, Completion
from mres_jax.inference.windows import groups_of, windows
from mres_jax.protocols import Answer, Request, Sampling, extent_of
from mres_jax.resolution.allocator.policy import AllocatorPolicy
from mres_jax.resolution.cost import retention_ratio
from mres_jax.resolution.policies import check_extents, check_policy, parse_policy
from mres_jax.resolution.policy import Policy
from mres_jax.resolution.zoom.passes import answer_in_passes
from mres_jax.resolution.zoom.policies import Zoom


@runtime_checkable
class Listener(Protocol):
    """Hears answers while they grow; it must be quick, since decoding waits for it."""

    def __call__(self, request: int, sample: int, text: str, /) -> bool:
        """Takes the text that is new; all of an answer's texts together are its text.

        Args:
          request: index of the request.
          sample: number of the answer to it.
          text: may be empty: then it is a question whether to go on.

        Returns:
          Whether the answer is no longer wanted and shall end here.
        """
        ...


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
        reduction: TokenReduction | None = None,
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
          reduction: of the visual tokens behind the encoder; none when None.
        """
        self.model, self.spec, self.tokenizer = model, spec, tokenizer
        self.policy = policy or spec.default_policy
        self.reduction = reduction
        self.generator = Generator(
            model, spec, max_context=max_context, rows=rows, reduce=reduction
        )
        limit = self.generator.max_context
        self.ladders = Ladders.of(ladder) if ladder else default_ladders(spec, limit)
        self.allocators = Allocators()

    def answer(
        self,
        requests: Sequence[Request],
        *,
        n: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
        listen: Listener | None = None,
    ) -> list[list[Answer]]:
        """Returns `n` answers for each request, in the order of the requests.

        Answers depend on (request id, number of the answer, seed), not on what is asked beside it,
        nor on whether somebody listens.

        Raises:
          MresError: a policy that does not exist or that the model cannot take; a prompt that is
            empty or does not fit. Where there are several requests it names the one at fault.
        """
        if listen is not None:
            self._check_one_pass(requests)
        return answer_in_passes(
            functools.partial(self._answer_once, listen=listen),
            requests,
            policy=self.policy,
            point=self.point,
            coord_frame=self.spec.coord_frame,
            n=n,
            sampling=sampling or Sampling(),
            seed=seed,
        )

    def point(self, requests: Sequence[Request]) -> list[Answer]:
        """Returns for each request the places that the model's answer to it hangs on.

        The text names up to `pointing.PLACES` of them, `(x, y)` in the model's coordinates, the one
        that matters most first; nothing is generated. See `mres_jax.inference.pointing`.

        Raises:
          PolicyError: requests with other than one view; visual tokens that are no grid, or that
            are reduced.
          MresError: as `answer`.
        """
        if self.reduction is not None:
            raise PolicyError(
                "policy zoom: source=gradient needs all visual tokens, but the answerer drops some "
                f"({self.reduction.method}). Use source=model."
            )
        answers: dict[int, Answer] = {}
        for at, prompts in self._windows(requests, Sampling(max_new_tokens=1)):
            for prompt in prompts:
                _check_one_view(prompt)
            for plan in self.ladders.plan([prompt.example.size for prompt in prompts]):
                here = [prompts[i] for i in plan.indices]
                places = [at + i for i in plan.indices]
                answers |= zip(places, self._point(here, plan.rung), strict=True)
        return [answers[i] for i in range(len(requests))]

    def _point(self, prompts: Sequence[Prepared], rung: Rung) -> list[Answer]:
        rung = rung_of(prompts, rung)
        packed, host_ms = pack_prepared(prompts, rung)
        found, ms = self.generator.relevance(packed, rung=rung)
        answers = []
        for prompt, relevance in zip(prompts, found, strict=True):
            (view,) = prompt.example.views
            seen = relevance_map(relevance, view, self.spec)
            answers.append(
                to_answer(
                    prompt,
                    Completion((), (), (), "stop"),
                    places_text(seen, view, self.spec.coord_frame),
                    {"host": host_ms, "gradient": ms},
                    config=self.model.config,
                    spec=self.spec,
                    prefill_flops=cost.relevance_flops,
                )
            )
        return answers

    def _check_one_pass(self, requests: Sequence[Request]) -> None:
        for text in dict.fromkeys(request.policy or self.policy for request in requests):
            if isinstance(parse_policy(text), Zoom):
                raise PolicyError(
                    f"policy {text}: it answers in two passes, and only the last is the answer, so "
                    "nothing can be written while it grows. Ask without a stream."
                )

    def _answer_once(
        self,
        requests: Sequence[Request],
        *,
        n: int,
        sampling: Sampling,
        seed: int,
        listen: Listener | None = None,
    ) -> list[list[Answer]]:
        answers: list[list[Answer]] = []
        for at, prompts in self._windows(requests, sampling):
            answers += self._answer_window(prompts, n, sampling, seed, _shifted(listen, at))
        return answers

    def _windows(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> Iterator[tuple[int, list[Prepared]]]:
        """Prompts of some requests at a time, with the place of the first; all policies first."""
        policies = self._policies(requests)

        def prepare(request: Request) -> Prepared:
            try:
                return self._prepare(request, policies[request.policy or self.policy], sampling)
            except MresError as error:
                if len(requests) == 1:
                    raise
                raise type(error)(f"request {request.id!r}: {error}") from None

        plan, at_once = self.ladders.plan, self.generator.at_once
        return windows(requests, prepare, plan=plan, at_once=at_once)

    def check(self, request: Request, max_new_tokens: int) -> int:
        """Returns the tokens of a prompt without making it: pictures are not resized.

        An allocator does not look: its pictures count as large as it could make them.

        Raises:
          MresError: what `answer` would raise for this request.
          PolicyError: also for `zoom`, whose prompts follow from an answer.
        """
        size = self.size(request)
        self.generator.check_length(request.id, size.num_tokens, max_new_tokens)
        check_fits([size], self.ladders.largest(size))
        return size.num_tokens

    def size(self, request: Request) -> ExampleSize:
        """Returns what the prompt of a request takes of a pack; nothing is made, as in `check`.

        Raises:
          MresError: as `check`, but for what is too long.
        """
        policy = self._policies([request])[request.policy or self.policy]
        sizes = [extent_of(item) for item in request.images]
        if not request.views:
            check_extents(policy, sizes, self.spec)
        if request.views or not isinstance(policy, AllocatorPolicy) or not sizes:
            views = list(request.views) or policy(sizes, request.question, self.spec)
        else:
            views = self.allocators.open(policy.weights).most(policy, sizes, self.spec)
        views, kept = _renumbered(views)
        messages = messages_of(request, kept)
        return measure(views, messages, self.spec, self.tokenizer, generation_prompt=True)

    def prompt(self, request: Request) -> Example:
        """Returns the prompt of a request as `answer` makes it: what a learner goes on from.

        Raises:
          MresError: as `answer`.
        """
        policy = self._policies([request])[request.policy or self.policy]
        return self._prepare(request, policy, Sampling(max_new_tokens=1)).example

    def check_policy(self, policy: str) -> None:
        """Raises `PolicyError` unless there is such a policy and the model can take it."""
        check_policy(parse_policy(policy), self.spec)

    def _policies(self, requests: Sequence[Request]) -> dict[str, Policy]:
        policies = {}
        for text in {request.policy or self.policy: None for request in requests}:
            policies[text] = parse_policy(text)
            check_policy(policies[text], self.spec)
        return policies

    def _prepare(self, request: Request, policy: Policy, sampling: Sampling) -> Prepared:
        start = time.perf_counter()
        sizes = [extent_of(item) for item in request.images]
        if not request.views:
            check_extents(policy, sizes, self.spec)
        views, look_flops, look_ms = self._look(request, policy, sizes)
        shown, kept = _renumbered(views)
        example = assemble(
            [request.images[item] for item in kept],
            shown,
            messages_of(request, kept),
            self.spec,
            self.tokenizer,
            generation_prompt=True,
        )
        seen = tuple(dataclasses.replace(view, item=kept[view.item]) for view in example.views)
        example = dataclasses.replace(example, views=seen)
        self.generator.check_length(request.id, len(example.tokens), sampling.max_new_tokens)
        check_fits([example.size], self.ladders.largest(example.size))
        return Prepared(
            id=request.id,
            example=example,
            retention_ratio=retention_ratio(views, sizes, self.spec),
            host_ms=1e3 * (time.perf_counter() - start) - look_ms,
            look_ms=look_ms,
            look_flops=look_flops,
        )

    def _look(
        self, request: Request, policy: Policy, sizes: Sequence[Extent]
    ) -> tuple[list[View], float, float]:
        """The views of a policy, and the FLOPs and ms of those that look before they decide."""
        if request.views:
            return list(request.views), 0.0, 0.0
        if not isinstance(policy, AllocatorPolicy) or not sizes:
            return policy(sizes, request.question, self.spec), 0.0, 0.0
        look = self.allocators.open(policy.weights).look(
            policy, request.images, request.question, self.spec
        )
        return look.views, look.flops, look.ms

    def _answer_window(
        self,
        prompts: Sequence[Prepared],
        n: int,
        sampling: Sampling,
        seed: int,
        listen: Listener | None,
    ) -> list[list[Answer]]:
        answers: list[list[Answer]] = [[] for _ in prompts]
        plans = self.ladders.plan([prompt.example.size for prompt in prompts])
        for rung, some in groups_of(plans, prompts, self.generator.at_once):
            self._answer_group(some, prompts, rung, n, sampling, seed, listen, answers)
        return answers

    def _answer_group(
        self,
        plans: Sequence[PackPlan],
        prompts: Sequence[Prepared],
        rung: Rung,
        n: int,
        sampling: Sampling,
        seed: int,
        listen: Listener | None,
        answers: list[list[Answer]],
    ) -> None:
        """Puts the answers of packs that take as long as one in their places; the packs go."""
        packs = [Packed(plan, prompts, rung) for plan in plans]
        watched = [self._watched(pack, n, sampling, listen) for pack in packs]
        completions, ms = self.generator.generate_together(
            [asked for asked, _ in watched], rung=rung, sampling=sampling, n=n, seed=seed
        )
        for pack, (_, texts), found in zip(packs, watched, completions, strict=True):
            self._read(pack, texts, found, ms, listen, answers)

    def _watched(
        self, pack: Packed, n: int, sampling: Sampling, listen: Listener | None
    ) -> tuple[Asked, dict[tuple[int, int], TextStream]]:
        """A pack as it is asked, and the texts of its answers by prompt and number."""
        opening = self.spec.template.answer_open
        texts = {
            (prompt, sample): TextStream(self.tokenizer, sampling.stop, opening=opening)
            for prompt in range(len(pack.prompts))
            for sample in range(n)
        }

        def watch(prompt: int, sample: int, token_ids: Sequence[int]) -> bool:
            text = texts[prompt, sample]
            new = text.feed(token_ids)
            unwanted = listen is not None and listen(pack.indices[prompt], sample, new)
            return unwanted or text.is_stopped

        ids = [prompt.id for prompt in pack.prompts]
        return Asked(pack.pack, ids, watch if listen or sampling.stop else None), texts

    def _read(
        self,
        pack: Packed,
        texts: Mapping[tuple[int, int], TextStream],
        completions: Sequence[Sequence[Completion]],
        ms: Mapping[str, float],
        listen: Listener | None,
        answers: list[list[Answer]],
    ) -> None:
        """Puts the answers of a pack in their places."""
        ms = {"host": pack.host_ms, **ms}
        if look_ms := sum(prompt.look_ms for prompt in pack.prompts):
            ms["allocator"] = look_ms
        for (prompt, sample), text in texts.items():
            completion = completions[prompt][sample]
            rest = text.feed(completion.token_ids, is_last=True)
            if listen is not None and rest:
                listen(pack.indices[prompt], sample, rest)
            completion = completion.cut(text.num_tokens)
            answers[pack.indices[prompt]].append(
                to_answer(
                    pack.prompts[prompt],
                    completion,
                    text.text,
                    ms,
                    config=self.model.config,
                    spec=self.spec,
                    reduction=self.reduction,
                )
            )


def _check_one_view(prompt: Prepared) -> None:
    if len(prompt.example.views) != 1:
        raise PolicyError(
            f"request {prompt.id!r}: source=gradient points into one view, but there are "
            f"{len(prompt.example.views)}."
        )


def _renumbered(views: Sequence[View]) -> tuple[list[View], list[int]]:
    """Views of the items that a policy left in, these counted from 0, and their own numbers."""
    kept = sorted({view.item for view in views})
    place = {item: i for i, item in enumerate(kept)}
    return [dataclasses.replace(view, item=place[view.item]) for view in views], kept


def _shifted(listen: Listener | None, at: int) -> Listener | None:
    """A listener to requests that are counted from `at` on."""
    if listen is None:
        return None
    return lambda request, sample, text: listen(at + request, sample, text)

"""Answers from a server that speaks OpenAI's chat protocol: pixels are decided here, sent as PNG.

Reference:
  OpenAI's API reference, "Create chat completion"; the fields used here are also those of vLLM.
"""

import concurrent.futures
import functools
import math
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from mres_jax.config import parse_address
from mres_jax.data.spec import ChatTemplate, ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.errors import ConfigError, MresError, RunError
from mres_jax.geometry import Extent, View
from mres_jax.inference.chat import chat_messages, prompt_tokens
from mres_jax.inference.http import Server
from mres_jax.inference.patience import Patience
from mres_jax.protocols import Answer, Cost, Request, Sampling, extent_of
from mres_jax.resolution.cost import retention_ratio, visual_tokens
from mres_jax.resolution.policies import check_policy, parse_policy
from mres_jax.resolution.policy import Policy, stills
from mres_jax.resolution.zoom.passes import answer_in_passes
from mres_jax.resolution.zoom.policies import Zoom

TOP_LOGPROBS = 20  # the most that OpenAI's own server tells
GUESSED = (
    "visual tokens and retention ratio are counted by Qwen2-VL's rule, 28 px a side of each, and "
    "the server does not tell its own; --processor names the model that it serves"
)


class NoLogprobsError(RunError):
    """A server that was asked for log-probabilities and sent none."""


@runtime_checkable
class Replies(Protocol):
    """Replies that were had before."""

    def find(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Returns the reply to a request, None where it is to be sent."""
        ...

    def add(self, body: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        """Keeps a reply that has been read."""
        ...


def remote_spec(
    *,
    patch_size: int = 14,
    merge_size: int = 2,
    min_pixels: int = 56 * 56,
    max_pixels: int = 16_384 * 28 * 28,
    coord_frame: str = "relative_1000",
) -> ProcessorSpec:
    """Returns what policies must know of a served model; the default is Qwen2-VL's.

    Token ids and template are the server's own and stay empty here.
    """
    return ProcessorSpec(
        patch_size=patch_size,
        merge_size=merge_size,
        temporal_patch_size=2,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        image_token_id=0,
        pad_token_id=0,
        eos_token_ids=(),
        reserved_token_ids=(),
        template=ChatTemplate(
            system=None, turn_open="", turn_close="", image_open="", image_close=""
        ),
        position_rule="plain",
        coord_frame=coord_frame,  # pyright: ignore[reportArgumentType]
    )


class RemoteAnswerer:
    """Asks a served model; an `mres_jax.protocols.Answerer`.

    Every view is cut and resized here and sent as it is, so the policy decides the pixels; whether
    the server resizes them once more is for its operator to know, unless a tokenizer is given: then
    what it counts is compared, and so are the visual tokens that `mres serve` tells. Visual tokens
    are counted by `spec`; where none was given and nobody tells, a note of the answer says so.
    Generated ids are not told, so `Answer.token_ids` is empty.
    """

    def __init__(
        self,
        address: str,
        *,
        policy: str = "native",
        spec: ProcessorSpec | None = None,
        api_key: str | None = None,
        logprobs: bool = True,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 3,
        tokenizer: Tokenizer | None = None,
        fields: Mapping[str, Any] | None = None,
        patience: Patience | None = None,
        replies: Replies | None = None,
    ):
        """Makes an answerer; nothing is sent before the first request.

        Args:
          address: `http://host:port/v1#name`.
          policy: for requests that name none.
          spec: of the served model, for its policies; `remote_spec()` when None.
          api_key: sent as a bearer token.
          logprobs: ask for log-probabilities; a server that sends none is then refused.
          concurrency: requests under way at once.
          timeout: seconds for one try.
          retries: further tries after a refusal, a broken connection or a timeout.
          tokenizer: of the served model; every reply must then count as many prompt tokens as we.
          fields: of requests, beside those of OpenAI's protocol.
          patience: with a server that answers nobody.
          replies: that need not be asked for again.

        Raises:
          ConfigError: a wrong address or number.
        """
        if concurrency < 1 or retries < 0 or not timeout > 0:
            raise ConfigError(
                f"model {address}: concurrency={concurrency} must be at least 1, retries={retries} "
                f"at least 0, timeout={timeout} above 0."
            )
        url, self.model = parse_address(address)
        self.server = Server(
            url, api_key=api_key, timeout=timeout, retries=retries, patience=patience
        )
        self.policy, self.spec, self.is_guessed = policy, spec or remote_spec(), spec is None
        self.logprobs, self.concurrency = logprobs, concurrency
        self.tokenizer, self.fields, self.replies = tokenizer, dict(fields or {}), replies
        self._refuses_top = False  # whether the server takes no `top_logprobs`

    def answer(
        self,
        requests: Sequence[Request],
        *,
        n: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[list[Answer]]:
        """Returns `n` answers for each request, in the order of the requests.

        Raises:
          MresError: a policy that does not exist or cannot be; names the request.
          NoLogprobsError: the server tells no log-probabilities, though they were asked for.
          RunError: the server cannot be reached, refuses or answers nonsense, after all tries; it
            counts other tokens than the tokenizer, or tells other visual tokens than `spec`.
        """
        texts = {request.policy or self.policy for request in requests}
        zooms = (policy for policy in map(parse_policy, texts) if isinstance(policy, Zoom))
        compares = any(zoom.compares_answers for zoom in zooms)
        return answer_in_passes(
            functools.partial(self._answer_once, compares=compares),
            requests,
            policy=self.policy,
            coord_frame=self.spec.coord_frame,
            n=n,
            sampling=sampling or Sampling(),
            seed=seed,
        )

    def _answer_once(
        self, requests: Sequence[Request], *, n: int, sampling: Sampling, seed: int, compares: bool
    ) -> list[list[Answer]]:
        texts = {request.policy or self.policy for request in requests}
        policies = {text: parse_policy(text) for text in texts}
        for policy in policies.values():
            check_policy(policy, self.spec)

        def one(request: Request) -> list[Answer]:
            policy = policies[request.policy or self.policy]
            return self._ask(request, policy, n, sampling, seed, compares)

        with concurrent.futures.ThreadPoolExecutor(self.concurrency, "remote") as pool:
            futures = [pool.submit(one, request) for request in requests]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what has not begun
                raise

    def _ask(
        self,
        request: Request,
        policy: Policy,
        n: int,
        sampling: Sampling,
        seed: int,
        compares: bool,
    ) -> list[Answer]:
        """One request; with log-probabilities where answers are compared, wanted or not."""
        start = time.perf_counter()
        extents: list[Extent] = [extent_of(item) for item in request.images]
        try:
            views = list(request.views)
            views = views or policy(stills(policy, extents), request.question, self.spec)
        except MresError as error:
            raise type(error)(f"request {request.id!r}: {error}") from None
        body = {
            "model": self.model,
            "messages": chat_messages(request, views, self.spec),
            "n": n,
            **_sampling_fields(sampling, seed + zlib.crc32(request.id.encode())),
            **({"logprobs": True} if self.logprobs or compares else {}),
            **({"top_logprobs": TOP_LOGPROBS} if self.logprobs else {}),
            **self.fields,
        }
        sent = time.perf_counter()
        known = None if self.replies is None else self.replies.find(body)
        reply = known or self._post(body, what=f"request {request.id!r}")
        ms = {"host": 1e3 * (sent - start), "server": 1e3 * (time.perf_counter() - sent)}
        choices = reply.get("choices")
        if not isinstance(choices, list) or len(choices) != n:
            given = len(choices) if isinstance(choices, list) else "no list of"
            raise RunError(
                f"server {self.server.url}: request {request.id!r}: {given} choices for n={n}."
            )
        told = _told(reply)
        note = GUESSED if self.is_guessed and views and told is None else ""
        facts = _Facts(request, tuple(views), extents, ms, _usage(reply), note)
        if told is not None:
            self._check_told(facts, told)
        if self.tokenizer is not None:
            self._compare(facts, self.tokenizer)
        answers = [self._to_answer(choice, facts, n) for choice in choices]
        if self.replies is not None and not known:
            self.replies.add(body, reply)
        return answers

    def _post(self, body: Mapping[str, Any], *, what: str) -> dict[str, Any]:
        """Sends a request, once more without `top_logprobs` where the server refuses these."""
        if self._refuses_top:
            body = {name: value for name, value in body.items() if name != "top_logprobs"}
        try:
            return self.server.post("/chat/completions", body, what=what)
        except MresError as error:
            if "top_logprobs" not in body or "top_logprobs" not in str(error):
                raise
        self._refuses_top = True
        return self._post(body, what=what)

    def _check_told(self, facts: "_Facts", told: int) -> None:
        """Refuses a server that tells other visual tokens than were counted here."""
        ours, seen = visual_tokens(facts.views, self.spec), len(facts.views)
        if told != ours:
            raise RunError(
                f"server {self.server.url}: request {facts.request.id!r}: it saw {told} visual "
                f"tokens in {seen} picture{'' if seen == 1 else 's'}, and {ours} were counted "
                f"here, {self.spec.stride} px a side of each. Either it serves another model than "
                "was counted for: --processor names it. Or it resizes pictures: have it leave them "
                "as they are (mres serve: --policy native)."
            )

    def _compare(self, facts: "_Facts", tokenizer: Tokenizer) -> None:
        """Refuses a server that saw something else than was sent."""
        request, theirs = facts.request, facts.usage[0]
        ours = prompt_tokens(request, facts.views, self.spec, tokenizer)
        if theirs == ours:
            return
        where, seen = f"server {self.server.url}: request {request.id!r}", len(facts.views)
        visual = visual_tokens(facts.views, self.spec)
        if not theirs:
            raise RunError(
                f"{where}: its reply has no usage.prompt_tokens, so nobody knows whether it "
                "resizes pictures. Use a server that counts (vLLM, SGLang)."
            )
        raise RunError(
            f"{where}: it counts {theirs} prompt tokens, we {ours}: {visual} visual ones of {seen} "
            f"pictures, {ours - visual} of text. Either it resizes pictures: set its pixel limits "
            'as wide as the processor has them (vLLM: --mm-processor-kwargs \'{"min_pixels": '
            f'{self.spec.stride**2}, "max_pixels": {self.spec.max_pixels}}}\', SGLang: '
            '--mm-process-config with the same under "image", mres serve: --policy native). Or it '
            "serves another model, or another chat template, than the processor's."
        )

    def _to_answer(self, choice: Any, facts: "_Facts", n: int) -> Answer:
        where = f"server {self.server.url}: request {facts.request.id!r}"
        try:
            text = choice["message"]["content"] or ""
            reason = choice.get("finish_reason") or "stop"
            tokens = (choice.get("logprobs") or {}).get("content") or []
            logprobs = [float(token["logprob"]) for token in tokens]
            exact = [_exact_entropy(token) for token in tokens]
            known = [
                entropy_bound(token) if entropy is None else entropy
                for token, entropy in zip(tokens, exact, strict=True)
            ]
            entropies = [entropy for entropy in known if entropy is not None]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(
                f"{where}: a choice that is not one of OpenAI's protocol ({error})."
            ) from None
        if not isinstance(text, str):
            raise RunError(
                f"{where}: the content of its message is {type(text).__name__}, not text. Use a "
                "server that answers with one text, as OpenAI's protocol has it."
            )
        if self.logprobs and text and not tokens:
            raise NoLogprobsError(
                f"{where}: it sent no log-probabilities. Use a server that does (vLLM, SGLang), or "
                "what needs none."
            )
        prompt, completion = facts.usage
        seen = visual_tokens(facts.views, self.spec)
        return Answer(
            text=text,
            token_ids=(),
            logprobs=logprobs,
            entropies=entropies if self.logprobs and len(entropies) == len(tokens) else None,
            entropies_are_bounds=None in exact or not self.logprobs,
            views=facts.views,
            coord_frame=self.spec.coord_frame,
            finish_reason="length" if reason == "length" else "stop",
            cost=Cost(
                visual_tokens=seen,
                text_tokens=max(prompt - seen, 0),
                new_tokens=len(tokens) or completion // n,
                retention_ratio=retention_ratio(facts.views, facts.extents, self.spec),
                flops=0.0,
                ms=facts.ms,
            ),
            note=facts.note,
        )


class _Facts(NamedTuple):
    """What all answers to one request share."""

    request: Request
    views: tuple[View, ...]
    extents: list[Extent]
    ms: Mapping[str, float]
    usage: tuple[int, int]  # tokens of the prompt and of all completions
    note: str


def entropy_bound(token: Mapping[str, Any]) -> float | None:
    """Returns the least entropy, nats, that the likeliest tokens of a step allow; None without.

    All others count as one token: joining outcomes never raises an entropy.
    """
    top = token.get("top_logprobs")
    if not top:
        return None
    shares = [math.exp(min(float(each["logprob"]), 0.0)) for each in top]
    rest = 1.0 - sum(shares)
    shares += [rest] if rest > 1e-9 else []
    return -sum(share * math.log(share) for share in shares if share > 0)


def _exact_entropy(token: Mapping[str, Any]) -> float | None:
    """The entropy of a step, nats, which `mres serve` tells and others do not."""
    told = token.get("entropy")
    return None if told is None else float(told)


def _sampling_fields(sampling: Sampling, seed: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_new_tokens,
        "seed": seed % 2**31,
    }
    if sampling.temperature:
        fields["top_p"] = sampling.top_p
        if sampling.top_k:  # not of OpenAI's protocol; vLLM and SGLang take it
            fields["top_k"] = sampling.top_k
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    return fields


def _usage(reply: Mapping[str, Any]) -> tuple[int, int]:
    usage = reply.get("usage") or {}
    counts = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    prompt, completion = (count if isinstance(count, int) else 0 for count in counts)
    return prompt, completion


def _told(reply: Mapping[str, Any]) -> int | None:
    """Visual tokens of the prompt, which `mres serve` tells and others do not."""
    cost = reply.get("mres")
    told = cost.get("visual_tokens") if isinstance(cost, Mapping) else None
    return told if isinstance(told, int) else None

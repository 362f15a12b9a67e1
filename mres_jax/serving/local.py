"""A model in this process behind the chat endpoint."""

import contextlib
import dataclasses
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from mres_jax.errors import MresError, PolicyError
from mres_jax.inference import VLM
from mres_jax.inference.cost import joint_flops
from mres_jax.protocols import Answer, Request
from mres_jax.resolution.allocator.policy import AllocatorPolicy
from mres_jax.serving import replies
from mres_jax.serving.app import LOOK, Events, HttpRequest, PolicyRule, Reply, check_model
from mres_jax.serving.chat import ChatRequest, parse_chat
from mres_jax.serving.engine import Done, Engine, Kind, Text, Ticket
from mres_jax.serving.errors import ApiError, ClientGoneError, to_api_error
from mres_jax.serving.limits import Limits, Room
from mres_jax.serving.pictures import load_pictures

PIECE = 2**15  # characters of a text that are counted at a time
SEAM = 64  # tokens that two pieces of a text may have more than both in one
ASKED = "ask"  # the request's name where a seed decides: the same draws as `mres ask --seed`


class LocalBackend:
    """Answers chats with one model, requests that wait together in one pack."""

    def __init__(
        self, vlm: VLM, *, name: str, rule: PolicyRule, limits: Limits, hosts: Collection[str] = ()
    ):
        """Starts the thread that answers.

        Args:
          vlm: the model.
          name: what clients call it.
          rule: how pixels are chosen.
          limits: what the server takes upon itself.
          hosts: that pictures may be fetched from.

        Raises:
          MresError: a policy that the model or a server cannot take; no allocator where it is said
            to be.
        """
        self.name, self.rule, self.limits, self.hosts = name, rule, limits, hosts
        self.answerer = vlm.answerer
        policy = rule.check(looks=True)
        self.answerer.check_policy(rule.policy)
        if isinstance(policy, AllocatorPolicy):
            self.answerer.allocators.open(policy.weights)
        self.room = Room(limits)
        self.engine = Engine(self.answerer)

    def models(self, request: HttpRequest) -> list[str]:
        """Returns the one name."""
        return [self.name]

    def health(self) -> dict[str, Any]:
        """Returns how many requests wait or are answered, and how many were."""
        return {
            "model": self.name,
            "policy": self.rule.policy,
            "requests": self.room.num_requests,
            "pixels": self.room.num_pixels,
            "answered": self.engine.num_answered,
            "rounds": self.engine.num_rounds,
        }

    def close(self, seconds: float = 0.0) -> None:
        """Refuses what is still under way; waits so long at most for the thread that answers."""
        self.engine.end(seconds)

    def chat(self, content: dict[str, Any], request: HttpRequest) -> Reply | Events:
        """Answers a chat, whole or in parts.

        Raises:
          ApiError: what cannot be answered, and why.
          ClientGoneError: the client has closed its connection.
        """
        asked = parse_chat(content, self.limits)
        check_model(asked.model, [self.name])
        policy = self.rule.choose(asked.policy, looks=True)
        head = replies.Head(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), self.name)
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(self.room.enter())
            self._check_text([part for _, parts in asked.chat.turns for part in parts])
            images = load_pictures(
                asked.chat.urls, place=place, limits=self.limits, hosts=self.hosts
            )
            made = Request(
                id=head.id if asked.seed is None else ASKED,
                images=images,
                question=asked.chat.question,
                policy=policy,
                turns=asked.chat.turns,
            )
            ticket = self._submit(made, asked)
            stack.callback(ticket.cancel)
            maker = _Maker(head, asked, policy, self.answerer)
            if not asked.stream:
                return Reply(200, maker.whole(_wait(ticket, request)))
            return Events(maker.parts(ticket, request), stack.pop_all().close)

    def _check_text(self, parts: Sequence[str | int]) -> None:
        """Raises `ApiError` for a text that cannot fit, before it is made into tokens as a whole.

        No more of it is counted than fits: time and memory do not grow with what was sent.
        """
        texts = [part for part in parts if isinstance(part, str)]
        length, most = sum(map(len, texts)), self.answerer.generator.max_context
        if length <= PIECE:
            return
        seen = tokens = 0
        for text in texts:
            for at in range(0, len(text), PIECE):
                piece = text[at : at + PIECE]
                seen += len(piece)
                tokens += self.answerer.tokenizer.count_text([piece])[0] - (SEAM if at else 0)
                if tokens > most:
                    raise ApiError(
                        400,
                        f"messages: the text has {length} characters, of which the first {seen} "
                        f"are more tokens than the context holds ({most}). Shorten it.",
                        param="messages",
                    )

    def _submit(self, made: Request, asked: ChatRequest) -> Ticket:
        try:
            prompt = self.answerer.check(made, 1)
        except MresError as error:
            param = "policy" if isinstance(error, PolicyError) else "messages"
            raise ApiError(400, str(error), param=param) from None
        context = self.answerer.generator.max_context
        left = context - prompt
        if asked.max_new_tokens is not None and asked.max_new_tokens > left:
            message = (
                f"{asked.limit_field}={asked.max_new_tokens}, but the context holds {context} "
                f"tokens and the prompt has {prompt} of them. Send at most {left}, or leave it out."
            )
            raise ApiError(400, message, param=asked.limit_field)
        most = asked.max_new_tokens or min(self.limits.new_tokens, left)
        sampling = dataclasses.replace(asked.sampling, max_new_tokens=most)
        kind = Kind(sampling, asked.n, asked.seed or 0)
        return self.engine.submit(made, kind, wants_text=asked.stream)


class _Maker:
    """Makes the reply to one request."""

    def __init__(self, head: replies.Head, asked: ChatRequest, policy: str, answerer: Any):
        self.head, self.asked, self.policy, self.answerer = head, asked, policy, answerer

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        logprobs = [self._logprobs(answer) for answer in answers]
        return replies.completion(self.head, answers, self._cost(answers), logprobs)

    def parts(self, ticket: Ticket, request: HttpRequest) -> Iterator[bytes]:
        """Events of a stream; a failure is the last of them."""
        for sample in range(self.asked.n):
            yield self._part(sample, {"role": "assistant", "content": ""})
        try:
            while isinstance(happened := _next(ticket, request), Text):
                yield self._part(happened.sample, {"content": happened.text})
            answers = _answers(happened)
        except ClientGoneError:
            raise
        except Exception as error:
            yield replies.event(to_api_error(error).to_dict())
            return
        for sample, answer in enumerate(answers):
            last = sample == len(answers) - 1
            yield self._part(
                sample,
                {},
                finish_reason=answer.finish_reason,
                logprobs=self._logprobs(answer),
                **({replies.COST: self._cost(answers)} if last else {}),
            )
        if self.asked.include_usage:
            counts = {"object": "chat.completion.chunk", **self.head._asdict(), "choices": []}
            yield replies.event(counts | {"usage": replies.usage(answers)})
        yield replies.LAST_EVENT

    def _part(self, sample: int, delta: dict[str, Any], **more: Any) -> bytes:
        return replies.event(replies.chunk(self.head, sample, delta, **more))

    def _cost(self, answers: Sequence[Answer]) -> dict[str, Any]:
        text_config = self.answerer.model.config.text_config
        flops = joint_flops(text_config, [answer.cost for answer in answers])
        return replies.cost_of(answers, self.policy, self.answerer.spec, flops=flops)

    def _logprobs(self, answer: Answer) -> dict[str, Any] | None:
        return replies.logprobs_of(answer, self.answerer.tokenizer) if self.asked.logprobs else None


def _wait(ticket: Ticket, request: HttpRequest) -> Sequence[Answer]:
    while isinstance(happened := _next(ticket, request), Text):
        pass
    return _answers(happened)


def _next(ticket: Ticket, request: HttpRequest) -> Text | Done:
    while (happened := ticket.next_event(LOOK)) is None:
        if request.is_gone():
            raise ClientGoneError
    return happened


def _answers(done: Done) -> Sequence[Answer]:
    if done.error is not None:
        raise done.error
    return done.answers

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
from mres_jax.serving.app import Events, HttpRequest, PolicyRule, Reply, check_model
from mres_jax.serving.chat import ChatRequest, parse_chat
from mres_jax.serving.engine import Done, Engine, Kind, Text, Ticket
from mres_jax.serving.errors import ApiError, ClientGoneError, to_api_error
from mres_jax.serving.limits import Limits, Room
from mres_jax.serving.pictures import load_pictures

LOOK = 0.25  # seconds between two looks whether the client is still there
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

    def close(self) -> None:
        """Takes no more requests; those that wait are answered."""
        self.engine.close()

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

    def _submit(self, made: Request, asked: ChatRequest) -> Ticket:
        try:
            prompt = self.answerer.check(made, asked.max_new_tokens or 1)
        except MresError as error:
            param = "policy" if isinstance(error, PolicyError) else "messages"
            raise ApiError(400, str(error), param=param) from None
        left = self.answerer.generator.max_context - prompt
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

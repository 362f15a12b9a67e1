"""The body of a chat request -> one typed value, or a refusal that names the field.

What cannot be done is refused, never ignored: a field that would change the answer and is not known
here is an error, unless it has the value that changes nothing.

Reference:
  OpenAI's API reference, "Create chat completion"; `top_k` is vLLM's addition, `policy` ours.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from mres_jax.data.wire import Chat, parse_messages
from mres_jax.errors import MresError, suggest
from mres_jax.protocols import Sampling
from mres_jax.serving.errors import ApiError
from mres_jax.serving.limits import Limits

# Fields that never change an answer.
WITHOUT_EFFECT = {
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
}
# Fields that are known, and the values at which they change nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "min_p": (0,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "logit_bias": ({},),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
}
READ = {
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop",
    "n",
    "seed",
    "stream",
    "stream_options",
    "logprobs",
    "policy",
}
MAX_STOPS = 16
MAX_STOP = 1_000  # characters of one
_MOST = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """What a client asks for.

    Attributes:
      model: as the client calls it.
      chat: the conversation.
      sampling: how tokens are drawn; its `max_new_tokens` holds where `max_new_tokens` is not None.
      max_new_tokens: None leaves it to the server.
      limit_field: where the client says so.
      n: answers.
      seed: None draws differently every time.
      stream: send the text as it grows.
      include_usage: end the stream with the counts of tokens.
      logprobs: tell the log-probability of every token.
      policy: resolution policy; None takes the server's.
    """

    model: str
    chat: Chat
    sampling: Sampling
    max_new_tokens: int | None = None
    limit_field: str = "max_tokens"
    n: int = 1
    seed: int | None = None
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False
    policy: str | None = None


def parse_json(body: bytes) -> dict[str, Any]:
    """Returns the object that a body holds.

    Raises:
      ApiError: 400, it holds none.
    """
    try:
        content = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else "not readable as text"
        raise ApiError(400, f"the body is not JSON: {reason}.", code="invalid_json") from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ApiError(400, f"the body is a JSON {kind}, not an object.", code="invalid_json")
    return content


def parse_chat(content: Mapping[str, Any], limits: Limits) -> ChatRequest:
    """Returns a request whose numbers are all in range.

    Raises:
      ApiError: 400, with the field at fault.
    """
    given = {key: value for key, value in content.items() if value is not None}
    _refuse_unknown(given)
    fields = _Fields(given)
    try:
        chat = parse_messages(given.get("messages"))
    except MresError as error:
        raise ApiError(400, str(error), param="messages") from None
    limit_field, most = _max_tokens(fields)
    return ChatRequest(
        model=fields.text("model"),
        chat=chat,
        sampling=_sampling(fields, most),
        max_new_tokens=most,
        limit_field=limit_field,
        n=fields.whole("n", 1, least=1, most=limits.max_answers) or 1,
        seed=fields.whole("seed", None, least=-(2**63), most=2**64),
        stream=fields.flag("stream"),
        include_usage=_include_usage(given.get("stream_options", {})),
        logprobs=fields.flag("logprobs"),
        policy=fields.text("policy") if "policy" in given else None,
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name in READ or name in WITHOUT_EFFECT:
            continue
        if name not in NEUTRAL:
            near = suggest(name, (*READ, *NEUTRAL))
            raise ApiError(400, f"{name}: there is no such field here{near}.", param=name)
        if not any(value == neutral for neutral in NEUTRAL[name]):
            shown = " or ".join(json.dumps(neutral) for neutral in NEUTRAL[name])
            message = f"{name}: this server cannot do it. Leave it out, or send {shown}."
            raise ApiError(400, message, param=name, code="unsupported")


def _max_tokens(fields: "_Fields") -> tuple[str, int | None]:
    """The field of the limit, and the limit."""
    old, new = "max_tokens", "max_completion_tokens"
    values = {name: fields.whole(name, None, least=1, most=_MOST) for name in (old, new)}
    if len(set(values.values()) - {None}) > 1:
        message = f"{old} and {new} differ. Send one of them."
        raise ApiError(400, message, param=old)
    name = old if values[new] is None else new
    return name, values[name]


def _sampling(fields: "_Fields", max_new_tokens: int | None) -> Sampling:
    temperature = fields.number("temperature", 0.0, least=0.0, most=100.0)
    is_greedy = temperature == 0  # then neither `top_p` nor `top_k` changes anything
    top_p = fields.number("top_p", 1.0, least=0.0 if is_greedy else 1e-6, most=1.0)
    top_k = fields.whole("top_k", 0, least=-1, most=_MOST) or 0
    return Sampling(
        temperature=temperature,
        top_p=1.0 if is_greedy else top_p,
        top_k=0 if is_greedy else max(top_k, 0),  # vLLM writes -1 for all
        max_new_tokens=max_new_tokens or 1,
        stop=_stops(fields.given.get("stop", [])),
    )


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    right = isinstance(stops, list) and all(isinstance(stop, str) and stop for stop in stops)
    if not right or len(stops) > MAX_STOPS:
        message = f"stop: give a text or a list of at most {MAX_STOPS} texts, none of them empty."
        raise ApiError(400, message, param="stop")
    if (longest := max(map(len, stops), default=0)) > MAX_STOP:
        message = f"stop: a text has {longest} characters, at most {MAX_STOP} are taken."
        raise ApiError(400, message, param="stop")
    return tuple(stops)


def _include_usage(options: Any) -> bool:
    wanted = options.get("include_usage") if isinstance(options, dict) else options
    if not isinstance(options, dict) or not isinstance(wanted, bool | None):
        message = 'stream_options: give {"include_usage": true} or leave it out.'
        raise ApiError(400, message, param="stream_options")
    return bool(wanted)


class _Fields:
    """Fields of a request by type; what is absent has its default."""

    def __init__(self, given: Mapping[str, Any]):
        self.given = given

    def text(self, name: str) -> str:
        value = self.given.get(name)
        if not isinstance(value, str) or not value:
            raise ApiError(400, f"{name}: give a text, got {_kind(value)}.", param=name)
        return value

    def flag(self, name: str) -> bool:
        value = self.given.get(name, False)
        if not isinstance(value, bool):
            raise ApiError(400, f"{name}: give true or false, got {_kind(value)}.", param=name)
        return value

    def whole(self, name: str, default: int | None, *, least: int, most: int) -> int | None:
        value = self.given.get(name, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise ApiError(400, f"{name}: give a whole number, got {_kind(value)}.", param=name)
        self._check(name, value, least, most)
        return value

    def number(self, name: str, default: float, *, least: float, most: float) -> float:
        value = self.given.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ApiError(400, f"{name}: give a number, got {_kind(value)}.", param=name)
        self._check(name, value, least, most)
        return float(value)

    def _check(self, name: str, value: float, least: float, most: float) -> None:
        if not least <= value <= most:  # nor is NaN
            message = f"{name}={value!r:.40} must be at least {least} and at most {most}."
            raise ApiError(400, message, param=name)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    if value is None:
        return "nothing"
    return names.get(type(value), "a number")

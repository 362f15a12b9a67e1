"""Bodies of requests: what they mean, and the field that each refusal names."""

import json

import pytest

from mres_jax.serving.chat import NEUTRAL, WITHOUT_EFFECT, parse_chat, parse_json
from mres_jax.serving.errors import ApiError
from mres_jax.serving.limits import Limits

LIMITS = Limits(max_answers=4)
BODY = {"model": "m", "messages": [{"role": "user", "content": "why"}]}


def test_what_is_not_said_has_its_default():
    asked = parse_chat(BODY | {"temperature": None, "stop": None, "tools": None}, LIMITS)
    assert (asked.n, asked.seed, asked.stream, asked.logprobs) == (1, None, False, False)
    assert (asked.max_new_tokens, asked.policy, asked.include_usage) == (None, None, False)
    assert asked.sampling.temperature == 0
    assert asked.sampling.stop == ()


def test_what_is_said_is_read():
    asked = parse_chat(
        BODY
        | {"max_completion_tokens": 9, "max_tokens": 9, "temperature": 1, "top_p": 0.5}
        | {"top_k": -1, "stop": "x", "n": 4, "seed": 7, "stream": True, "logprobs": True}
        | {"stream_options": {"include_usage": True}, "policy": "budget:9"},
        LIMITS,
    )
    assert (asked.sampling.temperature, asked.sampling.top_p, asked.sampling.top_k) == (1.0, 0.5, 0)
    assert (asked.sampling.max_new_tokens, asked.sampling.stop) == (9, ("x",))
    assert (asked.n, asked.seed, asked.policy) == (4, 7, "budget:9")
    assert asked.stream and asked.include_usage and asked.logprobs  # noqa: PT018


def test_fields_without_effect_and_neutral_values_change_nothing():
    plain = parse_chat(BODY, LIMITS)
    more = dict.fromkeys(WITHOUT_EFFECT, "x") | {k: v[0] for k, v in NEUTRAL.items()}
    assert parse_chat(BODY | more, LIMITS) == plain


@pytest.mark.parametrize("changes", [{"top_p": 0}, {"top_k": -1}, {"top_p": 0.5, "top_k": 3}])
def test_greedy_answers_do_not_hang_on_what_is_kept_of_the_draws(changes):
    assert parse_chat(BODY | {"temperature": 0} | changes, LIMITS) == parse_chat(BODY, LIMITS)


@pytest.mark.parametrize("options", [None, {}, {"include_usage": None}, {"include_usage": False}])
def test_usage_that_is_not_asked_for_is_not_sent(options):
    assert not parse_chat(BODY | {"stream_options": options}, LIMITS).include_usage


@pytest.mark.parametrize(
    ("changes", "param", "text"),
    [
        ({"model": None}, "model", "give a text, got nothing"),
        ({"model": 3}, "model", "give a text, got a number"),
        ({"messages": {}}, "messages", "give a list of turns"),
        ({"temperature": -0.1}, "temperature", "-0.1 must be at least 0.0 and at most 100.0"),
        ({"temperature": "hot"}, "temperature", "give a number, got a text"),
        ({"temperature": True}, "temperature", "give a number, got true or false"),
        ({"temperature": 10**400}, "temperature", "must be at least"),
        ({"top_p": 0, "temperature": 1}, "top_p", "must be at least"),
        ({"top_p": -1}, "top_p", "must be at least 0.0"),
        ({"top_k": -2}, "top_k", "must be at least -1"),
        ({"max_tokens": 0}, "max_tokens", "must be at least 1"),
        ({"max_tokens": 1.5}, "max_tokens", "give a whole number, got a number"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "differ"),
        ({"n": 5}, "n", "n=5 must be at least 1 and at most 4"),
        ({"n": 0}, "n", "n=0 must be"),
        ({"seed": 2**65}, "seed", "must be at least"),
        ({"stop": [""]}, "stop", "none of them empty"),
        ({"stop": [3]}, "stop", "give a text or a list"),
        ({"stop": ["x"] * 17}, "stop", "at most 16 texts"),
        ({"stop": ["a", "x" * 1001]}, "stop", "has 1001 characters, at most 1000 are taken"),
        ({"stream": 1}, "stream", "give true or false, got a number"),
        ({"stream_options": {"include_usage": 1}}, "stream_options", "include_usage"),
        ({"stream_options": True}, "stream_options", "include_usage"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "cannot do it. Leave it out, or send {}."),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "Leave it out, or send 0."),
        ({"top_logprobs": 5}, "top_logprobs", "cannot do it"),
        ({"tools": [{"type": "function"}]}, "tools", "cannot do it"),
        ({"response_format": {"type": "json_object"}}, "response_format", "cannot do it"),
        ({"temprature": 0}, "temprature", "no such field here (did you mean temperature?)"),
        ({"policy": ["native"]}, "policy", "give a text, got a list"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(changes, param, text):
    with pytest.raises(ApiError) as error:
        parse_chat(BODY | changes, LIMITS)
    assert error.value.status == 400
    assert error.value.param == param
    assert text in str(error.value)
    assert str(error.value).startswith(param)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"\xff\xfe{}",
        b'{"temperature": NaN}',
        b'{"seed": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_object_is_refused(body):
    with pytest.raises(ApiError, match=r"^the body is ") as error:
        parse_json(body)
    assert error.value.code == "invalid_json"
    assert len(str(error.value)) < 200


def test_an_error_has_the_form_that_clients_read():
    error = ApiError(404, "no model.", param="model", code="model_not_found").to_dict()
    assert json.loads(json.dumps(error)) == {
        "error": {
            "message": "no model.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }

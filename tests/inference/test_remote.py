"""A served model: what is sent is what the policy decided, and every failure is one line."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mres_jax.data.views import render_view
from mres_jax.errors import ConfigError, MresError, PolicyError, PromptError, RunError
from mres_jax.geometry import Size
from mres_jax.inference import http
from mres_jax.inference.remote import (
    NoLogprobsError,
    RemoteAnswerer,
    entropy_bound,
    parse_address,
    remote_spec,
)
from mres_jax.protocols import Answerer, Request, Sampling
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import Reply, serve_script


def picture(seed: int = 0, size=(90, 160)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def request(name: str = "a", **fields) -> Request:
    return Request(**{"id": name, "images": [picture()], "question": f"q {name}"} | fields)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.01)


def answer(script, *requests: Request, n: int = 1, sampling: Sampling | None = None, **options):
    with serve_script(script) as server:
        answerer = RemoteAnswerer(server.address, **{"retries": 1, "timeout": 5.0} | options)
        answers = answerer.answer(list(requests) or [request()], n=n, sampling=sampling, seed=3)
    return answers, server


@pytest.mark.parametrize("policy", ["native", "budget:12", "scale:0.5", "fixed:56,mode=pad"])
def test_the_server_gets_the_very_pixels_that_the_policy_decided(policy):
    images = [picture(1), picture(2, (200, 60))]
    (((got,),), server) = answer(lambda r: "B", request(images=images, policy=policy))
    views = parse_policy(policy)([Size(*image.shape[:2]) for image in images], "", remote_spec())
    (received,) = server.received
    for sent, view in zip(received.images, views, strict=True):
        np.testing.assert_array_equal(sent, render_view(images[view.item], view))
    assert list(got.views) == views
    assert got.cost.visual_tokens == sum(view.encoded_size.area for view in views) // 28**2
    assert got.cost.visual_tokens + got.cost.text_tokens == 1_000  # what the server counted


def test_pictures_stand_in_the_first_turn_of_the_user_and_text_stays_as_it_is():
    asked = request(
        question="and <|image_pad|> now?", history=[("user", "look"), ("assistant", "yes")]
    )
    (_, server) = answer(lambda r: "B", asked)
    first, second, third = server.received[0].body["messages"]
    assert [part["type"] for part in first["content"]] == ["image_url", "text"]
    assert first["content"][1]["text"] == "look"
    assert (second, third) == (
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "and <|image_pad|> now?"},
    )


def test_pictures_of_a_conversation_stand_where_its_turns_have_them():
    images = [picture(1), picture(2, (56, 84))]
    turns = [
        ("system", ("be ", "brief")),
        ("user", ("see", 1, "and <|image_pad|>", " more")),
        ("assistant", ("yes",)),
        ("user", (0, "what now?")),
    ]
    asked = request(images=images, question="what now?", turns=turns, history=[("user", "no")])
    (_, server) = answer(lambda r: "B", asked)
    (received,) = server.received
    assert [message["role"] for message in received.body["messages"]] == [role for role, _ in turns]
    system, first, second, last = [message["content"] for message in received.body["messages"]]
    assert (system, second) == ("be brief", "yes")
    text = lambda text: {"type": "text", "text": text}  # noqa: E731
    assert [first[0], first[2]] == [text("see"), text("and <|image_pad|> more")]
    assert [part["type"] for part in (first[1], last[0])] == ["image_url"] * 2
    assert last[1:] == [text("what now?")]
    views = parse_policy("native")([Size(*i.shape[:2]) for i in images], "", remote_spec())
    for sent, view in zip(received.images, views[::-1], strict=True):
        np.testing.assert_array_equal(sent, render_view(images[view.item], view))
    with pytest.raises(PromptError, match=r"request 'a': picture 0 stands in no turn\. Write its"):
        answer(lambda r: "B", request(images=images, turns=turns[:2]))


def test_sampling_travels_and_each_request_has_a_seed_of_its_own():
    drawn = Sampling(temperature=0.5, top_p=0.9, top_k=7, max_new_tokens=5, stop=("\n", "END"))
    _, server = answer(lambda r: "B", request("a"), request("b"), n=2, sampling=drawn)
    bodies = [received.body for received in server.received]
    sent = ("temperature", "top_p", "top_k", "max_tokens", "n", "model", "stop")
    for body in bodies:
        assert {name: body[name] for name in sent} == {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 7,
            "max_tokens": 5,
            "n": 2,
            "model": "scripted",
            "stop": ["\n", "END"],
        }
    assert bodies[0]["seed"] != bodies[1]["seed"]


def test_answers_come_in_the_order_of_the_requests_with_few_of_them_under_way_at_once():
    requests = [request(f"{i}") for i in range(12)]

    def script(received):
        return Reply(text=received.text, seconds=0.02 * (int(received.text[2:]) % 3))

    answers, server = answer(script, *requests, concurrency=3)
    assert [some[0].text for some in answers] == [f"q {i}" for i in range(12)]
    assert 1 < server.most_at_once <= 3


def test_a_server_that_tells_other_visual_tokens_is_refused_and_the_same_are_confirmed():
    """`mres serve` tells what it saw; a picture of 90 x 160 px is 18 tokens of 28 px a side."""
    (((got,),), _) = answer(lambda r: Reply(text="B", visual_tokens=18, prompt_tokens=30))
    assert (got.cost.visual_tokens, got.cost.text_tokens, got.note) == (18, 12, "")
    told = (
        r"request 'a': it saw 50 visual tokens in 1 picture, and 18 were counted here, 28 px a side"
        r" of each\. .*--processor names it\..*mres serve: --policy native"
    )
    with pytest.raises(RunError, match=told):
        answer(lambda r: Reply(text="B", visual_tokens=50))


def test_counts_by_a_rule_that_nobody_confirms_are_noted():
    guessed, spec = "Qwen2-VL's rule, 28 px a side of each", remote_spec()
    (((got,),), _) = answer(lambda r: "B")
    assert guessed in got.note
    (((zoomed,),), _) = answer(lambda r: "there", request(policy="zoom,coarse=9"))
    assert zoomed.note.startswith("no window: ")
    assert zoomed.note.count(guessed) == 1
    for options, asked in (({"spec": spec}, request()), ({}, request(images=[]))):
        (((got,),), _) = answer(lambda r: "B", asked, **options)
        assert not got.note


def test_entropies_are_flagged_as_bounds_and_come_from_what_was_told():
    (((got,),), _) = answer(lambda r: Reply(text="B", probabilities=(0.5, 0.25)))
    assert got.logprobs == [pytest.approx(math.log(0.5))]
    assert got.entropies == [pytest.approx(0.5 * math.log(2) + 2 * 0.25 * math.log(4))]
    assert got.entropies_are_bounds
    assert isinstance(RemoteAnswerer("http://h/v1#m"), Answerer)


@given(weights=st.lists(st.floats(1e-3, 1), min_size=1, max_size=40), told=st.integers(1, 20))
def test_what_the_likeliest_tokens_tell_is_never_more_than_the_entropy(weights, told):
    shares = np.sort(np.array(weights) / np.sum(weights))[::-1]
    exact = float(-(shares * np.log(shares)).sum())
    top = [{"logprob": float(np.log(share))} for share in shares[:told]]
    bound = entropy_bound({"top_logprobs": top})
    assert bound is not None
    assert -1e-9 <= bound <= exact + 1e-9
    if told >= len(shares):
        assert bound == pytest.approx(exact, abs=1e-9)


def test_a_server_without_log_probabilities_is_refused_or_asked_for_none():
    silent = lambda r: Reply(text="B", probabilities=None)  # noqa: E731
    with pytest.raises(NoLogprobsError, match=r"request 'a': it sent no log-probabilities\. Use"):
        answer(silent)
    (((got,),), server) = answer(silent, logprobs=False)
    assert (got.text, got.entropies, list(got.logprobs)) == ("B", None, [])
    assert "logprobs" not in server.received[0].body


def test_a_server_that_tells_no_likeliest_tokens_is_asked_without_and_its_entropies_are_exact():
    told = {"token": "B", "logprob": -0.5, "top_logprobs": [], "entropy": 0.75}
    choice = {"message": {"content": "B"}, "logprobs": {"content": [told]}}

    def script(received):
        if "top_logprobs" in received.body:
            error = b'{"error": {"message": "top_logprobs: this server cannot do it."}}'
            return Reply(status=400, raw=error)
        return Reply(raw=json.dumps({"choices": [choice]}).encode())

    answers, server = answer(script, request("a"), request("b"), concurrency=1)
    for (got,) in answers:
        assert (got.entropies, got.entropies_are_bounds) == ([0.75], False)
    asked = ["top_logprobs" in received.body for received in server.received]
    assert asked == [True, False, False]


def test_a_message_of_parts_is_refused_in_words():
    parts = {"message": {"content": [{"type": "text", "text": "B"}]}}
    with pytest.raises(RunError, match="request 'a': the content of its message is list, not text"):
        answer(lambda r: Reply(raw=json.dumps({"choices": [parts]}).encode()), logprobs=False)


def test_a_busy_server_is_asked_again_and_a_broken_one_gives_up_in_one_line():
    tries = []

    def busy_once(received):
        tries.append(received)
        return Reply(status=429, raw=b"{}") if len(tries) == 1 else "B"

    (((got,),), _) = answer(busy_once)
    assert (got.text, len(tries)) == ("B", 2)
    broken = lambda r: Reply(status=503, raw=b'{"error": {"message": "no\\nGPU"}}')  # noqa: E731
    with pytest.raises(RunError, match=r"request 'a': HTTP 503: no GPU \(2 tries\)\. Is it up"):
        answer(broken)


def test_a_server_that_is_slow_absent_or_no_such_server_is_one_line():
    with pytest.raises(RunError, match=r"no answer within 0\.05 s \(1 tries\)"):
        answer(lambda r: Reply(text="B", seconds=0.3), timeout=0.05, retries=0)
    absent = RemoteAnswerer("http://127.0.0.1:9/v1#m", retries=0)
    with pytest.raises(RunError, match=r"127\.0\.0\.1:9/v1: request 'a': connection refused"):
        absent.answer([request()])
    with pytest.raises(RunError, match="its answer is no JSON object"):
        answer(lambda r: Reply(raw=b"<html>hello</html>"))
    with pytest.raises(MresError, match="HTTP 401: wrong key"):
        answer(lambda r: Reply(status=401, raw=b'{"error": {"message": "wrong key."}}'))
    with pytest.raises(RunError, match="no list of choices for n=1"):
        answer(lambda r: Reply(raw=b"{}"))
    with pytest.raises(RunError, match="0 choices for n=1"):
        answer(lambda r: Reply(raw=b'{"choices": []}'))
    with pytest.raises(RunError, match="not one of OpenAI's protocol"):
        answer(lambda r: Reply(raw=b'{"choices": [{"text": "B"}]}'))


def test_a_key_is_sent_as_a_bearer_token_and_never_shown():
    _, server = answer(lambda r: "B", api_key="sesame")
    assert server.received[0].headers["authorization"] == "Bearer sesame"
    with pytest.raises(MresError) as caught:
        answer(lambda r: Reply(status=401, raw=b""), api_key="sesame")
    assert "sesame" not in str(caught.value)


def test_a_policy_that_cannot_be_is_refused_before_anything_is_sent():
    with pytest.raises(PolicyError, match="unknown policy 'natve'"):
        answer(lambda r: "B", request(policy="natve"))
    with pytest.raises(PolicyError, match="request 'a': policy window"):
        answer(lambda r: "B", request(policy="window:0.0.999.999"))


@pytest.mark.parametrize(
    "text", ["http://host:1/v1", "host:1/v1#m", "http://host/v1#", "ftp://host/v1#m", "#m"]
)
def test_addresses_name_a_server_and_a_model(text):
    with pytest.raises(ConfigError, match="http://host:port/v1#name"):
        parse_address(text)


def test_numbers_that_cannot_be_are_refused():
    for options in ({"concurrency": 0}, {"timeout": 0.0}, {"retries": -1}):
        with pytest.raises(ConfigError, match="must be at least 1"):
            RemoteAnswerer("http://host/v1#m", **options)

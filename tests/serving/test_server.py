"""A model behind the endpoint, over loopback: what is served, and what it withstands."""

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
from concurrent import futures
from typing import NamedTuple

import numpy as np
import pytest

from mres_jax.errors import ConfigError, RunError
from mres_jax.inference import generate
from mres_jax.inference.handle import SHIPPED
from mres_jax.inference.remote import RemoteAnswerer
from mres_jax.protocols import Request, Sampling
from mres_jax.serving import Limits, LocalBackend, PolicyRule, http as http_side, local, run
from mres_jax.serving.app import CHAT, App, HttpRequest, Reply
from mres_jax.serving.engine import shutting_down
from mres_jax.serving.http import Server
from mres_jax.serving.local import ASKED, PIECE
from mres_jax.testing.serving import (
    JSON,
    Served,
    chat_body as chat,
    random_picture as picture,
    send,
    serving,
    until,
    url_of,
)

GREEDY = Sampling(max_new_tokens=6)


def text_of(content):
    return content["choices"][0]["message"]["content"]


def stream_of(served, body):
    """The events of a streamed reply; the last is `[DONE]` or an error's."""
    with contextlib.closing(served.connect()) as connection:
        headers = {"Content-Type": "application/json"}
        path = "/v1/chat/completions"
        connection.request("POST", path, json.dumps(body | {"stream": True}), headers)
        reply = connection.getresponse()
        assert reply.status == 200
        assert reply.getheader("Content-Type").startswith("text/event-stream")
        events = [line[6:] for line in reply.read().split(b"\n\n") if line]
    return [json.loads(event) if event != b"[DONE]" else "[DONE]" for event in events]


def test_a_served_answer_is_the_answer_with_its_tokens_and_its_cost(served, vlm):
    pixels = picture(0)
    body = chat(pixels, "what is the total", logprobs=True, policy="scale:0.5")
    status, _, content = served.ask(body)
    request = Request(id="x", images=[pixels], question="what is the total", policy="scale:0.5")
    ((answer,),) = vlm.answerer.answer([request], sampling=GREEDY)
    assert status == 200
    assert text_of(content) == answer.text
    assert content["choices"][0]["finish_reason"] == answer.finish_reason
    told = content["choices"][0]["logprobs"]["content"]
    np.testing.assert_allclose([t["logprob"] for t in told], answer.logprobs, atol=1e-4)
    np.testing.assert_allclose([t["entropy"] for t in told], answer.entropies, atol=1e-4)
    prompt = answer.cost.visual_tokens + answer.cost.text_tokens
    new = answer.cost.new_tokens
    assert content["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": new,
        "total_tokens": prompt + new,
    }
    cost = content["mres"]
    assert cost["policy"] == "scale:0.5"
    assert cost["retention_ratio"] == round(answer.cost.retention_ratio, 6) < 1
    assert [view["tokens"] for view in cost["views"]] == [answer.cost.visual_tokens]
    assert cost["flops"] == answer.cost.flops
    assert set(cost["ms"]) == {"host", "vision", "prefill", "decode"}


def test_our_own_client_is_told_the_entropies_of_an_answer_as_they_are(served, vlm):
    request = Request(id="x", images=[picture(0)], question="what is the total", policy="native")
    client = RemoteAnswerer(f"http://127.0.0.1:{served.port}/v1#tiny", spec=vlm.answerer.spec)
    ((told,),) = client.answer([request], sampling=GREEDY)
    ((answer,),) = vlm.answerer.answer([request], sampling=GREEDY)
    assert not told.entropies_are_bounds
    np.testing.assert_allclose(told.entropies, answer.entropies, atol=1e-4)


def test_of_several_answers_the_prompt_is_paid_for_once(served, vlm):
    """One token each is what the prefill scores, so more answers cost no more; longer ones do."""
    flops = {
        (n, tokens): served.ask(
            chat(picture(4), "what is the total", n=n, max_tokens=tokens, temperature=1.0, seed=1)
        )[2]["mres"]["flops"]
        for n, tokens in [(1, 1), (3, 1), (1, 4), (3, 4)]
    }
    assert flops[3, 1] == flops[1, 1]
    request = Request(id=ASKED, images=[picture(4)], question="what is the total", policy="native")
    sampling = Sampling(temperature=1.0, max_new_tokens=4)
    (answers,) = vlm.answerer.answer([request], n=3, sampling=sampling, seed=1)
    decoding = sum(answer.cost.flops - flops[1, 1] for answer in answers)
    assert flops[3, 4] == pytest.approx(flops[1, 1] + decoding, rel=1e-12)
    assert flops[1, 1] < flops[1, 4] < flops[3, 4] < 3 * flops[1, 4]


def test_a_streamed_answer_is_the_whole_one_in_parts(served):
    body = chat(picture(1), "what is the total", max_tokens=20, n=2, temperature=1.0, seed=5)
    whole = served.ask(body)[2]
    *events, last = stream_of(served, body | {"stream_options": {"include_usage": True}})
    assert last == "[DONE]"
    texts, reasons = ["", ""], [None, None]
    for event in events[:-1]:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
        reasons[choice["index"]] = choice["finish_reason"] or reasons[choice["index"]]
    assert texts == [choice["message"]["content"] for choice in whole["choices"]]
    assert len(set(texts)) == 2
    assert reasons == [choice["finish_reason"] for choice in whole["choices"]]
    assert events[-1]["usage"] == whole["usage"]
    assert events[-2]["mres"]["views"] == whole["mres"]["views"]
    assert len(events) > 2 + 2 + 2 + 1  # more than one piece of text each


def test_a_seed_draws_what_it_draws_on_the_command_line_and_none_draws_anew(served, vlm):
    body = chat("what is the total", temperature=1.5)
    seeded = [text_of(served.ask(body | {"seed": seed})[2]) for seed in (3, 3, 4)]
    request = Request(id=ASKED, question="what is the total")
    sampling = Sampling(temperature=1.5, max_new_tokens=6)
    ((answer,),) = vlm.answerer.answer([request], sampling=sampling, seed=3)
    assert seeded[0] == seeded[1] == answer.text != seeded[2]
    assert len({text_of(served.ask(body)[2]) for _ in range(4)}) > 1


def test_a_stop_text_ends_the_answer(served):
    free = text_of(served.ask(chat("what is the total", max_tokens=20))[2])
    cut = served.ask(chat("what is the total", max_tokens=20, stop=[free[3:5]]))[2]
    assert text_of(cut) == free[: free.index(free[3:5])]
    assert cut["choices"][0]["finish_reason"] == "stop"


def test_pictures_of_any_turn_keep_their_places(served, vlm):
    one, two = picture(2), picture(3, 16, 16)
    body = chat("what is", one, "and this")
    body["messages"] += [
        {"role": "assistant", "content": "the total"},
        chat(two, "what is it")["messages"][0],
    ]
    turns = (
        ("user", ("what is", 0, "and this")),
        ("assistant", ("the total",)),
        ("user", (1, "what is it")),
    )
    request = Request(id="x", images=[one, two], question="what is it", turns=turns)
    ((answer,),) = vlm.answerer.answer([request], sampling=GREEDY)
    content = served.ask(body)[2]
    assert text_of(content) == answer.text
    assert [view["item"] for view in content["mres"]["views"]] == [0, 1]


def test_two_hundred_requests_eight_in_flight_none_lost_with_clients_that_leave(served, vlm):
    """Every tenth client hangs up on a long answer; all others get what each gets alone."""
    pictures = [picture(i, 8 + 8 * (i % 4), 16 + 8 * (i % 3)) for i in range(12)]
    requests = [
        Request(id="x", images=[pixels], question=f"what is {i}")
        for i, pixels in enumerate(pictures)
    ]
    alone = [answers[0].text for answers in vlm.answerer.answer(requests, sampling=GREEDY)]
    before = served.ask(path="/health")[2]

    def ask(number):
        if number % 10 == 9:
            return leave(served.port, chat(pictures[number % 12], "what", max_tokens=30))
        i = number % 12
        status, _, content = served.ask(chat(pictures[i], f"what is {i}"))
        return status, text_of(content) == alone[i]

    with futures.ThreadPoolExecutor(8) as pool:
        results = [*pool.map(ask, range(200))]
    assert results.count((200, True)) == 180
    assert results.count("left") == 20
    until(lambda: served.ask(path="/health")[2]["requests"] == 0)
    after = served.ask(path="/health")[2]
    assert after["rounds"] - before["rounds"] < 180  # they were answered together


def leave(port, body):
    """Sends a request and closes the connection at once."""
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as stream:
        stream.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + data)
    return "left"


def test_a_client_that_leaves_or_dawdles_is_noticed_while_it_waits_and_stalls_nobody(vlm, limits):
    """Nothing can be answered as long as the lock is held, so only its absence ends a request."""
    backend = LocalBackend(vlm, name="tiny", rule=PolicyRule("native", False), limits=limits)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
    with serving(backend, limits=limits) as served, contextlib.ExitStack() as stack:
        with generate.ONE_AT_A_TIME:
            dawdler = socket.create_connection(("127.0.0.1", served.port))
            stack.enter_context(dawdler).sendall(head)
            leave(served.port, chat(picture(0), "what"))
            leave(served.port, chat("what", stream=True))
            until(lambda: sum(" 499 " in line for line in served.log) == 2, 20)
            until(lambda: backend.room.num_requests == 0)
            assert served.ask(path="/health")[0] == 200
        assert served.ask(chat("what"))[0] == 200
        assert backend.engine.num_answered == 1
        assert backend.engine.num_rounds <= 2  # what had been begun may have held both that left


def test_a_client_that_stalls_or_breaks_off_in_its_body_is_no_bug_of_ours(served, monkeypatch):
    monkeypatch.setattr(http_side._Handler, "timeout", 0.2)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
    before = len(served.log)
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as stream:
        stream.sendall(head)
        reply = http.client.HTTPResponse(stream)
        reply.begin()
        error = json.loads(reply.read())["error"]
        assert (reply.status, reply.getheader("Connection")) == (408, "close")
        assert "nothing came for 0.2 s, and 1 of the 99 bytes" in error["message"]
        assert stream.recv(1) == b""
    until(lambda: len(served.log) > before)  # a line is written behind its reply
    monkeypatch.setattr(http_side._Handler, "timeout", 20)
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as stream:
        stream.sendall(head)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset
    until(lambda: len(served.log) >= before + 2)
    stalled, broken = served.log[before:]
    assert " 408 " in stalled
    assert " 499 " in broken


def test_the_head_of_a_request_has_one_deadline_however_it_trickles(served, monkeypatch):
    monkeypatch.setattr(http_side._Handler, "timeout", 0.5)
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as stream:
        start = time.monotonic()
        stream.sendall(b"GET /health HTTP/1.1\r\nX: ")
        with contextlib.suppress(OSError):
            while time.monotonic() - start < 5:
                stream.sendall(b"a")
                time.sleep(0.05)
        assert 0.4 < time.monotonic() - start < 2
    with contextlib.closing(served.connect()) as connection:
        for _ in range(3):  # each request has its own, and a reply may take longer
            assert send(connection, path="/health")[0] == 200
            time.sleep(0.3)


def test_an_answer_may_take_longer_than_the_head_of_its_request(served, monkeypatch):
    monkeypatch.setattr(http_side._Handler, "timeout", 0.2)
    with generate.ONE_AT_A_TIME, contextlib.closing(served.connect()) as connection:
        connection.request("POST", CHAT, json.dumps(chat("what")), JSON)
        time.sleep(0.4)
        generate.ONE_AT_A_TIME.release()
        try:
            assert connection.getresponse().status == 200
        finally:
            generate.ONE_AT_A_TIME.acquire()


class Named(NamedTuple):
    """What stands for a backend here."""

    names: list[str]

    def models(self, request):
        return self.names

    def health(self):
        return {}

    def chat(self, content, request):
        raise NotImplementedError

    def close(self, seconds):
        pass


@pytest.mark.parametrize("name", ["org/name", "tiny", "a b%2F"])
def test_a_model_is_found_under_the_path_that_clients_make_of_its_name(name):
    app = App(Named(["other", name]), created=0)
    for safe in ("", "/"):
        path = f"/v1/models/{urllib.parse.quote(name, safe=safe)}"
        reply = app.handle(HttpRequest("GET", path))
        assert isinstance(reply, Reply)
        assert reply.content["id"] == name


def test_more_connections_than_may_be_are_turned_away(served):
    app = App(served.backend, created=0)
    with Server("127.0.0.1", 0, app, max_body_bytes=9, max_connections=1) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        one, two = (http.client.HTTPConnection(*server.server_address, 20) for _ in range(2))
        with contextlib.closing(one), contextlib.closing(two):
            assert send(one, path="/health")[0] == 200
            two.request("GET", "/health")
            reply = two.getresponse()
            assert (reply.status, reply.getheader("Retry-After")) == (503, "5")
            one.close()
            until(lambda: server._slots._value == 1)
        with contextlib.closing(http.client.HTTPConnection(*server.server_address, 20)) as three:
            assert send(three, path="/health")[0] == 200
        server.shutdown()
        thread.join()


def test_what_goes_wrong_inside_is_told_without_its_inside(served, monkeypatch):
    def fail(*_, **__):
        raise KeyError("secret at 0x7f2fde404f10")

    monkeypatch.setattr(served.backend.answerer, "answer", fail)
    status, _, content = served.ask(chat("what"))
    assert (status, content["error"]["type"]) == (500, "server_error")
    assert content["error"]["message"] == "unexpected KeyError; the server's log says more."
    assert any(line.startswith("KeyError: 'secret") for line in served.log)
    until(lambda: "500" in served.log[-1])


def test_one_connection_serves_many_requests_also_after_a_refusal(served):
    with contextlib.closing(served.connect()) as connection:
        assert send(connection, chat("what"))[0] == 200
        assert send(connection, chat("what", model="other"))[0] == 404
        assert send(connection, path="/v1/models")[2]["data"][0]["id"] == "tiny"
        assert send(connection, path="/v1/models/tiny")[2]["object"] == "model"
        assert send(connection, chat("what"))[0] == 200


def with_url(url):
    return chat("what") | {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        ]
    }


@pytest.mark.parametrize(
    ("body", "status", "code", "text"),
    [
        (b'{"model": ', 400, "invalid_json", "the body is not JSON"),
        (chat("what", model="tinny"), 404, "model_not_found", "no model 'tinny' (did you mean"),
        (b"x" * 300_001, 413, "body_too_large", "has 300001 bytes, at most 300000 are taken"),
        (with_url("data:image/png;base64,aGVsbG8="), 400, "invalid_image", "no known picture"),
        (with_url(url_of(picture(0))[:-40]), 400, "invalid_image", "picture 0: damaged or"),
        (with_url("file:///etc/passwd"), 400, "invalid_image", "file:// is not fetched from"),
        (with_url("http://example.org/a.png"), 400, "invalid_image", "only 127.0.0.1 may be"),
        (chat(picture(0, 150, 300), "x"), 400, "invalid_image", "more than max_pixels=40000"),
        (chat(*[picture(0, 100, 150)] * 3, "x"), 400, "invalid_image", "45000 px together"),
        (chat(*[picture(0)] * 5, "x"), 400, "too_many_pictures", "5 pictures, at most 4"),
        (chat("what", policy="natve"), 400, None, "did you mean native?"),
        (chat("what", policy="fixed:20"), 400, None, "20 px is not a multiple"),
        (chat("  "), 400, None, "has an empty text"),
        (chat("x" * 900), 400, None, "but the cache holds 512"),
        (chat("x", max_tokens=10**6), 400, None, "but the context holds 512 tokens and the prompt"),
        (
            chat("a 7" * 20_000),
            400,
            None,
            "60000 characters, of which the first 32768",
        ),
        (chat(*["ab", picture(0)] * 3, "c" * 40_000), 400, None, "the text has 40006 characters"),
        (chat("x", top_logprobs=3), 400, "unsupported", "top_logprobs: this server cannot"),
    ],
)
def test_bad_input_is_one_typed_error_and_the_server_stays_up(served, body, status, code, text):
    got, _, content = served.ask(body)
    error = content["error"]
    assert (got, error["code"]) == (status, code)
    assert text in error["message"]
    assert "\n" not in error["message"]
    assert "0x" not in error["message"]
    assert error["type"] == "invalid_request_error"
    assert served.ask(path="/health")[0] == 200
    assert served.ask(chat("what"))[0] == 200


def test_the_field_is_named_that_asks_for_more_than_the_context_holds(served, monkeypatch):
    def refuse(*_, **__):  # it has come as far as the queue
        raise shutting_down()

    told = served.ask(chat("what", max_tokens=1))[2]["usage"]
    left = 512 - told["prompt_tokens"]
    error = served.ask(chat("what", max_tokens=left + 1))[2]["error"]
    assert error["param"] == "max_tokens"
    assert f"Send at most {left}, or" in error["message"]
    body = chat("what", max_tokens=None, max_completion_tokens=left + 1)
    error = served.ask(body)[2]["error"]
    assert error["param"] == "max_completion_tokens"
    assert error["message"].startswith(f"max_completion_tokens={left + 1}, but ")
    assert served.ask(chat("x" * 900))[2]["error"]["param"] == "messages"
    monkeypatch.setattr(served.backend.engine, "submit", refuse)
    assert served.ask(chat("what", max_tokens=left))[2]["error"]["code"] == "shutting_down"


def test_of_a_text_that_cannot_fit_no_more_is_made_into_tokens_than_fits(served, monkeypatch):
    counted = []

    class Counting(type(served.backend.answerer.tokenizer)):
        def encode_text(self, text):
            counted.append(len(text))
            return super().encode_text(text)

        def count_text(self, texts):
            counted.extend(map(len, texts))
            return super().count_text(texts)

    monkeypatch.setattr(served.backend.answerer.tokenizer, "__class__", Counting)
    for body in (chat("a 7" * 60_000), chat(*["a b"] * 2_000, picture(0), "c" * 40_000)):
        assert served.ask(body)[0] == 400
    assert 0 < sum(counted) <= 3 * PIECE


def test_a_text_is_counted_in_pieces_as_it_is_as_a_whole(served, monkeypatch):
    """What fits is never refused: a seam adds fewer tokens than are taken off for it."""
    tokenizer = served.backend.answerer.tokenizer
    for text in ("the total is 7 " * 40, "\u4f60\u597d" * 60, " " * 300, "total" * 50):
        whole = len(tokenizer.encode_text(text))
        for piece in (7, 64):
            parts = [text[at : at + piece] for at in range(0, len(text), piece)]
            seams = local.SEAM * (len(parts) - 1)
            assert sum(tokenizer.count_text(parts)) - seams <= whole


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        ({"path": "/v1/completions", "body": {}}, 404, "did you mean /v1/chat/completions?"),
        ({"path": "/v1/models/other"}, 404, "no model 'other'"),
        ({"path": "/v1/chat/completions"}, 405, "takes POST only"),
        ({"path": "/health", "method": "DELETE"}, 405, "takes GET only"),
        ({"body": {}, "headers": {"Content-Type": "text/plain"}}, 415, "send application/json"),
        ({"body": b"", "headers": {"Transfer-Encoding": "chunked"}}, 411, "Content-Length"),
        ({"body": b"{}", "headers": {"Content-Length": "-2"}}, 400, "Content-Length is no number"),
        ({"path": "/" + "x" * 70_000}, 414, "URI Too Long"),
        ({"method": "BREW", "path": "/health"}, 501, "Unsupported method"),
    ],
)
def test_what_is_no_request_of_this_server_is_told_so(served, options, status, text):
    got, _, content = served.ask(**options)
    assert got == status
    assert text.lower() in content["error"]["message"].lower()
    assert served.ask(path="/health")[0] == 200


def test_a_full_room_says_when_to_come_again(vlm):
    limits = Limits(max_waiting=1)
    backend = LocalBackend(vlm, name="tiny", rule=PolicyRule("native", False), limits=limits)
    with serving(backend, limits=limits) as served, backend.room.enter():
        status, headers, content = served.ask(chat("what"))
        assert status == 429
        assert int(headers["Retry-After"]) >= 1
        assert content["error"]["type"] == "rate_limit_error"
        assert served.ask(chat("what", policy="native"))[0] == 403


def test_a_stopped_server_finishes_what_is_under_way_and_takes_no_more(vlm, limits):
    backend = LocalBackend(vlm, name="tiny", rule=PolicyRule("native", False), limits=limits)
    with contextlib.ExitStack() as stack, futures.ThreadPoolExecutor(3) as pool:
        server = contextlib.ExitStack()
        served = server.enter_context(serving(backend, limits=limits))
        open_connection = stack.enter_context(contextlib.closing(served.connect()))
        assert send(open_connection, path="/health")[0] == 200
        body = chat(picture(0), "what", max_tokens=200)
        under_way = [pool.submit(served.ask, body) for _ in range(3)]
        until(lambda: backend.room.num_requests == 3 or any(f.done() for f in under_way))
        server.close()
        assert [future.result()[0] for future in under_way] == [200] * 3
        with pytest.raises(OSError):  # noqa: PT011 refused or reset
            served.ask(path="/health")
    assert any("stopping" in line for line in served.log)


def test_what_is_cut_off_is_told_so_and_the_server_ends_in_time(vlm, limits):
    """The lock stands for a program that runs on: nothing can be answered while it is held."""
    backend = LocalBackend(vlm, name="tiny", rule=PolicyRule("native", False), limits=limits)
    stop, addresses, bodies = threading.Event(), [], (chat("what"), chat("what", n=2))
    options = {"host": "127.0.0.1", "port": 0, "limits": limits, "grace": 0.1, "stop": stop}
    says = {"say": addresses.append, "log": lambda line: None}
    with (
        futures.ThreadPoolExecutor(4) as pool,
        generate.ONE_AT_A_TIME,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(stop.set)
        ended = pool.submit(run.serve, backend, **options, **says)
        until(lambda: bool(addresses))
        served = Served(int(addresses[0].split(":")[2].split("/")[0]), backend, [])
        asked = [pool.submit(served.ask, body) for body in bodies]
        streamed = pool.submit(stream_of, served, chat("what", n=3))
        engine = backend.engine
        until(lambda: len(engine._taken) + len(engine._waiting) == 3)
        stop.set()
        with pytest.raises(RunError, match=r"3 requests were cut off after 0\.1 s"):
            ended.result(10)
        errors = [future.result(10)[2]["error"] for future in asked]
        errors.append(streamed.result(10)[-1]["error"])
        assert [error["code"] for error in errors] == ["shutting_down"] * 3
        assert engine._thread.is_alive()
    engine._thread.join(60)
    assert not engine._thread.is_alive()
    assert engine.num_answered == 0


@pytest.mark.slow
def test_a_server_that_ends_while_it_compiles_for_a_client_that_left_ends_with_code_0():
    """The interpreter aborts in a thread that compiles (SIGABRT); the command leaves before it."""
    env = {k: v for k, v in os.environ.items() if k != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "mres_jax.cli._main", "serve", "--port", "0", "--grace", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": env}
    with subprocess.Popen(command, **pipes) as process:
        leave(int(process.stdout.readline().split(":")[2].split("/")[0]), chat("x", model=SHIPPED))
        while " 499 " not in process.stderr.readline():
            pass
        time.sleep(1.0)  # by then it compiles
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, process.stderr.read()


def test_a_signal_asks_and_a_second_one_insists():
    stop = threading.Event()
    with run._signals(stop):
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_port_that_is_taken_is_one_line(served, limits):
    with pytest.raises(ConfigError, match=r"address already in use\. Choose another --port"):
        run.serve(
            served.backend,
            host="127.0.0.1",
            port=served.port,
            limits=limits,
            grace=1,
            say=print,
            log=print,
        )

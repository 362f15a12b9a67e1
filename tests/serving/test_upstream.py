"""The proxy: pixels are decided here, all else is passed on, and so is every failure."""

import contextlib
import http.server
import json
import threading

import pytest

from mres_jax.data.images import decode_image
from mres_jax.data.views import render_view
from mres_jax.data.wire import picture_urls, read_data_url
from mres_jax.errors import ConfigError, PolicyError
from mres_jax.geometry import Size
from mres_jax.resolution.policies import parse_policy
from mres_jax.serving import PolicyRule, UpstreamBackend
from mres_jax.serving.app import HttpRequest
from mres_jax.serving.errors import ApiError
from mres_jax.serving.upstream import CONNECT, Place
from mres_jax.testing.serving import (
    chat_body as chat,
    random_picture as picture,
    send,
    serving,
    until,
)

ANSWER = {
    "id": "1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "42"}}],
    "usage": {"prompt_tokens": 9},
}
PARTS = [
    {"choices": [{"index": 0, "delta": {"content": "4"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"content": "2"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]


class Upstream(http.server.ThreadingHTTPServer):
    """Replies as it is told, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.headers, self.reply = 200, {}, json.dumps(ANSWER).encode()
        self.seen = []
        self.silence, self.pause = threading.Event(), threading.Event()  # before and in a reply
        self.silence.set()
        self.pause.set()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.path, headers, json.loads(body)))
        self._reply(self.server.reply)

    def do_GET(self):
        self._reply(json.dumps({"data": [{"id": "big"}, {"id": "small"}]}).encode())

    def _reply(self, body):
        self.server.silence.wait(20)
        with contextlib.suppress(OSError):
            self.send_response(self.server.status)
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.server.pause.wait(20)

    def log_message(self, *_):
        pass


@pytest.fixture
def upstream():
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.silence.set()
        server.pause.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(upstream, vlm, limits):
    backend = UpstreamBackend(
        f"http://127.0.0.1:{upstream.server_port}",
        spec=vlm.spec,
        rule=PolicyRule("budget:6", True),
        limits=limits,
        timeout=0.5,
    )
    with serving(backend, limits=limits) as server:
        yield server


def test_pictures_arrive_as_the_policy_chose_them_and_the_rest_untouched(proxy, upstream, vlm):
    pictures = [picture(0, 40, 64), picture(1, 8, 16)]
    body = chat("look", pictures[0], "and", pictures[1], "what", foo=[1], temperature=0.3)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer key", "Cookie": "c"}
    status, _, content = proxy.ask(body, headers=headers)
    path, sent_headers, sent = upstream.seen[-1]
    sizes = [Size(*pixels.shape[:2]) for pixels in pictures]
    views = parse_policy("budget:6")(sizes, "what", vlm.spec)
    arrived = [decode_image(read_data_url(url, name="0")) for url in picture_urls(sent["messages"])]
    assert [a.tolist() for a in arrived] == [
        render_view(pixels, view).tolist() for pixels, view in zip(pictures, views, strict=True)
    ]
    assert arrived[0].shape[:2] != sizes[0]
    parts = sent["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text", "image_url", "text"]
    assert {k: v for k, v in sent.items() if k != "messages"} == {
        k: v for k, v in body.items() if k != "messages"
    }
    assert path == "/v1/chat/completions"
    assert sent_headers["authorization"] == "Bearer key"
    assert "cookie" not in sent_headers
    cost = content.pop("mres")
    assert (status, content) == (200, ANSWER)
    assert cost["visual_tokens"] == sum(view["tokens"] for view in cost["views"]) <= 12
    assert cost["retention_ratio"] < 1
    assert set(cost["ms"]) == {"host", "upstream"}


def test_a_request_may_name_its_policy_and_it_is_not_passed_on(proxy, upstream):
    assert proxy.ask(chat(picture(0), "x", policy="native"))[2]["mres"]["retention_ratio"] == 1
    assert "policy" not in upstream.seen[-1][2]
    status, _, content = proxy.ask(chat("x", policy="natve"))
    assert (status, content["error"]["param"]) == (400, "policy")


def test_a_stream_is_passed_on_and_its_end_carries_the_cost(proxy, upstream):
    lines = [b"data: " + json.dumps(part).encode() + b"\n\n" for part in PARTS]
    upstream.headers = {"Content-Type": "text/event-stream"}
    upstream.reply = b": hello\n\n" + b"".join(lines) + b"data: [DONE]\n\n"
    with contextlib.closing(proxy.connect()) as connection:
        headers = {"Content-Type": "application/json"}
        body = json.dumps(chat(picture(0), "x", stream=True))
        connection.request("POST", "/v1/chat/completions", body, headers)
        text = connection.getresponse().read()
    assert text.startswith(b": hello\n\n" + b"".join(lines[:2]))
    assert text.endswith(b"data: [DONE]\n\n")
    last = json.loads(text.split(b"\n\n")[3][6:])
    assert last.pop("mres")["policy"] == "budget:6"
    assert last == PARTS[2]


def test_the_models_are_those_of_the_server_behind(proxy):
    names = [model["id"] for model in proxy.ask(path="/v1/models")[2]["data"]]
    assert names == ["big", "small"]


@pytest.mark.parametrize(
    ("status", "reply", "expected", "text"),
    [
        (400, {"error": {"message": "too long", "code": "context"}}, 400, "status 400: too long"),
        (429, {"error": "slow\ndown"}, 429, "upstream: status 429: slow down"),
        (500, "oops", 500, "oops"),
        (302, {}, 502, "upstream: status 302"),
        (200, [1], 502, "upstream: its answer is no JSON object"),
    ],
)
def test_what_the_server_behind_refuses_is_passed_on_typed(
    proxy, upstream, status, reply, expected, text
):
    upstream.status, upstream.reply = status, json.dumps(reply).encode()
    upstream.headers = {"Retry-After": "7"}
    got, headers, content = proxy.ask(chat("x"))
    assert got == expected
    assert text in content["error"]["message"]
    assert content["error"]["type"] == "upstream_error"
    assert headers.get("Retry-After") == (None if status == 200 else "7")
    upstream.status, upstream.reply = 200, json.dumps(ANSWER).encode()
    assert proxy.ask(chat("x"))[0] == 200


def test_a_server_that_is_silent_or_gone_is_told_so(proxy, upstream, vlm, limits):
    upstream.silence.clear()
    status, _, content = proxy.ask(chat("x"))
    assert (status, content["error"]["code"]) == (504, "upstream_timeout")
    assert content["error"]["message"] == "upstream: it was silent for 0.5 s."
    upstream.silence.set()
    gone = UpstreamBackend(
        "http://127.0.0.1:1", spec=vlm.spec, rule=PolicyRule("native", False), limits=limits
    )
    with serving(gone, limits=limits) as other:
        status, _, content = other.ask(chat("x"))
        assert (status, content["error"]["code"]) == (502, "upstream_unreachable")
        assert other.ask(path="/v1/models")[0] == 502
        assert other.ask(path="/health")[0] == 200


def test_a_server_that_accepts_no_connection_keeps_nobody_for_minutes(vlm, limits, monkeypatch):
    def accept(address, timeout, source_address):
        assert timeout == CONNECT
        raise TimeoutError

    monkeypatch.setattr("socket.create_connection", accept)
    backend = UpstreamBackend(
        "http://other:80", spec=vlm.spec, rule=PolicyRule("native", False), limits=limits
    )
    with pytest.raises(ApiError, match=f"^upstream: it was silent for {CONNECT:g} s"):
        backend.models(HttpRequest("GET", "/v1/models"))


def test_a_client_that_hangs_up_gives_its_place_back_while_the_server_is_silent(
    upstream, vlm, limits
):
    backend = UpstreamBackend(
        f"http://127.0.0.1:{upstream.server_port}",
        spec=vlm.spec,
        rule=PolicyRule("native", False),
        limits=limits,
    )
    headers = {"Content-Type": "application/json"}

    def ask(body):
        connection = proxy.connect()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        return connection

    with serving(backend, limits=limits) as proxy:
        upstream.silence.clear()
        left = [ask(chat("x")), ask(chat("x", stream=True))]
        until(lambda: len(upstream.seen) == 2)
        for connection in left:
            connection.close()
        until(lambda: backend.room.num_requests == 0, 5)
        upstream.silence.set()
        upstream.pause.clear()
        upstream.headers = {"Content-Type": "text/event-stream"}
        upstream.reply = b"data: " + json.dumps(PARTS[0]).encode() + b"\n\n"
        with contextlib.closing(ask(chat("x", stream=True))) as connection:
            reply = connection.getresponse()
            assert reply.readline() == upstream.reply[:-1]
            reply.close()
        until(lambda: backend.room.num_requests == 0, 5)
        until(lambda: sum(" 499 " in line for line in proxy.log) == 3)
    assert backend.num_answered == 0


@pytest.mark.parametrize("body", [{"messages": "x"}, chat("x", policy=3)])
def test_bad_input_never_reaches_the_server_behind(proxy, upstream, body):
    with contextlib.closing(proxy.connect()) as connection:
        assert send(connection, body)[0] == 400
    broken = chat(picture(0), "x")
    broken["messages"][0]["content"][0]["image_url"]["url"] = "data:image/png;base64,aGk="
    assert proxy.ask(broken)[2]["error"]["code"] == "invalid_image"
    assert not upstream.seen


def test_our_own_server_may_stand_behind(served, vlm, limits):
    backend = UpstreamBackend(
        f"http://127.0.0.1:{served.port}/v1",
        spec=vlm.spec,
        rule=PolicyRule("scale:0.5", False),
        limits=limits,
    )
    with serving(backend, limits=limits) as proxy:
        passed = proxy.ask(chat(picture(4), "what is the total"))[2]
    direct = served.ask(chat(picture(4), "what is the total", policy="scale:0.5"))[2]
    assert passed["choices"] == direct["choices"]
    assert passed["usage"] == direct["usage"]
    assert passed["mres"]["visual_tokens"] == direct["mres"]["visual_tokens"]


@pytest.mark.parametrize("url", ["ftp://h/v1", "h:80", "http://", "http://u:p@h", "http://h:x"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match=r"write http://host:port/v1\."):
        Place.parse(url)


def test_a_policy_that_the_model_cannot_take_is_refused_at_the_start(vlm, limits):
    with pytest.raises(PolicyError, match="20 px is not a multiple"):
        UpstreamBackend(
            "http://h", spec=vlm.spec, rule=PolicyRule("fixed:20", False), limits=limits
        )

"""A scripted server of OpenAI's chat protocol on this machine, which keeps what it was sent."""

import base64
import contextlib
import dataclasses
import http.server
import io
import json
import math
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mres_jax.geometry import Size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Received:
    """One request, taken apart.

    Attributes:
      body: all of it, JSON.
      images: its pictures and the frames of its clips in order, `uint8 [h w 3]`.
      parts: of all turns in order: a text, or the sizes of the picture or of a clip's frames, px.
      text: of its last turn.
      headers: by name in lower case.
    """

    body: dict[str, Any]
    images: Sequence[np.ndarray]
    parts: Sequence[str | tuple[Size, ...]]
    text: str
    headers: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """What the server says.

    Attributes:
      text: of the answer.
      texts: of the answers where they differ, as many as were asked for.
      probabilities: of the likeliest tokens at its only step, summing to at most 1; None sends no
        log-probabilities.
      status: of HTTP.
      raw: sent in place of any answer.
      seconds: it waits before.
      headers: sent with it.
      prompt_tokens: counted; None sends no usage.
      visual_tokens: told as `mres serve` tells them; None sends nothing of it.
    """

    text: str = ""
    texts: Sequence[str] = ()
    probabilities: Sequence[float] | None = (1.0,)
    status: int = 200
    raw: bytes | None = None
    seconds: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()
    prompt_tokens: int | None = 1_000
    visual_tokens: int | None = None


class ChatServer:
    """A running server.

    Attributes:
      port: where it listens; 0 asks for a free one.
      address: what `RemoteAnswerer` takes.
      received: all requests so far.
      most_at_once: requests that were under way together.
    """

    def __init__(self, script: Callable[[Received], Reply | str], *, port: int = 0):
        self.script, self.received, self.most_at_once = script, [], 0
        self._here, self._lock = 0, threading.Lock()
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self.port = self._server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}/v1#scripted"

    def handle(self, path: str, headers: dict[str, str], data: bytes) -> tuple[Reply, bytes]:
        """The reply to a request, and its bytes."""
        if path != "/v1/chat/completions":
            return Reply(status=404), b"no such path"
        received = take_apart(json.loads(data), headers)
        with self._lock:
            self.received.append(received)
            self._here += 1
            self.most_at_once = max(self.most_at_once, self._here)
        try:
            said = self.script(received)
            reply = Reply(text=said) if isinstance(said, str) else said
            time.sleep(reply.seconds)
        finally:
            with self._lock:
                self._here -= 1
        if reply.raw is not None:
            return reply, reply.raw
        return reply, json.dumps(_completion(reply, received.body)).encode()

    def __enter__(self) -> "ChatServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def serve_script(
    script: Callable[[Received], Reply | str], *, port: int = 0
) -> Iterator[ChatServer]:
    """A server for a while; `script` says what it answers to each request."""
    with ChatServer(script, port=port) as server:
        yield server


def take_apart(body: dict[str, Any], headers: dict[str, str]) -> Received:
    """A chat request with its pictures decoded."""
    found: list[str | list[np.ndarray]] = []
    text = ""
    for message in body["messages"]:
        content = message["content"]
        parts: list[Any] = (
            [{"type": "text", "text": content}] if isinstance(content, str) else content
        )
        for part in parts:
            if part["type"] == "text":
                text = part["text"]
                found.append(text)
            else:
                files = part[part["type"]]["url"].partition("base64,")[2].split(",")
                found.append([_pixels(base64.b64decode(file)) for file in files])
    return Received(
        body=body,
        images=[image for part in found if not isinstance(part, str) for image in part],
        parts=[
            part if isinstance(part, str) else tuple(Size(*x.shape[:2]) for x in part)
            for part in found
        ],
        text=text,
        headers=headers,
    )


def _pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def _completion(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    texts = reply.texts or [reply.text] * body.get("n", 1)
    choice: dict[str, Any] = {"finish_reason": "stop", "logprobs": None}
    if reply.probabilities is not None and body.get("logprobs"):
        top = [
            {"token": f"t{i}", "logprob": math.log(p)} for i, p in enumerate(reply.probabilities)
        ]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    told = reply.visual_tokens
    usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": len(texts)}
    return {
        "object": "chat.completion",
        "model": body["model"],
        "choices": [
            {**choice, "index": i, "message": {"role": "assistant", "content": text}}
            for i, text in enumerate(texts)
        ],
        **({} if reply.prompt_tokens is None else {"usage": usage}),
        **({} if told is None else {"mres": {"visual_tokens": told}}),
    }


class _Server(socketserver.ThreadingTCPServer):
    """Without the look-up of a host name, which takes seconds where there is no network."""

    daemon_threads = True
    allow_reuse_address = True


def _handler(server: ChatServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply, content = server.handle(self.path, headers, data)
            with contextlib.suppress(ConnectionError):  # who asked may have given up
                self.send_response(reply.status)
                for name, value in reply.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Says nothing."""

    return Handler

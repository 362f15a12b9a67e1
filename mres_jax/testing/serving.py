"""A server in this process, and a client of the standard library to ask it with."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mres_jax.data.wire import data_url, picture_part
from mres_jax.inference.show import png
from mres_jax.serving import Limits, serve
from mres_jax.serving.app import CHAT, Backend

JSON = {"Content-Type": "application/json"}


class Served(NamedTuple):
    """A server of this process on loopback."""

    port: int
    backend: Any
    log: list[str]

    def ask(self, body: Any = None, **options: Any) -> tuple[int, dict[str, str], Any]:
        """Returns what `send` does, on a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            return send(connection, body, **options)

    def connect(self) -> http.client.HTTPConnection:
        """Returns a connection to it."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)


def send(
    connection: http.client.HTTPConnection,
    body: Any = None,
    *,
    path: str = CHAT,
    method: str | None = None,
    headers: Mapping[str, str] = JSON,
) -> tuple[int, dict[str, str], Any]:
    """Returns status, headers and JSON of one request; bytes are sent as they are."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method or ("GET" if body is None else "POST"), path, data, dict(headers))
    reply = connection.getresponse()
    text = reply.read()
    return reply.status, dict(reply.getheaders()), json.loads(text) if text else None


@contextlib.contextmanager
def serving(backend: Backend, *, limits: Limits, grace: float = 120.0) -> Iterator[Served]:
    """Serves in a thread until the block ends, and lets it finish what is under way."""
    addresses: list[str] = []
    log: list[str] = []
    stop = threading.Event()
    options = {"host": "127.0.0.1", "port": 0, "limits": limits, "grace": grace, "stop": stop}
    thread = threading.Thread(
        target=serve, args=(backend,), kwargs=options | {"say": addresses.append, "log": log.append}
    )
    thread.start()
    until(lambda: bool(addresses))
    try:
        yield Served(int(addresses[0].split(":")[2].split("/")[0]), backend, log)
    finally:
        stop.set()
        thread.join(grace + 10)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits until something is so.

    Raises:
      TimeoutError: it never was.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not so within {seconds:g} s")
        time.sleep(0.01)


def random_picture(seed: int, height: int = 24, width: int = 40) -> np.ndarray:
    """Returns noise, `uint8 [h w 3]`."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def chat_body(*parts: str | np.ndarray, **more: Any) -> dict[str, Any]:
    """Returns the body of a request with one turn of texts and pictures, in this order."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else picture_part(url_of(part))
        for part in parts
    ]
    turn = {"role": "user", "content": content}
    return {"model": "tiny", "messages": [turn], "max_tokens": 6} | more


def url_of(pixels: np.ndarray) -> str:
    """Returns a picture as a data URL."""
    return data_url(png(pixels))

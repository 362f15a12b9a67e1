"""Another server behind the chat endpoint: pixels are decided here, all else is passed on."""

import contextlib
import functools
import http.client
import io
import json
import socket
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.views import render_view
from mres_jax.data.wire import data_url, picture_urls, question_of, with_pictures
from mres_jax.errors import ConfigError, MresError
from mres_jax.geometry import Size, View
from mres_jax.inference.show import png
from mres_jax.resolution.cost import retention_ratio, visual_tokens
from mres_jax.resolution.policies import check_policy, parse_policy
from mres_jax.serving import replies
from mres_jax.serving.app import LOOK, Events, HttpRequest, PolicyRule, Reply
from mres_jax.serving.errors import FAILED, ApiError, ClientGoneError
from mres_jax.serving.limits import Limits, Room
from mres_jax.serving.pictures import load_pictures

MAX_REPLY = 64 * 2**20  # bytes
CONNECT = 10.0  # seconds that a server may take to accept a connection
PASSED_ON = ("authorization", "openai-organization", "openai-project")  # headers of the client
_UPSTREAM = "upstream_error"


class Place(NamedTuple):
    """Where a server is."""

    secure: bool
    host: str
    port: int | None
    path: str

    @classmethod
    def parse(cls, url: str) -> "Place":
        """Reads `http://host:port/v1`; `/v1` is added where no path is given.

        Raises:
          ConfigError: it is no such address.
        """
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urllib.parse.SplitResult("", "", "", "", ""), None
        wrong = parts.query or parts.fragment or parts.username is not None
        if parts.scheme not in ("http", "https") or not parts.hostname or wrong:
            raise ConfigError(f"serve: upstream {url!r}: write http://host:port/v1.")
        return cls(parts.scheme == "https", parts.hostname, port, parts.path.rstrip("/") or "/v1")


class UpstreamBackend:
    """Stands before any OpenAI-compatible server and makes the pictures as large as they shall be.

    Every view is cut and resized here and sent as PNG. Whether the server resizes it once more is
    for its operator to know; visual tokens are counted by `spec`.
    """

    def __init__(
        self,
        url: str,
        *,
        spec: ProcessorSpec,
        rule: PolicyRule,
        limits: Limits,
        hosts: Collection[str] = (),
        timeout: float = 600.0,
    ):
        """Makes a proxy; nothing is sent before the first request.

        Args:
          url: of the server.
          spec: of the model behind it.
          rule: how pixels are chosen.
          limits: what this server takes upon itself.
          hosts: that pictures may be fetched from.
          timeout: seconds without a word from the server.

        Raises:
          MresError: a wrong address, or a policy that the model or a proxy cannot take.
        """
        self.place, self.spec, self.rule, self.limits = Place.parse(url), spec, rule, limits
        self.hosts, self.timeout = hosts, timeout
        check_policy(rule.check(looks=False), spec)
        self.room = Room(limits)
        self.num_answered = 0

    def models(self, request: HttpRequest) -> list[str]:
        """Returns the names that the server tells.

        Raises:
          ApiError: it does not answer, or refuses.
        """
        with contextlib.ExitStack() as stack:
            reply = self._send("GET", "/models", None, request, stack)
            content = _json(reply)
        data = content.get("data")
        entries = data if isinstance(data, list) else []
        return [entry["id"] for entry in entries if isinstance(entry, dict) and "id" in entry]

    def health(self) -> dict[str, Any]:
        """Returns how many requests are under way, and how many were answered."""
        return {
            "upstream": f"{self.place.host}:{self.place.port or ''}".rstrip(":"),
            "policy": self.rule.policy,
            "requests": self.room.num_requests,
            "pixels": self.room.num_pixels,
            "answered": self.num_answered,
        }

    def close(self, seconds: float = 0.0) -> None:
        """Does nothing: each request is on its own."""

    def chat(self, content: dict[str, Any], request: HttpRequest) -> Reply | Events:
        """Passes a chat on and its answer back, with what was looked at.

        Raises:
          ApiError: a picture or policy that cannot be; what the server refuses, under its own
            status; 502 where it cannot be reached or talks nonsense; 504 where it is silent.
          ClientGoneError: the client has closed its connection.
        """
        start = time.perf_counter()
        policy = self._choose(content.pop("policy", None))
        messages = content.get("messages")
        if not isinstance(messages, list):
            raise ApiError(400, "messages: give a list of turns.", param="messages")
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(self.room.enter())
            urls = _picture_urls(messages)
            images = load_pictures(urls, place=place, limits=self.limits, hosts=self.hosts)
            views = self._views(policy, images, messages)
            sent = content | {"messages": with_pictures(messages, _replacement(images, views))}
            cost = self._cost(policy, images, views)
            host_ms = 1e3 * (time.perf_counter() - start)
            reply = self._send("POST", "/chat/completions", sent, request, stack)
            if "text/event-stream" in (reply.getheader("Content-Type") or ""):
                parts = self._parts(reply, cost, host_ms)
                return Events(parts, stack.pop_all().close)
            answer = _json(reply)
        self.num_answered += 1
        ms = {"host": host_ms, "upstream": 1e3 * (time.perf_counter() - start) - host_ms}
        return Reply(200, answer | {replies.COST: cost | {"ms": _rounded(ms)}})

    def _choose(self, wanted: Any) -> str:
        if wanted is not None and not isinstance(wanted, str):
            raise ApiError(400, "policy: give a text.", param="policy")
        policy = self.rule.choose(wanted, looks=False)
        try:
            check_policy(parse_policy(policy), self.spec)
        except MresError as error:
            raise ApiError(400, str(error), param="policy") from None
        return policy

    def _views(self, policy: str, images: Sequence[np.ndarray], messages: list) -> list[View]:
        sizes = [Size(*image.shape[:2]) for image in images]
        try:
            return parse_policy(policy)(sizes, question_of(messages), self.spec)
        except MresError as error:
            raise ApiError(400, str(error), param="messages") from None

    def _cost(
        self, policy: str, images: Sequence[np.ndarray], views: Sequence[View]
    ) -> dict[str, Any]:
        sizes = [Size(*image.shape[:2]) for image in images]
        return {
            **replies.looked_at(views, policy, self.spec),
            "visual_tokens": visual_tokens(views, self.spec),
            "retention_ratio": round(retention_ratio(views, sizes, self.spec), 6),
        }

    def _send(
        self,
        method: str,
        path: str,
        content: Mapping[str, Any] | None,
        request: HttpRequest,
        stack: contextlib.ExitStack,
    ) -> http.client.HTTPResponse:
        """The server's reply, of status 200; the connection is closed with `stack`."""
        kind = http.client.HTTPSConnection if self.place.secure else http.client.HTTPConnection
        wait = min(CONNECT, self.timeout)
        connection = kind(self.place.host, self.place.port, timeout=wait)
        stack.callback(connection.close)
        watched: Any = functools.partial(_Watched, is_gone=request.is_gone, timeout=self.timeout)
        connection.response_class = watched
        headers = {"Content-Type": "application/json", "Connection": "close"}
        headers |= {k: v for k, v in request.headers.items() if k in PASSED_ON}
        body = None if content is None else json.dumps(content).encode()
        with _told(wait):
            connection.connect()
        connection.sock.settimeout(self.timeout)
        with _told(self.timeout):
            connection.request(method, self.place.path + path, body, headers)
            reply = connection.getresponse()
            stack.callback(reply.close)
            if reply.status != http.HTTPStatus.OK:
                raise _refusal(reply)
        return reply

    def _parts(
        self, reply: http.client.HTTPResponse, cost: dict[str, Any], host_ms: float
    ) -> Iterator[bytes]:
        """The server's events; the last part of an answer carries the cost."""
        start = time.perf_counter()
        try:
            with _told(self.timeout):
                while line := reply.readline(MAX_REPLY):
                    ms = {"host": host_ms, "upstream": 1e3 * (time.perf_counter() - start)}
                    yield _with_cost(line, cost | {"ms": _rounded(ms)})
        except ApiError as error:
            yield replies.event(error.to_dict())
            return
        self.num_answered += 1


class _Watched(http.client.HTTPResponse):
    """A reply whose client is looked at while the server is silent."""

    def __init__(
        self,
        sock: socket.socket,
        *args: Any,
        is_gone: Callable[[], bool],
        timeout: float,
        **options: Any,
    ):
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_Reads(sock, self.fp.detach(), is_gone, timeout))


class _Reads(io.RawIOBase):
    """What a server sends; `held` keeps its connection open until this is closed."""

    def __init__(
        self,
        connection: socket.socket,
        held: io.RawIOBase,
        is_gone: Callable[[], bool],
        timeout: float,
    ):
        self._connection, self._held = connection, held
        self._is_gone, self._timeout = is_gone, timeout

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._held.close()
        super().close()

    def readinto(self, buffer: Any, /) -> int:
        end = time.monotonic() + self._timeout
        self._connection.settimeout(min(LOOK, self._timeout))
        while True:
            try:
                return self._connection.recv_into(buffer)
            except TimeoutError:
                if self._is_gone():
                    raise ClientGoneError from None
                if time.monotonic() >= end:
                    raise


def _picture_urls(messages: list) -> list[str]:
    try:
        return picture_urls(messages)
    except MresError as error:
        raise ApiError(400, str(error), param="messages") from None


def _replacement(images: Sequence[np.ndarray], views: Sequence[View]):
    """Index of a picture -> its views as data URLs."""

    def replace(item: int) -> list[str]:
        return [data_url(png(render_view(images[item], v))) for v in views if v.item == item]

    return replace


def _with_cost(line: bytes, cost: dict[str, Any]) -> bytes:
    if not line.startswith(b"data:"):
        return line
    try:
        content = json.loads(line[5:])
        ends = any(choice.get("finish_reason") for choice in content["choices"])
    except (ValueError, KeyError, TypeError, AttributeError):  # `[DONE]`, or an error's
        return line
    return replies.event(content | {replies.COST: cost})[:-1] if ends else line


def _json(reply: http.client.HTTPResponse) -> dict[str, Any]:
    with _told(None):
        text = reply.read(MAX_REPLY)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ApiError(502, "upstream: its answer is no JSON object.", kind=_UPSTREAM)
    return content


def _refusal(reply: http.client.HTTPResponse) -> ApiError:
    """What the server says itself, under its own status."""
    text = reply.read(2**16).decode("utf-8", "replace")
    try:
        said = json.loads(text)["error"]
        message = said["message"] if isinstance(said, dict) else said
    except (ValueError, KeyError, TypeError, RecursionError):
        said, message = {}, text
    said = said if isinstance(said, dict) else {}
    clean = " ".join("".join(c if c.isprintable() else " " for c in str(message)).split())
    after = reply.getheader("Retry-After") or ""
    return ApiError(
        reply.status if reply.status >= 400 else 502,
        f"upstream: status {reply.status}: {clean[:1000] or 'no word'}",
        kind=str(said.get("type") or _UPSTREAM),
        code=None if said.get("code") is None else str(said["code"]),
        param=None if said.get("param") is None else str(said["param"]),
        retry_after=int(after) if after.isdigit() else None,
    )


@contextlib.contextmanager
def _told(timeout: float | None) -> Iterator[None]:
    """What goes wrong between two servers, in words."""
    try:
        yield
    except TimeoutError:
        waited = "" if timeout is None else f" for {timeout:g} s"
        message = f"upstream: it was silent{waited}."
        raise ApiError(504, message, kind=_UPSTREAM, code="upstream_timeout") from None
    except (OSError, http.client.HTTPException) as error:
        reason = (getattr(error, "strerror", None) or type(error).__name__).lower()
        message = f"upstream: {reason}. Is it up?"
        raise ApiError(502, message, kind=FAILED, code="upstream_unreachable") from None


def _rounded(ms: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in ms.items()}

"""The socket side: the standard library's HTTP server, a thread per connection, all of it bounded.

Each connection has a thread because each waits for one thread that runs the model; decoding of
pictures happens in them, side by side. A slow or silent client costs its own thread and no other.
"""

import contextlib
import http.server
import io
import json
import logging
import math
import selectors
import socket
import socketserver
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from mres_jax.serving.app import App, Events, HttpRequest, Reply
from mres_jax.serving.errors import ApiError, ClientGoneError, to_api_error

MAX_CONNECTIONS = 256
# Seconds that a client may say nothing while something is due from it, and in which the head of a
# request is to come, counted from the reply before it.
SILENCE = 30.0
BODY_SECONDS = 120.0  # that a whole body may take
_LINGER = 3.0  # seconds in which what is not wanted is read, so that the refusal arrives
_PIECE = 2**16
_GONE = 499  # in the log, as other servers write it
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)
_logger = logging.getLogger(__name__)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Listens and hands requests to an `App`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        host: str,
        port: int,
        app: App,
        *,
        max_body_bytes: int,
        max_connections: int = MAX_CONNECTIONS,
        log: Callable[[str], None] = lambda line: None,
    ):
        """Opens the port.

        Args:
          host: address to listen at.
          port: 0 takes any that is free; `server_port` says which.
          app: what answers.
          max_body_bytes: larger bodies are refused unread.
          max_connections: further ones get 503.
          log: takes a line for each request.

        Raises:
          OSError: the port is taken, or the address is none of this machine's.
        """
        self.app, self.max_body_bytes, self.log = app, max_body_bytes, log
        self._slots = threading.BoundedSemaphore(max_connections)
        self._busy, self._changed = 0, threading.Condition()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Binds without asking a name server who we are."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Counts a request as under way."""
        with self._changed:
            self._busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def wait_until_idle(self, seconds: float) -> int:
        """Returns how many requests are still under way after at most so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, seconds)
            return self._busy

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for a connection, or turns it away."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.settimeout(1.0)
            request.sendall(_TOO_MANY)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serves a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is no news."""
        _logger.debug("connection", exc_info=True)


class _Reads(io.RawIOBase):
    """What a client sends: it may be silent for so many seconds, and must be done by `end`."""

    def __init__(self, connection: socket.socket, silence: float):
        self._connection, self._silence, self.end = connection, silence, math.inf

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(min(left, self._silence))
        return self._connection.recv_into(buffer)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "mres", ""
    timeout: float = SILENCE  # pyright: ignore[reportIncompatibleVariableOverride]
    disable_nagle_algorithm = True
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def setup(self) -> None:
        """Opens both directions."""
        super().setup()
        self.rfile.close()
        self._reads = _Reads(self.connection, self.timeout)
        self.rfile = io.BufferedReader(self._reads)

    def handle_one_request(self) -> None:
        """Waits for a request and answers it; a head that does not come in time ends all."""
        self._reads.end = time.monotonic() + self.timeout
        super().handle_one_request()

    def _handle(self) -> None:
        start = time.monotonic()
        self._reads.end = math.inf  # the head is here
        self.connection.settimeout(self.timeout)
        with self.server.busy():
            try:
                status = self._answer()
            except (ClientGoneError, OSError):
                status, self.close_connection = _GONE, True
        path = "".join(c if c.isprintable() else "?" for c in self._path()[:100])
        seconds = time.monotonic() - start
        self.server.log(f"{self.command} {path} {status} {seconds:.3f} s")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _handle

    def _answer(self) -> int:
        self._unread = False
        try:
            body = self._body()
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = HttpRequest(self.command, self._path(), headers, body, self._is_gone)
            reply = self.server.app.handle(request)
        except ClientGoneError:
            raise
        except Exception as error:
            told = to_api_error(error)
            if told.status == http.HTTPStatus.INTERNAL_SERVER_ERROR:
                line = textwrap.shorten(str(error), 300, placeholder=" ...")
                self.server.log(f"{type(error).__name__}: {line}")
                _logger.error("request failed", exc_info=True)
            reply = Reply.of_error(told)
        if isinstance(reply, Events):
            return self._send_events(reply)
        self._send(reply)
        if self._unread:
            self._linger()
        return reply.status

    def _path(self) -> str:
        return getattr(self, "path", "").partition("?")[0]

    def _body(self) -> bytes:
        """The whole body; of one that is refused nothing is read."""
        lengths = self.headers.get_all("Content-Length") or ["0"]
        try:
            if "Transfer-Encoding" in self.headers:
                raise ApiError(411, "send the body whole, with its Content-Length.")
            if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
                raise ApiError(400, "Content-Length is no number.")
            if len(lengths[0]) > 18 or int(lengths[0]) > self.server.max_body_bytes:
                raise ApiError(
                    413,
                    f"the body has {lengths[0]:.20} bytes, at most {self.server.max_body_bytes} "
                    "are taken. Send fewer or smaller pictures.",
                    code="body_too_large",
                )
        except ApiError:
            self._unread = self.close_connection = True
            raise
        return self._read(int(lengths[0]))

    def _read(self, length: int) -> bytes:
        content, end = bytearray(), time.monotonic() + BODY_SECONDS
        while len(content) < length:
            try:
                piece = self.rfile.read1(min(_PIECE, length - len(content)))
            except TimeoutError:
                self._unread = self.close_connection = True
                raise ApiError(
                    408,
                    f"nothing came for {self.timeout:g} s, and {len(content)} of the {length} "
                    "bytes of the body are here. Send it in one go.",
                ) from None
            except OSError:
                raise ClientGoneError from None
            if not piece:
                raise ClientGoneError
            content += piece
            if time.monotonic() > end:
                self._unread = self.close_connection = True
                raise ApiError(408, f"the body took longer than {BODY_SECONDS:g} s.")
        return bytes(content)

    def handle_expect_100(self) -> bool:
        """A client that asks first is not told to send what is too large."""
        length = self.headers.get("Content-Length", "")
        if length.isdigit() and len(length) < 19 and int(length) > self.server.max_body_bytes:
            return True  # the refusal follows
        return super().handle_expect_100()

    def _send(self, reply: Reply) -> None:
        body = json.dumps(reply.content).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if self.close_connection or self.server.app.is_draining:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_events(self, events: Events) -> int:
        try:
            chunked = self.request_version != "HTTP/1.0"
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Cache-Control", "no-cache")
            if chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.close_connection = True
            self.end_headers()
            for part in events.parts:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")
        finally:
            events.close()
        return 200

    def _is_gone(self) -> bool:
        """Whether the client has closed its side; looked at without waiting or reading."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            if not selector.select(0):
                return False
        try:
            return self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def _linger(self) -> None:
        """Reads on for a while what was refused: closing at once would lose the refusal."""
        end = time.monotonic() + _LINGER
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER)
            while time.monotonic() < end and self.connection.recv(_PIECE):
                pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses by itself, in the form of all other errors."""
        self.close_connection = True
        self.command = getattr(self, "command", None) or "GET"
        if not hasattr(self, "request_version"):
            self.request_version = "HTTP/1.1"
        text = message or http.HTTPStatus(code).phrase
        clean = "".join(c if c.isprintable() else "?" for c in text[:200])
        self._send(Reply.of_error(ApiError(int(code), f"{clean}.")))

    def log_message(self, format: str, *args: Any) -> None:
        """One line per request is written elsewhere."""

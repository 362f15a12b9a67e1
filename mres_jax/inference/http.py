"""JSON over HTTP with the standard library: timeouts, tries again, one line for each failure."""

import http.client
import itertools
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from mres_jax.errors import MresError, RunError
from mres_jax.inference.patience import Patience

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)  # states that pass
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
MAX_REPLY = 64_000_000  # bytes
_SHOWN = 200  # characters of a server's own words


class _Passing(Exception):
    """A failure that may pass; `pause` is what the server asks for, seconds."""

    def __init__(self, reason: str, pause: float = 0.0):
        super().__init__(reason)
        self.pause = pause


class Server:
    """A server that takes and gives JSON; may be used by several threads.

    Attributes:
      url: its base.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        retries: int = 3,
        patience: Patience | None = None,
    ):
        """Sends nothing yet.

        Args:
          url: its base.
          api_key: sent as a bearer token.
          timeout: seconds for one try.
          retries: further tries of a request; with patience those while others are answered.
          patience: with a server that answers nobody; None has none.
        """
        self.url, self.timeout, self.retries, self.patience = url, timeout, retries, patience
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def post(self, path: str, body: Mapping[str, Any], *, what: str) -> dict[str, Any]:
        """Returns the reply to a POST; `what` names the request in errors.

        Raises:
          MresError: the server refuses the request itself, or its key.
          RunError: it cannot be reached, times out, fails or answers no JSON, after all tries.
          ServerGoneError: it answered nobody for too long, or waiting for it was ended.
        """
        data, patience = json.dumps(body).encode(), self.patience
        failures, since = 0, time.monotonic()
        for attempt in itertools.count():
            sent = time.monotonic()
            try:
                reply = self._post(path, data, what)
            except _Passing as error:
                failure = error
            else:
                if patience:
                    patience.answered(sent)
                return reply
            where = f"server {self.url}: {what}"
            # A server that goes down may still answer what came before: it is not this request.
            is_own = patience is None or patience.last_sent > since
            failures += is_own
            if failures > self.retries:
                raise RunError(
                    f"{where}: {failure} ({attempt + 1} tries). Is it up, and is its address right?"
                )
            pause = min(max(FIRST_PAUSE * 2 ** min(attempt, 9), failure.pause), LONGEST_PAUSE)
            if patience is None:
                time.sleep(pause)
                continue
            if not is_own:
                patience.failed(where, str(failure), say=attempt >= self.retries)
            since = time.monotonic()
            patience.sleep(pause)
        raise AssertionError("unreachable")

    def _post(self, path: str, data: bytes, what: str) -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, data, self._headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                content = reply.read(MAX_REPLY)
        except urllib.error.HTTPError as error:
            with error:
                said = _words(error)
                if error.code in RETRIED:
                    raise _Passing(said, _pause(error.headers.get("Retry-After"))) from None
            raise MresError(f"server {self.url}: {what}: {said}.") from None
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            raise _Passing(_reason(error, self.timeout)) from None
        try:
            decoded = json.loads(content)
        except ValueError:
            decoded = None
        if not isinstance(decoded, dict):
            raise RunError(
                f"server {self.url}: {what}: its answer is no JSON object. Is it an "
                "OpenAI-compatible server, and does its address end in /v1?"
            )
        return decoded


def _reason(error: Exception, timeout: float) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return f"no answer within {timeout:g} s"
    return (getattr(inner, "strerror", None) or str(inner) or type(inner).__name__).lower()


def _words(error: urllib.error.HTTPError) -> str:
    """Status and what the server says of it, one line of printable characters."""
    text = error.read(4096).decode("utf-8", "replace")
    try:
        content = json.loads(text)
        inner = content.get("error", content)
        text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    except (ValueError, AttributeError):
        pass
    clean = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_SHOWN]
    return f"HTTP {error.code}{': ' + clean.rstrip('.') if clean else ''}"


def _pause(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:  # a date
        return 0.0

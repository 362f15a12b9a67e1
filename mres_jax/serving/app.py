"""Requests of HTTP -> replies, without any socket: routes, and what every backend has in common."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from mres_jax.errors import MresError, suggest
from mres_jax.resolution.policies import parse_policy
from mres_jax.serving.chat import parse_json
from mres_jax.serving.engine import shutting_down
from mres_jax.serving.errors import ApiError

CHAT, MODELS, HEALTH = "/v1/chat/completions", "/v1/models", "/health"
METHODS = {CHAT: "POST", MODELS: "GET", HEALTH: "GET"}


class HttpRequest(NamedTuple):
    """What a client sent.

    Attributes:
      method: of HTTP.
      path: without what follows `?`.
      headers: by name in lower case.
      body: whole.
      is_gone: tells whether the client has closed its connection.
    """

    method: str
    path: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    is_gone: Callable[[], bool] = lambda: False


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    content: Mapping[str, Any]
    headers: Mapping[str, str] = {}

    @classmethod
    def of_error(cls, error: ApiError) -> "Reply":
        """The reply that tells of an error."""
        after = error.retry_after
        headers = {} if after is None else {"Retry-After": str(after)}
        return cls(error.status, error.to_dict(), headers)


class Events(NamedTuple):
    """An answer that comes in parts; `close` is called when nobody reads on, or all is read."""

    parts: Iterator[bytes]
    close: Callable[[], None]


@runtime_checkable
class Backend(Protocol):
    """Whoever answers chats: a model here, or another server."""

    def chat(self, content: dict[str, Any], request: HttpRequest) -> Reply | Events:
        """Answers the body of a chat request, or raises what `to_api_error` understands."""
        ...

    def models(self, request: HttpRequest) -> list[str]:
        """Returns the names of the models that may be asked."""
        ...

    def health(self) -> dict[str, Any]:
        """Returns numbers of what is going on."""
        ...

    def close(self) -> None:
        """Takes no more requests."""
        ...


class App:
    """The routes over one backend."""

    def __init__(self, backend: Backend, *, created: int):
        self.backend, self._created = backend, created
        self.is_draining = False

    def handle(self, request: HttpRequest) -> Reply | Events:
        """Answers a request.

        Raises:
          Exception: see `to_api_error`.
        """
        name = request.path.removeprefix(MODELS + "/")
        route = MODELS if name != request.path else request.path.rstrip("/") or "/"
        if route not in METHODS:
            near = suggest(route, METHODS)
            raise ApiError(404, f"no such path{near}; have {', '.join(METHODS)}.", code="no_path")
        if request.method not in (METHODS[route], "HEAD" if METHODS[route] == "GET" else None):
            raise ApiError(405, f"{route}: takes {METHODS[route]} only.", code="no_method")
        if route == HEALTH:
            return self._health()
        if self.is_draining:
            raise shutting_down()
        if route == CHAT:
            check_is_json(request)
            return self.backend.chat(parse_json(request.body), request)
        return self._models(request, name if name != request.path else None)

    def _health(self) -> Reply:
        status = "draining" if self.is_draining else "ok"
        return Reply(503 if self.is_draining else 200, {"status": status} | self.backend.health())

    def _models(self, request: HttpRequest, wanted: str | None) -> Reply:
        names = self.backend.models(request)
        objects = [
            {"id": name, "object": "model", "created": self._created, "owned_by": "mres"}
            for name in names
        ]
        if wanted is None:
            return Reply(200, {"object": "list", "data": objects})
        check_model(wanted, names)
        return Reply(200, objects[names.index(wanted)])


def check_is_json(request: HttpRequest) -> None:
    """Raises `ApiError` (415) unless the body is announced as JSON.

    A page in a browser can post anything else to a server of this machine without asking.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        message = f"Content-Type is {kind or 'missing'!r:.60}; send application/json."
        raise ApiError(415, message, code="content_type")


def check_model(wanted: str, names: list[str]) -> None:
    """Raises `ApiError` (404) unless a model of this name is served."""
    if wanted not in names:
        near = suggest(wanted, names)
        message = f"no model {wanted!r:.200}{near}; have {', '.join(names)}."
        raise ApiError(404, message, param="model", code="model_not_found")


class PolicyRule(NamedTuple):
    """The policy of a server, and whether a request may name another."""

    policy: str
    may_differ: bool

    def choose(self, wanted: str | None) -> str:
        """Returns the policy of a request in its canonical spelling.

        Raises:
          ApiError: 403, requests may not choose; 400, there is no such policy.
        """
        if wanted is not None and not self.may_differ:
            message = f"policy: this server looks with {self.policy} at every picture."
            raise ApiError(403, message, param="policy", code="policy_not_allowed")
        try:
            return str(parse_policy(wanted or self.policy))
        except MresError as error:
            raise ApiError(400, str(error), param="policy") from None

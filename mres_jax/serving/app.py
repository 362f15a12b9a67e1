"""Requests of HTTP -> replies, without any socket: routes, and what every backend has in common."""

import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from mres_jax.errors import MresError, PolicyError, suggest
from mres_jax.resolution.allocator.policy import AllocatorPolicy
from mres_jax.resolution.policies import parse_policy
from mres_jax.resolution.policy import Policy, split
from mres_jax.resolution.task_policy import TaskPolicy
from mres_jax.resolution.zoom.policies import Zoom
from mres_jax.serving.chat import parse_json
from mres_jax.serving.engine import shutting_down
from mres_jax.serving.errors import ApiError

CHAT, MODELS, HEALTH = "/v1/chat/completions", "/v1/models", "/health"
LOOK = 0.25  # seconds between two looks whether the client is still there
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

    def close(self, seconds: float = 0.0) -> None:
        """Refuses what is still under way, and waits so long at most for its end."""
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
        return self._models(request, urllib.parse.unquote(name) if name != request.path else None)

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

    def check(self, *, looks: bool) -> Policy:
        """Returns the policy of the server.

        Args:
          looks: whether the server runs policies that look at pixels before they decide.

        Raises:
          PolicyError: there is no such policy, or this server does not take it.
        """
        policy = parse_policy(self.policy)
        _check_taken(policy, looks=looks)
        return policy

    def choose(self, wanted: str | None, *, looks: bool) -> str:
        """Returns the policy of a request in its canonical spelling; `looks` as of `check`.

        Raises:
          ApiError: 403, requests may not choose, or not this file; 400, there is no such policy, or
            this server does not take it.
        """
        if wanted is not None and not self.may_differ:
            message = f"policy: this server looks with {self.policy} at every picture."
            raise _not_allowed(message)
        try:
            self._check_files(wanted or self.policy)
            policy = parse_policy(wanted or self.policy)
            _check_taken(policy, looks=looks)
        except MresError as error:
            raise ApiError(400, str(error), param="policy") from None
        return str(policy)

    def _check_files(self, wanted: str) -> None:
        """What lies on the server's machine is the operator's to name."""
        own, options = split(self.policy)[2], split(wanted)[2]
        for key in ("file", "weights"):
            if key in options and options[key] != own.get(key):
                raise _not_allowed(
                    f"policy: {key}={options[key]!r:.200} is of the server's machine; requests may "
                    "name only what it was started with."
                )


def _not_allowed(message: str) -> ApiError:
    return ApiError(403, message, param="policy", code="policy_not_allowed")


def _check_taken(policy: Policy, *, looks: bool) -> None:
    """Raises `PolicyError` for policies that need more than sizes and are not run here."""
    chosen = policy.chosen if isinstance(policy, TaskPolicy) else policy
    if isinstance(chosen, Zoom):
        raise PolicyError(
            f"policy {policy}: it asks twice, and a server answers at once. Use mres ask or mres "
            "eval for it, or window to name the place."
        )
    if isinstance(chosen, AllocatorPolicy) and not (looks and chosen is policy):
        cure = "Name the allocator itself" if looks else "Serve without --upstream"
        raise PolicyError(
            f"policy {policy}: an allocator looks at pixels first, which is not done here. {cure}, "
            "or choose a policy of sizes, for example budget:256."
        )

"""What a client reads when its request cannot be answered: OpenAI's form, our words."""

from typing import Any

from mres_jax.errors import MresError, RunError

INVALID, BUSY, FAILED = "invalid_request_error", "rate_limit_error", "server_error"


class ApiError(Exception):
    """A refusal or failure with its HTTP status.

    Attributes:
      status: of HTTP.
      kind: OpenAI's `type`.
      code: a short word for programs, or None.
      param: the field at fault, or None.
      retry_after: seconds after which to try again, or None.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.status, self.kind, self.code, self.param = status, kind, code, param
        self.retry_after = retry_after

    def to_dict(self) -> dict[str, Any]:
        """Returns the body of the reply."""
        fields = {"type": self.kind, "param": self.param, "code": self.code}
        return {"error": {"message": str(self), **fields}}


class ClientGoneError(Exception):
    """Nobody is left to read the answer."""


def to_api_error(error: Exception) -> ApiError:
    """Returns what a client is told of an exception; of a bug no more than its kind."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, MresError):
        return ApiError(400, " ".join(str(error).split()))
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        message = "out of memory. Send fewer or smaller pictures, or name a policy of fewer pixels."
        return ApiError(503, message, kind=FAILED, code="out_of_memory", retry_after=5)
    if isinstance(error, RunError):
        return ApiError(500, " ".join(str(error).split()), kind=FAILED)
    message = f"unexpected {type(error).__name__}; the server's log says more."
    return ApiError(500, message, kind=FAILED)

"""A model behind a server: how it is addressed, and how a run asks it."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from mres_jax.config._checks import require
from mres_jax.errors import ConfigError

_ADDRESS = re.compile(r"(https?://[^#?\s]+)#([^\s]+)")


class ServerAddress(NamedTuple):
    """`http://host:port/v1#name`, taken apart."""

    url: str
    model: str


def is_server(model: str | None) -> bool:
    """Whether a model is named by the address of a server."""
    return model is not None and re.match(r"https?://", model) is not None


def parse_address(text: str) -> ServerAddress:
    """Returns the parts of a server's address.

    Raises:
      ConfigError: it is none, or names no model.

    Example:
      >>> parse_address("http://localhost:8000/v1#qwen")
      ServerAddress(url='http://localhost:8000/v1', model='qwen')
    """
    found = _ADDRESS.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            f"model {text}: a server is written http://host:port/v1#name, with the name of its "
            "model behind #."
        )
    return ServerAddress(found[1].rstrip("/"), found[2])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """How a run asks a backbone that a server answers for.

    Attributes:
      processor: directory or hub id of the served model. Its configuration and tokenizer are read,
        so that tokens are counted here as the server counts them; its weights are not.
      processor_kwargs: sent with every request as `mm_processor_kwargs`, which vLLM hands to the
        image processor. None sends the pixel limits that leave every picture as it is, to models
        that take them (the Qwen-VL families); {} sends nothing.
      concurrency: requests under way at once.
      timeout: seconds for one try.
      retries: further tries of a request while others are answered.
      patience: seconds that a server which answers nobody is waited for.
    """

    processor: str | None = None
    processor_kwargs: Mapping[str, Any] | None = None
    concurrency: int = 32
    timeout: float = 300.0
    retries: int = 3
    patience: float = 3600.0

    def __post_init__(self):
        ok = self.concurrency >= 1 and self.retries >= 0
        require(
            ok,
            "ServerConfig",
            f"concurrency={self.concurrency} must be at least 1 and retries={self.retries} at "
            "least 0.",
        )
        ok = self.timeout > 0 and self.patience >= 0
        require(
            ok,
            "ServerConfig",
            f"timeout={self.timeout} must be above 0 and patience={self.patience} at least 0.",
        )

"""What the commands share: the model that was asked for, versions, progress."""

import platform
import re
import sys
from importlib import metadata

from mres_jax.errors import ConfigError

PACKAGES = ("mres-jax", "jax", "flax", "numpy", "pillow")


def progress(line: str) -> None:
    """Says what goes on, on stderr: stdout is for results."""
    print(f"mres: {line}", file=sys.stderr, flush=True)


def versions() -> dict[str, str]:
    """Returns the versions that an answer depends on, and the device that gave it."""
    import jax

    device = jax.devices()[0]
    return {name: metadata.version(name) for name in PACKAGES} | {
        "python": platform.python_version(),
        "device": f"{device.platform}: {device.device_kind}",
    }


def refuse_servers(model: str | None) -> None:
    """Raises `ConfigError` for a model behind an address."""
    if model and re.match(r"https?://", model):
        raise ConfigError(
            f"model {model}: asking a server is not in this version; give a directory or a hub id "
            "org/name."
        )

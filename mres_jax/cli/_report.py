"""What the commands share: the model that was asked for, versions, progress."""

import os
import platform
import re
import sys
from importlib import metadata
from typing import NamedTuple

from mres_jax.errors import ConfigError

PACKAGES = ("mres-jax", "jax", "flax", "numpy", "pillow")


def progress(line: str) -> None:
    """Says what goes on, on stderr: stdout is for results."""
    print(f"mres: {line}", file=sys.stderr, flush=True)


def versions() -> dict[str, str]:
    """Returns the versions that an answer depends on, and the device that gave it."""
    import jax

    device = jax.devices()[0]
    return {name: _version(name) for name in PACKAGES} | {
        "python": platform.python_version(),
        "device": f"{device.platform}: {device.device_kind}",
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


class Place(NamedTuple):
    """Where a model is, and what it is called in results."""

    name: str
    directory: os.PathLike[str]


def find_model(model: str | None) -> Place:
    """Returns the place of a model, without loading it.

    Args:
      model: a directory or a hub id; None takes the shipped one.

    Raises:
      ConfigError: an address of a server.
      CheckpointError: nothing is there.
    """
    if model and re.match(r"https?://", model):
        raise ConfigError(
            f"model {model}: asking a server is not in this version; give a directory or a hub id "
            "org/name."
        )
    from mres_jax.models.registry import detect, resolve

    directory = resolve(model)
    detect(directory)
    return Place(model or "mres-tiny", directory)

"""What the commands share: the model that was asked for, versions, progress."""

import pathlib
import platform
import re
import sys
from importlib import metadata
from typing import NamedTuple

from mres_jax.errors import CheckpointError, ConfigError

PACKAGES = ("mres-jax", "jax", "flax", "numpy", "pillow")


SHIPPED = "mres-tiny"
SHIPPED_DIRECTORY = pathlib.Path(__file__).parents[1] / "weights" / SHIPPED


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
    directory: pathlib.Path


def find_model(model: str | None) -> Place:
    """Returns the place of a model, without loading it.

    Args:
      model: a directory; None takes the shipped one.

    Raises:
      ConfigError: an address of a server.
      CheckpointError: nothing is there.
    """
    if model is None:
        if not SHIPPED_DIRECTORY.is_dir():
            raise CheckpointError(
                f"model: {SHIPPED} is not part of this installation ({SHIPPED_DIRECTORY} is "
                "missing); give --model DIR."
            )
        return Place(SHIPPED, SHIPPED_DIRECTORY)
    if re.match(r"https?://", model):
        raise ConfigError(
            f"model {model}: asking a server is not in this version; give a directory."
        )
    return Place(model, pathlib.Path(model))

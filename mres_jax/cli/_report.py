"""What the commands share: the model that was asked for, versions, progress."""

import os
import platform
import re
import sys
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple

from mres_jax.errors import ConfigError

if TYPE_CHECKING:
    from mres_jax.inference import VLM

SMALL = 100e6  # bytes of weights
FREE_SHARE = 0.7  # of the free memory that weights may take
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


def open_model(place: Place, *, exact: bool = False) -> "VLM":
    """Loads a model in the type that suits this machine.

    float32 on a CPU where it fits, and for small models everywhere; bfloat16 otherwise.

    Args:
      place: from `find_model`.
      exact: float32 on accelerators too, where memory allows.
    """
    import jax
    import jax.numpy as jnp

    from mres_jax.inference import load
    from mres_jax.inference.doctor import free_memory, stored_bytes

    stored = stored_bytes(place.directory)  # of bfloat16, as released weights are
    fits = 2 * stored < FREE_SHARE * (free_memory() or float("inf"))
    wanted = exact or jax.default_backend() == "cpu" or stored < SMALL
    dtype = jnp.float32 if wanted and fits else jnp.bfloat16
    if stored > SMALL:
        progress(f"loading {place.name} in {jnp.dtype(dtype).name}")
    vlm = load(place.directory, dtype=dtype)
    vlm.name = place.name
    return vlm

"""What the commands share: the model that was asked for, versions, progress."""

import argparse
import os
import platform
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

from mres_jax.config import is_server
from mres_jax.errors import ConfigError

if TYPE_CHECKING:
    from mres_jax.inference import VLM
    from mres_jax.inference.remote import RemoteAnswerer

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


def find_model(model: str | None, *, weights: bool = True) -> Place:
    """Returns the place of a model, without loading it.

    Args:
      model: a directory or a hub id; None takes the shipped one.
      weights: whether these are wanted; of the hub they are not fetched without.

    Raises:
      ConfigError: an address of a server.
      CheckpointError: nothing is there.
    """
    if is_server(model):
        raise ConfigError(
            f"model {model}: this command needs a model's weights, and a server keeps them; give a "
            "directory or a hub id org/name."
        )
    from mres_jax.models.registry import detect, resolve

    directory = resolve(model, weights=weights)
    detect(directory)
    return Place(model or "mres-tiny", directory)


def open_server(
    address: str,
    *,
    processor: str | None = None,
    timeout: float | None = None,
    logprobs: bool = False,
) -> "RemoteAnswerer":
    """Returns what asks a server; its key is read from the environment: OPENAI_API_KEY.

    Args:
      address: `http://host:port/v1#name`.
      processor: the model behind it, as for `find_model`; its weights are not read. The policy is
        then its own, and a server that counts other tokens is refused. None counts visual tokens by
        Qwen2-VL's rule.
      timeout: s for one try of a request; None leaves `RemoteAnswerer`'s.
      logprobs: ask for log-probabilities, and refuse a server that has none.

    Raises:
      ConfigError: it is no address; a timeout of nothing.
      CheckpointError: no such model.
    """
    from mres_jax.inference.remote import RemoteAnswerer

    known: dict[str, Any] = {}
    if processor is not None:
        from mres_jax.models.registry import describe

        *_, described = describe(find_model(processor, weights=False).directory)
        policy = described.policy or described.spec.default_policy
        known = {"spec": described.spec, "tokenizer": described.tokenizer, "policy": policy}
    if timeout is not None:
        known["timeout"] = timeout
    key = os.environ.get("OPENAI_API_KEY")
    return RemoteAnswerer(address, logprobs=logprobs, api_key=key, **known)


def refuse_options(command: str, model: str | None, **options: object) -> None:
    """Refuses options of servers for a model here, and options of models here for a server.

    Args:
      command: for the error.
      model: that is asked.
      **options: those of the other kind, by name; None where they are not given.

    Raises:
      ConfigError: one is given.
    """
    for name, value in options.items():
        if value is not None:
            given = f"{command}: --{name} {value}"
            if is_server(model):
                raise ConfigError(f"{given} is of models here; {model} is a server.")
            raise ConfigError(f"{given} is of a server, and -m names none. Leave it out.")


def of_models_here(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options that `open_model` takes and a server does not."""
    return {"dtype": args.dtype, "weights": args.weights, "adapter": args.adapter}


def say_guessed(server: "RemoteAnswerer") -> None:
    """Says by what rule visual tokens of a server are counted, where nobody named its model."""
    if server.is_guessed:
        progress(
            f"note: server {server.server.url}: visual tokens are counted by Qwen2-VL's rule, "
            f"{server.spec.stride} px a side of each; --processor names the model that it serves"
        )


def open_model(
    place: Place,
    *,
    exact: bool = False,
    dtype: str | None = None,
    weights: str | None = None,
    adapter: str | None = None,
) -> "VLM":
    """Loads a model.

    Args:
      place: from `find_model`.
      exact: float32 on accelerators too, where memory allows.
      dtype: of weights and arithmetic; None takes what suits the device, see `suitable_dtype`.
      weights: `int8` rounds kernels, see `inference.load`.
      adapter: directory of low-rank adapters, likewise.
    """
    import jax.numpy as jnp

    from mres_jax.inference import load
    from mres_jax.inference.device import SMALL, stored_bytes, suitable_dtype

    chosen = dtype or suitable_dtype(place.directory, exact=exact)
    if stored_bytes(place.directory) > SMALL:
        progress(f"loading {place.name} in {jnp.dtype(chosen).name}")
    vlm = load(place.directory, dtype=chosen, weights=weights, adapter=adapter)
    vlm.name = place.name
    return vlm

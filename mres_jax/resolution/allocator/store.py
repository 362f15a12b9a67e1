"""An allocator on disk: weights as safetensors, its configuration, and a card for people."""

import dataclasses
import json
import os
import pathlib
import textwrap
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx
from jax.typing import DTypeLike

from mres_jax.config import from_json, to_json
from mres_jax.errors import CheckpointError, MresError
from mres_jax.files import write_together
from mres_jax.resolution.allocator.config import AllocatorConfig
from mres_jax.resolution.allocator.network import AllocatorNetwork

WEIGHTS, CONFIG, CARD = "model.safetensors", "allocator.json", "README.md"
KIND = "mres_allocator"
MAX_CONFIG_BYTES = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredAllocator:
    """An allocator with what must be known to use it.

    Attributes:
      network: the trained part.
      features: name of the frozen eyes that it was trained with: a model, see
        `inference.allocators`.
      facts: whatever else was kept: backbone, data, steps, scores.
    """

    network: AllocatorNetwork
    features: str
    facts: Mapping[str, Any]


def save_allocator(
    directory: str | os.PathLike[str],
    network: AllocatorNetwork,
    *,
    features: str,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Writes weights, configuration and card; they appear together or not at all.

    Args:
      directory: made if need be; an allocator that stands there is replaced.
      network: what was trained.
      features: name of the eyes.
      facts: JSON values that are kept and shown on the card.

    Raises:
      RunError: the disk is full.
    """
    arrays = {name: np.asarray(value, np.float32) for name, value in _leaves(network).items()}
    content = {
        "kind": KIND,
        "features": features,
        "config": json.loads(to_json(network.config)),
        "facts": dict(facts or {}),
    }
    write_together(
        directory,
        {
            WEIGHTS: safetensors.numpy.save(arrays, {"format": "np"}),
            CONFIG: (json.dumps(content, indent=2) + "\n").encode(),
            CARD: _card(network, features, facts or {}, sum(a.size for a in arrays.values())),
        },
    )


def load_allocator(
    directory: str | os.PathLike[str], *, dtype: DTypeLike = jnp.float32
) -> StoredAllocator:
    """Reads what `save_allocator` wrote.

    Args:
      directory: of the allocator.
      dtype: products run in it; parameters are float32.

    Raises:
      CheckpointError: no allocator, a damaged file, parameters missing, too many or of other sizes.
    """
    path = pathlib.Path(directory)
    content = _read_config(path)
    config = content["config"]
    skeleton = nnx.eval_shape(lambda: AllocatorNetwork(config, dtype=dtype, rngs=nnx.Rngs(0)))
    stored = _read_weights(path / WEIGHTS)
    expected = {name: leaf.shape for name, leaf in _leaves(skeleton).items()}
    _check_same(path, expected, {name: array.shape for name, array in stored.items()})
    graphdef, state = nnx.split(skeleton)
    flat = [
        (keys, leaf.replace(jnp.asarray(stored[".".join(map(str, keys))], jnp.float32)))
        for keys, leaf in nnx.to_flat_state(state)
    ]
    network = nnx.merge(graphdef, nnx.from_flat_state(flat))
    return StoredAllocator(network=network, features=content["features"], facts=content["facts"])


def read_facts(directory: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Returns what was kept beside an allocator, without its weights.

    Raises:
      CheckpointError: no allocator, or a damaged configuration.
    """
    return _read_config(pathlib.Path(directory))["facts"]


def num_parameters(network: AllocatorNetwork) -> int:
    """Returns how many parameters are trained."""
    return sum(int(np.prod(leaf.shape)) for leaf in _leaves(network).values())


def _leaves(network: AllocatorNetwork) -> dict[str, Any]:
    flat = nnx.to_flat_state(nnx.state(network, nnx.Param))
    return {".".join(map(str, keys)): leaf.get_value() for keys, leaf in flat}


def _read_config(path: pathlib.Path) -> dict[str, Any]:
    file = path / CONFIG
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{file}: more than {MAX_CONFIG_BYTES} bytes.")
        content = json.loads(file.read_bytes())
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise CheckpointError(
            f"allocator {path}: {CONFIG}: {reason}. Name a directory that `save_allocator` wrote."
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{file}: not valid JSON ({str(error).splitlines()[0]}).") from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise CheckpointError(f"{file}: not an allocator's configuration (kind is not {KIND}).")
    try:
        config = from_json(json.dumps(content.get("config")))
    except MresError as error:
        raise CheckpointError(f"{file}: {error}") from None
    if not isinstance(config, AllocatorConfig) or not isinstance(content.get("features"), str):
        raise CheckpointError(f"{file}: has no configuration of a network, or no eyes (features).")
    facts = content.get("facts")
    return {**content, "config": config, "facts": facts if isinstance(facts, dict) else {}}


def _read_weights(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{file}: not a whole safetensors file ({detail}).") from None


def _check_same(path: pathlib.Path, expected: Mapping, stored: Mapping) -> None:
    problems = [f"{name} is missing" for name in expected if name not in stored]
    problems += [f"{name} is unexpected" for name in stored if name not in expected]
    problems += [
        f"{name} is {tuple(stored[name])}, the configuration says {tuple(shape)}"
        for name, shape in expected.items()
        if name in stored and tuple(stored[name]) != tuple(shape)
    ]
    if problems:
        shown = textwrap.shorten("; ".join(problems), 400, placeholder=" ...")
        raise CheckpointError(f"allocator {path}: {len(problems)} of its parameters: {shown}.")


def _card(
    network: AllocatorNetwork, features: str, facts: Mapping[str, Any], parameters: int
) -> bytes:
    config = network.config
    lines = [
        "# Resolution allocator",
        "",
        f"{parameters:,} parameters; {config.num_layers} layers, {config.hidden_size} wide.",
        f"It sees frames and question through `{features}` and gives each {config.unit} a scale",
        f"from {config.min_scale:g} to {config.max_scale:g} per side.",
        "",
        "    mres ask PICTURE... -q QUESTION --policy allocator,weights=THIS_DIRECTORY",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
    ]
    return ("\n".join(lines).rstrip() + "\n").encode()

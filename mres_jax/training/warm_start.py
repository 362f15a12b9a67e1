"""Parameters of other models for a run to start from: of a whole one, or part by part."""

import os
from collections.abc import Mapping
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from mres_jax.config import diff
from mres_jax.errors import CheckpointError
from mres_jax.models.checkpoint_io import read_checkpoint, stored_arrays
from mres_jax.models.registry import (
    checkpoint_directory,
    detect,
    load_model,
    load_part,
    resolve,
)
from mres_jax.models.weights import ShardingRule
from mres_jax.training import meshes
from mres_jax.training.learner import TrainState
from mres_jax.training.parts import check_prefixes, is_below
from mres_jax.training.trees import bind, fill_state, split_trees


def restore_params(
    model: str | os.PathLike[str] | Mapping[str, str],
    state: TrainState,
    *,
    config: Any,
    mesh: Mesh | None = None,
) -> TrainState:
    """Returns `state` with the parameters of another model; step and optimiser stay.

    Adapters of the other are merged, those of `state` stay as they are. Heads are taken where the
    other has some. Over a mesh every parameter is read straight to where it will lie: no device
    holds more than its share, and each process reads for its own devices.

    Args:
      model: directory or hub id of a model, or directory of a run, whose newest step is taken; or
        dotted prefix -> directory or hub id with that part, see `load_part`.
      state: takes each parameter in the type that it has.
      config: of the model in `state`.
      mesh: that `state` lies on.

    Raises:
      CheckpointError: no such model, a damaged file (by name), or another architecture.
      ConfigError: a prefix that fits no parameter.
    """
    sharding = None if mesh is None else meshes.rule(mesh)
    if isinstance(model, Mapping):
        put_together = _put_together(model, split_trees(state)["model"], sharding)
        return bind(fill_state(state, {"model": put_together}))
    directory = resolve(model)
    loaded = load_model(directory, param_dtype="stored", sharding=sharding)
    if changes := diff(loaded.config, config):
        raise CheckpointError(
            f"{directory}: is another model than the run's: {'; '.join(changes)}."
        )
    trees = {"model": nnx.state(loaded.model, nnx.Param), **_read_heads(directory, state)}
    return bind(fill_state(state, trees))


def _put_together(sources: Mapping[str, str], own: Any, sharding: ShardingRule | None) -> Any:
    flat = [(path, x) for path, x in nnx.to_flat_state(own)]
    names = [".".join(map(str, path)) for path, _ in flat]
    check_prefixes("init", sources, names)
    parts = []
    for prefix, source in sources.items():
        part = [leaf for leaf, name in zip(flat, names, strict=True) if is_below(name, prefix)]
        loaded = load_part(source, nnx.from_flat_state(part), sharding=sharding)
        parts += nnx.to_flat_state(loaded)
    return nnx.from_flat_state(parts)


def _read_heads(directory: Any, state: TrainState) -> dict[str, Any]:
    heads = split_trees(state).get("heads")
    if heads is None or detect(directory) == "huggingface":
        return {}
    step = checkpoint_directory(directory)
    return read_checkpoint(step, {"heads": heads}) if "heads" in stored_arrays(step) else {}

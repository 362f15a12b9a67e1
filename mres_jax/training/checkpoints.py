"""Steps of a run on disk: saved whole, verified when restored, the last few kept."""

import dataclasses
import json
import os
import warnings
from collections.abc import Mapping
from typing import Any

from etils import epath
from flax import nnx

from mres_jax.config import Run, to_json
from mres_jax.errors import CheckpointError
from mres_jax.models.checkpoint_io import (
    absolute,
    read_checkpoint,
    remove_checkpoint,
    write_checkpoint,
)
from mres_jax.models.manifest import (
    FILE,
    DamagedError,
    Manifest,
    list_steps,
    read_manifest,
    step_directory,
)
from mres_jax.models.registry import family_of
from mres_jax.training.learner import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
    """A step read back.

    Attributes:
      step: which one.
      trees: the trees asked for.
      manifest: what was kept with them.
    """

    step: int
    trees: dict[str, Any]
    manifest: Manifest


def save_checkpoint(
    root: str | os.PathLike[str],
    trees: Mapping[str, Any],
    *,
    step: int,
    config: Mapping[str, Any],
    policy: str | None = None,
    extra: Mapping[str, Any] | None = None,
    assets: Mapping[str, bytes] | None = None,
    keep: int | None = None,
) -> epath.Path:
    """Saves one step under `root` and removes what is older than the newest `keep` steps.

    A step of the same number is replaced. Steps whose save was cut short are cleared away. One run
    at a time may save under one root.

    Args:
      root: directory of the run's checkpoints.
      trees: pytrees by name; `model` holds the model's parameters.
      step: training step.
      config: the model's `config.json`.
      policy: resolution policy the model was trained with.
      extra: more facts, JSON.
      assets: files to keep beside the weights, by name.
      keep: how many steps stay; None keeps all.

    Returns:
      The directory of the step.

    Raises:
      RunError: the disk is full or refuses; earlier steps are untouched.
    """
    folder = absolute(root)
    target = step_directory(folder, step)
    write_checkpoint(
        target, trees, config=config, step=step, policy=policy, extra=extra, assets=assets
    )
    steps = [old for old in list_steps(folder) if old != step]
    stale = list_steps(folder, complete=False)
    for old in stale + (steps[: max(0, len(steps) + 1 - keep)] if keep else []):
        remove_checkpoint(step_directory(folder, old))
    return target


def restore_checkpoint(
    root: str | os.PathLike[str],
    abstract: Mapping[str, Any],
    *,
    step: int | None = None,
    fallback: bool = False,
) -> Restored:
    """Verifies and reads the newest step, or the one named.

    Args:
      root: directory of the run's checkpoints.
      abstract: trees by name whose leaves have the shapes, types and shardings wanted.
      step: which step; None takes the newest complete one.
      fallback: where a step is damaged, warn and take the one before it.

    Raises:
      CheckpointError: no complete step, a damaged file (by name), or arrays that do not match.

    Warns:
      UserWarning: a damaged step that `fallback` passed over.
    """
    folder = absolute(root)
    steps = list_steps(folder)
    if not steps:
        raise CheckpointError(f"{folder}: no complete checkpoint (step_*/{FILE}).")
    if step is not None and step not in steps:
        raise CheckpointError(f"{folder}: no complete step {step}; have {_listing(steps)}.")
    candidates = [s for s in reversed(steps) if step is None or s <= step]
    for number, candidate in enumerate(candidates):
        directory = step_directory(folder, candidate)
        try:
            trees = read_checkpoint(directory, abstract)
            return Restored(step=candidate, trees=trees, manifest=read_manifest(directory))
        except DamagedError as error:
            older = candidates[number + 1 :]
            if not fallback or not older:
                raise _with_cure(error, older) from error
            warnings.warn(f"{error} Taking step {older[0]} instead.", stacklevel=2)
    raise AssertionError("unreachable: the last candidate returns or raises")


class Checkpoints:
    """The checkpoints of a training run.

    Args:
      root: their directory.
      keep: how many steps stay.
      assets: files to keep beside the weights, by name: what makes a step a model that can answer.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        keep: int,
        assets: Mapping[str, bytes] | None = None,
    ):
        self.root, self.keep, self.assets = absolute(root), keep, dict(assets or {})

    def save(self, state: TrainState, *, step: int, run: Run) -> epath.Path:
        """Saves a step; see `save_checkpoint`."""
        return save_checkpoint(
            self.root,
            _trees(state),
            step=step,
            config=family_of(run.model).config_to_hf(run.model),
            policy=max(run.policies, key=run.policies.__getitem__),
            extra={"run": json.loads(to_json(run))},
            assets=self.assets,
            keep=self.keep,
        )

    def restore_latest(self, state: TrainState, *, fallback: bool = False) -> TrainState | None:
        """Returns the newest step in the shape of `state`, or None where none was saved."""
        if not list_steps(self.root):
            return None
        trees = restore_checkpoint(self.root, _trees(state), fallback=fallback).trees
        return _filled(state, trees)._replace(**trees["training"])


def restore_params(root: str | os.PathLike[str], state: TrainState) -> TrainState:
    """Returns `state` with the parameters of the newest step under `root`: step and optimiser stay.

    Raises:
      CheckpointError: no complete step, a damaged file (by name), or another model.
    """
    trees = _trees(state)
    wanted = {name: tree for name, tree in trees.items() if name != "training"}
    return _filled(state, restore_checkpoint(root, wanted).trees)


def _trees(state: TrainState) -> dict[str, Any]:
    """The model apart from all that only training needs, so that it can be read alone."""
    flat = [*nnx.to_flat_state(state.params), *nnx.to_flat_state(state.frozen)]
    heads = [(path, x) for path, x in flat if path[0] != "model"]
    return {
        "model": nnx.from_flat_state([(path[1:], x) for path, x in flat if path[0] == "model"]),
        **({"heads": nnx.from_flat_state(heads)} if heads else {}),
        "training": {"step": state.step, "opt_state": state.opt_state},
    }


def _filled(state: TrainState, trees: Mapping[str, Any]) -> TrainState:
    """`state` with the parameters of `trees`."""
    read = {("model", *path): x for path, x in nnx.to_flat_state(trees["model"])}
    read |= dict(nnx.to_flat_state(trees["heads"])) if "heads" in trees else {}

    def fill(part: Any) -> Any:
        return nnx.from_flat_state([(path, read[path]) for path, _ in nnx.to_flat_state(part)])

    return state._replace(params=fill(state.params), frozen=fill(state.frozen))


def _with_cure(error: DamagedError, older: list[int]) -> DamagedError:
    if not older:
        return error
    return DamagedError(
        f"{error} Step {older[0]} stands before it: ask for it by its number or with fallback=True "
        "(of a run: --checkpoint.fallback=true)."
    )


def _listing(steps: list[int]) -> str:
    return ", ".join(map(str, steps))

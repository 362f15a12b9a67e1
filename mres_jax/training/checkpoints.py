"""Steps of a run on disk: saved whole, verified when restored, the last few kept."""

import contextlib
import dataclasses
import json
import os
import pathlib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import jax
from etils import epath
from flax import nnx

from mres_jax.config import Run, to_json
from mres_jax.errors import CheckpointError
from mres_jax.files import write_together
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
    read_asset,
    read_manifest,
    step_directory,
)
from mres_jax.models.registry import (
    ADAPTERS,
    family_of,
)
from mres_jax.training import hosts
from mres_jax.training.learner import TrainState
from mres_jax.training.trees import bind, fill_state, split_trees

T = TypeVar("T")
FROZEN = "frozen"  # directory beside the steps
BEST, BEST_ROW = "best", "best.json"  # link to the best step, and what it was best in


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
    spared: Collection[int] = (),
    base: epath.Path | None = None,
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
      spared: steps that stay beside them.
      base: a checkpoint under `root` that holds the arrays which `trees` lack.

    Returns:
      The directory of the step.

    Raises:
      RunError: the disk is full or refuses; earlier steps are untouched.
    """
    folder = absolute(root)
    target = step_directory(folder, step)
    write_checkpoint(
        target,
        trees,
        config=config,
        step=step,
        policy=policy,
        extra=extra,
        assets=assets,
        base=base,
    )
    steps = [old for old in list_steps(folder) if old != step]
    stale = list_steps(folder, complete=False)
    older = steps[: max(0, len(steps) + 1 - keep)] if keep else []
    for old in stale + [old for old in older if old not in spared]:
        if hosts.is_main():
            remove_checkpoint(step_directory(folder, old))
    return target


def restore_checkpoint(
    root: str | os.PathLike[str],
    abstract: Mapping[str, Any],
    *,
    step: int | None = None,
    fallback: bool = False,
    defaults: Mapping[str, Any] | None = None,
) -> Restored:
    """Verifies and reads the newest step, or the one named.

    Args:
      root: directory of the run's checkpoints.
      abstract: trees by name whose leaves have the shapes, types and shardings wanted.
      step: which step; None takes the newest complete one.
      fallback: where a step is damaged, warn and take the one before it.
      defaults: trees by name, taken as they are where a step has none of that name.

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

    def read(candidate: int) -> Restored:
        directory = step_directory(folder, candidate)
        manifest = read_manifest(directory)
        added = {k: v for k, v in (defaults or {}).items() if k not in manifest.arrays}
        wanted = {k: v for k, v in abstract.items() if k not in added}
        trees = read_checkpoint(directory, wanted) | added
        return Restored(step=candidate, trees=trees, manifest=manifest)

    candidates = [s for s in reversed(steps) if step is None or s <= step]
    return _from_first_sound(candidates, read, fallback=fallback)


def newest_asset(
    root: str | os.PathLike[str], name: str, *, fallback: bool = False
) -> bytes | None:
    """Verifies and returns a file that the newest step keeps beside its arrays, None without one.

    Args:
      root: directory of the run's checkpoints, with a complete step.
      name: of the file.
      fallback: where it is damaged, warn and take that of the step before.

    Raises:
      CheckpointError: it is damaged.

    Warns:
      UserWarning: a damaged step that `fallback` passed over.
    """
    folder = absolute(root)
    return _from_first_sound(
        list_steps(folder)[::-1],
        lambda step: read_asset(step_directory(folder, step), name),
        fallback=fallback,
    )


class Checkpoints:
    """The checkpoints of a training run.

    Frozen parameters are saved once, in `frozen` beside the steps; each step holds what is trained
    and leans on them. Adapters stand in a tree of their own, so that resuming is exact; whoever
    loads a step as a model gets them merged.

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
        self._base: epath.Path | None = None  # once it is known to be this run's

    def save(
        self, state: TrainState, *, step: int, run: Run, progress: Mapping[str, Any] | None = None
    ) -> epath.Path:
        """Saves a step, see `save_checkpoint`; `progress` is what else a restart needs, JSON."""
        config = family_of(run.model).config_to_hf(run.model)
        if jax.tree.leaves(state.frozen) and self._base is None:
            base = self.root / FROZEN
            frozen = state._replace(params=nnx.State({}))
            write_checkpoint(base, {"model": split_trees(frozen)["model"]}, config=config)
            self._base = base
        extra: dict[str, Any] = {
            "run": json.loads(to_json(run)),
            "progress": dict(progress or {}),
        }
        if run.peft is not None:
            extra[ADAPTERS] = {"scale": run.peft.scale}
        return save_checkpoint(
            self.root,
            split_trees(state._replace(frozen=nnx.State({}))),
            step=step,
            config=config,
            policy=max(run.policies, key=run.policies.__getitem__),
            extra=extra,
            assets=self.assets,
            keep=self.keep,
            spared=[best["step"]] if (best := self.best()) else [],
            base=self._base,
        )

    def best(self) -> dict[str, Any] | None:
        """Returns the row that `mark_best` was given last, if its step still stands."""
        file = self.root / BEST_ROW
        row = json.loads(file.read_text()) if file.exists() else None
        return row if row and row["step"] in list_steps(self.root) else None

    def mark_best(self, row: Mapping[str, Any]) -> None:
        """Keeps a step that was saved until another one is marked; `best` is a link to it.

        Args:
          row: numbers of an evaluation, with their `step`.
        """
        if not hosts.is_main():
            return
        write_together(self.root, {BEST_ROW: f"{json.dumps(row)}\n".encode()})
        link = pathlib.Path(self.root, f".{BEST}.tmp")
        with contextlib.suppress(OSError):  # a file system without links
            link.unlink(missing_ok=True)
            link.symlink_to(step_directory(self.root, row["step"]).name)
            link.replace(self.root / BEST)

    def restore_latest(
        self, state: TrainState, *, fallback: bool = False
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Returns the newest step in the shape of `state`, or None where none was saved.

        With it comes what was kept beside: `progress` of the save, and the `run` of that time.
        """
        if not list_steps(self.root):
            return None
        trees = split_trees(state)
        none_skipped = {"skipped": trees["skipped"]}  # steps from before they were counted
        restored = restore_checkpoint(self.root, trees, fallback=fallback, defaults=none_skipped)
        trees, leans = restored.trees, restored.manifest.base is not None
        self._base = self.root / FROZEN if leans else None
        extra = restored.manifest.extra
        progress = dict(extra.get("progress", {})) | {"run": extra["run"]}
        state = fill_state(state, trees)._replace(**trees["training"], **trees["skipped"])
        return bind(state), progress


def _from_first_sound(steps: Sequence[int], read: Callable[[int], T], *, fallback: bool) -> T:
    """What `read` gives of the first step, or with `fallback` of the first that is not damaged."""
    for number, step in enumerate(steps):
        try:
            return read(step)
        except DamagedError as error:
            older = steps[number + 1 :]
            if not fallback or not older:
                raise _with_cure(error, older) from error
            warnings.warn(f"{error} Taking step {older[0]} instead.", stacklevel=3)
    raise AssertionError("unreachable: the last step returns or raises")


def _with_cure(error: DamagedError, older: Sequence[int]) -> DamagedError:
    if not older:
        return error
    return DamagedError(
        f"{error} Step {older[0]} stands before it: ask for it by its number or with fallback=True "
        "(of a run: --checkpoint.fallback=true)."
    )


def _listing(steps: list[int]) -> str:
    return ", ".join(map(str, steps))

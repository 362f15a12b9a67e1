"""What a run finds in its directory when it goes on."""

import dataclasses
import pathlib
from typing import Any

from mres_jax.config import AllocatorRun, diff, from_json, is_server
from mres_jax.errors import CheckpointError, ConfigError
from mres_jax.resolution.allocator.store import read_facts
from mres_jax.training.metrics import FILES, read_rows

RUN_FILE = "run.json"
FIXED = ("network", "backbone", "eyes", "wire")  # what a run cannot change on its way
FIXED += ("backbone_training.train", "backbone_training.peft")


def answered(directory: pathlib.Path, step: int) -> dict[str, Any] | None:
    """Returns the row of a step's answers to the held-out questions, if they were asked."""
    rows = read_rows(directory / FILES["held_out"])
    return next((row for row in rows if row["step"] == step), None)


def is_unpublished(allocator: pathlib.Path, step: int) -> bool:
    """Whether a run was cut between saving a step and leaving its allocator in a directory."""
    try:
        return read_facts(allocator).get("step") != step
    except CheckpointError:
        return True


def backbone_of(run: AllocatorRun) -> str:
    """Returns which model answers, wherever it does."""
    model = run.server.processor if is_server(run.backbone) else run.backbone
    return model or "mres-tiny"


def check_same_run(directory: pathlib.Path, run: AllocatorRun) -> None:
    """Refuses other models and other parts that learn; numbers of the training may change.

    Raises:
      ConfigError: the directory holds a run of another kind, or of other models.
    """
    file = directory / RUN_FILE
    if not file.is_file():
        return
    old = from_json(file.read_text())
    if not isinstance(old, AllocatorRun):
        raise ConfigError(f"run: {directory} holds a run of another kind; name another directory.")
    named = [dataclasses.replace(each, backbone=backbone_of(each)) for each in (old, run)]
    changes = [line for line in diff(*named) if _is_fixed(line.partition(":")[0])]
    trains = ["yes" if each.backbone_training else "no" for each in (old, run)]
    if trains[0] != trains[1]:
        changes = [line for line in changes if not line.startswith("backbone_training")]
        changes.append(f"backbone learns: {trains[0]} -> {trains[1]}")
    if changes:
        raise ConfigError(
            f"run: {directory} holds a run of other models ({'; '.join(changes)}). Name another "
            "checkpoint.dir."
        )


def _is_fixed(name: str) -> bool:
    """Whether a field, by its dotted name, is one of those or inside one."""
    return any(name == fixed or name.startswith(f"{fixed}.") for fixed in FIXED)

"""What a run finds in its directory when it goes on."""

import pathlib
from typing import Any

from mres_jax.config import AllocatorRun, diff, from_json
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
    changes = [line for line in diff(old, run) if _is_fixed(line.partition(":")[0])]
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

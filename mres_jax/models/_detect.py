"""What kind of model directory a directory is, and what it is instead where it is none."""

import os
from typing import Literal

from etils import epath

from mres_jax.errors import CheckpointError
from mres_jax.models import manifest
from mres_jax.models.safetensors_files import PICKLES

Kind = Literal["huggingface", "orbax"]


def detect(directory: str | os.PathLike[str]) -> Kind:
    """What kind of model directory this is.

    Returns:
      `huggingface` (config.json with safetensors), or `orbax` (a checkpoint of ours, or the
      directory of a run that has some).

    Raises:
      CheckpointError: neither; says what was found instead.
    """
    path = epath.Path(directory)
    if not path.exists():
        raise CheckpointError(f"{path}: no such directory.")
    if not path.is_dir():
        raise CheckpointError(f"{path}: is a file; a model is a directory.")
    if (path / manifest.FILE).exists() or _newest_step(path) is not None:
        return "orbax"
    if (path / "config.json").exists():
        return "huggingface"
    raise CheckpointError(f"{path}: {_what_else(path)}.")


def checkpoint_directory(directory: str | os.PathLike[str]) -> epath.Path:
    """The checkpoint in an `orbax` directory: itself, or the newest complete step below it."""
    path = epath.Path(directory)
    return path if (path / manifest.FILE).exists() else (_newest_step(path) or path)


def _newest_step(path: epath.Path) -> epath.Path | None:
    """A run keeps its steps in itself or in `checkpoints`."""
    for root in (path, path / "checkpoints"):
        steps = manifest.list_steps(root)
        if steps:
            return manifest.step_directory(root, steps[-1])
    return None


def _what_else(path: epath.Path) -> str:
    """Why a directory without config.json and manifest is no model."""
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return "is empty"
    if any(manifest.list_steps(root, complete=False) for root in (path, path / "checkpoints")):
        return "has no complete checkpoint: every save was cut short"
    if "adapter_config.json" in names:
        return (
            "is an adapter (adapter_config.json); load its base model, with adapter= this directory"
        )
    if "model_index.json" in names:
        return "is a diffusers pipeline (model_index.json), not a vision-language model"
    if "_CHECKPOINT_METADATA" in names or "orbax.checkpoint" in names:
        return f"is an orbax checkpoint without {manifest.FILE}, so not one of ours"
    gguf = [name for name in names if name.endswith(".gguf")]
    if gguf:
        return f"holds {gguf[0]}; GGUF is not read, use the safetensors of the same model"
    weights = [name for name in names if name.endswith((".safetensors", *PICKLES))]
    if weights:
        return f"holds {weights[0]} but no config.json; copy the model's config.json beside it"
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"is no model directory: neither config.json nor {manifest.FILE} (it holds {shown})"

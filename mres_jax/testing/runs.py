"""Training runs of seconds."""

import dataclasses
import os
import pathlib
from typing import Any

from mres_jax.config import CheckpointConfig, Documents, OptimizerConfig, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.nativeres_llava.presets import mres_tiny
from mres_jax.training.metrics import read_rows

# How the names of columns end that differ from run to run.
CLOCKS = ("seconds", "seconds_per_step", "_per_s", "data_wait_share", "mfu", "time")


def rows_without_clocks(
    directory: str | os.PathLike[str], name: str = "metrics.jsonl"
) -> list[dict[str, Any]]:
    """What a run wrote into a file of rows, for comparison with another of the same."""
    rows = read_rows(pathlib.Path(directory, name))
    return [{k: v for k, v in row.items() if not k.endswith(CLOCKS)} for row in rows]


def tiny_run(directory: str | os.PathLike[str], *, steps: int = 4, **changes: Any) -> Run:
    """A few steps of a very small reader of documents; `changes` are fields of the run.

    Without auxiliary heads, which are half of what there is to compile.
    """
    model = mres_tiny()
    model = dataclasses.replace(
        model,
        vision_config=dataclasses.replace(
            model.vision_config, depth=1, embed_dim=16, num_heads=2, hidden_size=16
        ),
        text_config=dataclasses.replace(
            model.text_config, hidden_size=16, intermediate_size=16, num_hidden_layers=1
        ),
    )
    fields = {
        "name": "tiny",
        "model": model,
        "policies": {"native": 1.0},
        "data": (
            Documents(
                examples=24,
                kinds={"page": 1.0, "sign": 1.0},
                area_bins={"B": 1.0},
                pairs_per_page=2,
            ),
        ),
        "ladder": (Rung(max_patches=512, max_tokens=512, max_views=8, max_examples=8),),
        "optimizer": OptimizerConfig(learning_rate=1e-3),
        "schedule": Schedule(num_steps=steps, warmup_steps=1, kind="constant"),
        "checkpoint": CheckpointConfig(dir=os.fspath(directory), every_steps=2),
        "aux_loss_weight": 0.0,
        "log_every": 1,
        "metrics": (),
    }
    return Run(**fields | changes)

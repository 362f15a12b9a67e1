"""A run of a small reader of documents, to be killed: see README.md.

mres train experiments/2026-11-kill/tiny.py
"""

import dataclasses

from mres_jax.config import CheckpointConfig, Documents, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.testing import tiny_run


def get_config() -> Run:
    return dataclasses.replace(
        tiny_run("runs/kill"),
        name="kill",
        data=(
            Documents(
                examples=120,
                kinds={"page": 1.0, "sign": 1.0},
                area_bins={"B": 1.0},
                pairs_per_page=4,
            ),
        ),
        ladder=(Rung(max_patches=1_024, max_tokens=1_024, max_views=16, max_examples=16),),
        schedule=Schedule(num_steps=100, warmup_steps=5),
        checkpoint=CheckpointConfig(dir="runs/kill", every_steps=4),
        log_every=1,
    )

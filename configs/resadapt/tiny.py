"""A small allocator on the shipped reader, which stays as it is: for CPUs.

mres train configs/resadapt/tiny.py --data.path=ROWS.jsonl     # rows: {frames, question, answer}

Rows of generated clips: python experiments/2026-11-synthetic-clips/clips.py OUT. In 300 steps, 4
to 10 s each on 2 CPU cores, it learns to look at frames with text at their own size and at the
others at 0.3 of it.
"""

import dataclasses

from mres_jax.config import (
    AllocatorRun,
    CheckpointConfig,
    OptimizerConfig,
    Questions,
    Schedule,
)
from mres_jax.resolution.allocator.config import tiny
from mres_jax.training.rl import CAPO, PPO, Concentration, Similarity


def get_config() -> AllocatorRun:
    return AllocatorRun(
        name="resadapt-tiny",
        network=dataclasses.replace(tiny(), max_scale=1.0),  # frames are legible at their own size
        data=Questions(path="runs/clips/rows.jsonl", held_out=32, max_frames=8),
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.01),
        schedule=Schedule(num_steps=400, warmup_steps=10, kind="constant"),
        checkpoint=CheckpointConfig(dir="runs/resadapt-tiny", every_steps=50),
        # of the long runs, without a floor: under it all right answers would be worth the same
        capo=dataclasses.replace(CAPO.long_runs(), shaping_weight=1.0),
        ppo=PPO(),
        similarity=Similarity(form="paper", margin=1.0, weight=0.05),
        concentration=Concentration(form="paper", cap=20.0, weight=5e-3),
        prompts=4,
        allocations=8,
        drop_agreeing=False,  # the reader is nearly always right: cost is what is left to learn
        max_new_tokens=12,
        strip_every=25,
        retention=0.25,
        smoke={
            "schedule.num_steps": "2",
            "schedule.warmup_steps": "0",
            "prompts": "2",
            "allocations": "2",
            "data.held_out": "2",
            "strip_every": "2",
        },
    )

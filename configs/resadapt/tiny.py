"""A small allocator on the shipped reader, which stays as it is: for CPUs.

mres train configs/resadapt/tiny.py --data.path=ROWS.jsonl     # rows: {frames, question, answer}

Rows of generated clips: python experiments/2026-11-synthetic-clips/clips.py OUT. The reader reads
such clips of 8 frames at full size; how long a step takes and what comes of it is not measured yet.
"""

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
        network=tiny(),
        data=Questions(path="runs/clips/rows.jsonl", held_out=32, max_frames=8),
        optimizer=OptimizerConfig(learning_rate=3e-4, weight_decay=0.01),
        schedule=Schedule(num_steps=400, warmup_steps=10, kind="constant"),
        checkpoint=CheckpointConfig(dir="runs/resadapt-tiny", every_steps=50),
        capo=CAPO(),
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

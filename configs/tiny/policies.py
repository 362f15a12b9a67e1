"""mres-tiny trained further under one policy alone: native, tiles or one fixed size.

mres train configs/tiny/policies.py --policies='{"fixed:416": 1.0}' --checkpoint.dir=runs/fixed

All else is the same: weights to begin with, documents, order, steps, rates. Patches are not named:
the shipped weights come without the heads for it, and fresh ones harm the tower.
experiments/2026-11-policies/run.py trains and asks all three.
"""

from mres_jax.config import CheckpointConfig, Documents, OptimizerConfig, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.nativeres_llava.presets import mres_tiny


def get_config() -> Run:
    return Run(
        name="mres-tiny-policies",
        model=mres_tiny(),
        init="mres-tiny",
        data=(
            Documents(
                kinds={"page": 1.0, "invoice": 1.0, "table": 1.0, "sign": 1.0, "screen": 1.0},
                questions={"rc": 0.75, "sc": 0.25},
                area_bins={"A": 5, "B": 5, "C": 5, "D": 3, "E": 2, "F": 1, "G": 1},
                images_per_prompt={"1": 1},
                questions_per_image=8,
                hard_share=0.3,
                min_text_height=6.0,
            ),
        ),
        policies={"native": 1.0},
        ladder=(
            Rung(max_patches=2_560, max_tokens=896, max_views=64, max_examples=64),
            Rung(max_patches=5_120, max_tokens=1_792, max_views=64, max_examples=64),
            Rung(max_patches=10_240, max_tokens=3_584, max_views=64, max_examples=64),
        ),
        fill=0,
        optimizer=OptimizerConfig(name="muon", learning_rate=3e-4, weight_decay=0.01, b2=0.98),
        schedule=Schedule(num_steps=300, warmup_steps=10, kind="cosine"),
        checkpoint=CheckpointConfig(dir="runs/policies/native-0", every_steps=300, keep=1),
        log_every=25,
        smoke={"schedule.num_steps": "4", "schedule.warmup_steps": "2", "init": "none"},
    )

"""mres-tiny, stage 1: learns to read from dense pages of key-value pairs.

mres train configs/tiny/pages.py     # 4,000 steps, 0.5 to 1.0 s each on 2 CPU cores, 2026-11-21
"""

from mres_jax.config import CheckpointConfig, Documents, OptimizerConfig, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.nativeres_llava.presets import mres_tiny


def get_config() -> Run:
    return Run(
        name="mres-tiny-pages",
        model=mres_tiny(),
        data=(
            Documents(
                kinds={"page": 1.0}, questions={"rc": 1.0}, questions_per_image=8, hard_share=0.3
            ),
        ),
        policies={"native": 1.0},
        ladder=(
            Rung(max_patches=2_048, max_tokens=1_152, max_views=32, max_examples=32),
            Rung(max_patches=4_096, max_tokens=2_304, max_views=32, max_examples=32),
        ),
        fill=0,
        optimizer=OptimizerConfig(name="muon", learning_rate=3e-3, weight_decay=0.01, b2=0.98),
        schedule=Schedule(num_steps=4_000, warmup_steps=50, kind="cosine", end_fraction=0.2),
        checkpoint=CheckpointConfig(dir="runs/tiny-pages", every_steps=250),
        aux_loss_weight=2.0,
        log_every=25,
        smoke={"schedule.num_steps": "4", "schedule.warmup_steps": "2"},
    )

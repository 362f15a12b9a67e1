"""mres-tiny, stage 2: answers about documents of all sizes, one to eight a prompt, mixed views.

mres train configs/tiny/documents.py     # after pages.py; 0.6 to 1.8 s a step on 2 CPU cores

The shipped weights are of this run and pages.py; the plan of steps and the mixture changed on the
way, see experiments/2026-11-mres-tiny.
"""

from mres_jax.config import CheckpointConfig, Documents, OptimizerConfig, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.nativeres_llava.presets import mres_tiny


def get_config() -> Run:
    return Run(
        name="mres-tiny",
        model=mres_tiny(),
        init="runs/tiny-pages/checkpoints",
        data=(
            Documents(
                kinds={"page": 1.0, "invoice": 1.0, "table": 1.0, "sign": 1.0, "screen": 1.0},
                questions={"rc": 0.75, "sc": 0.25},
                area_bins={"A": 14, "B": 9, "C": 5, "D": 3, "E": 2, "F": 1, "G": 1},
                images_per_prompt={"1": 32, "2": 2, "3": 1, "4": 1, "6": 0.5, "8": 0.5},
                questions_per_image=8,
                hard_share=0.3,
                min_text_height=6.0,
            ),
        ),
        policies={
            "native": 8.0,
            "fixed:256": 0.7,
            "scale:0.5": 0.7,
            "scale:0.75": 0.5,
            "budget:128": 0.7,
            "fixed,tokens=182": 0.5,
            "fixed,tokens=300": 0.7,
        },
        ladder=(
            Rung(max_patches=2_560, max_tokens=896, max_views=64, max_examples=64),
            Rung(max_patches=5_120, max_tokens=1_792, max_views=64, max_examples=64),
            Rung(max_patches=10_240, max_tokens=3_584, max_views=64, max_examples=64),
        ),
        fill=0,
        optimizer=OptimizerConfig(name="muon", learning_rate=1.5e-3, weight_decay=0.01, b2=0.98),
        schedule=Schedule(num_steps=8_000, warmup_steps=100, kind="cosine"),
        checkpoint=CheckpointConfig(dir="runs/tiny", every_steps=250),
        aux_loss_weight=0.1,
        log_every=25,
        smoke={"schedule.num_steps": "4", "schedule.warmup_steps": "2", "init": "none"},
    )

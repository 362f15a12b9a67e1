"""mres-tiny-hr: a tiny LLaVA-HR, from towers that were taught to read.

mres train configs/tiny/dual.py     # after experiments/2026-11-tiny-dual/teach.py

Every picture is padded to a square of 256 px and takes 256 visual tokens; text that is shown
smaller than 6 px is not asked about.
"""

from mres_jax.config import CheckpointConfig, Documents, OptimizerConfig, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.llava_hr.presets import mres_tiny_hr


def get_config() -> Run:
    return Run(
        name="mres-tiny-hr",
        model=mres_tiny_hr(),
        init="runs/tiny-dual-taught",
        data=(
            Documents(
                kinds={"page": 1.0, "invoice": 1.0, "table": 1.0, "sign": 1.0, "screen": 1.0},
                questions={"rc": 0.75, "sc": 0.25},
                area_bins={"A": 6, "B": 5, "C": 4, "D": 3, "E": 1},
                questions_per_image=8,
                hard_share=0.3,
                min_text_height=6.0,
            ),
        ),
        policies={"fixed:256,mode=pad": 1.0},
        ladder=(
            Rung(
                max_patches=2_048,
                max_tokens=4_096,
                max_views=8,
                max_examples=8,
                canvases=((256, 256),),
            ),
        ),
        fill=0,
        optimizer=OptimizerConfig(name="muon", learning_rate=1.5e-3, weight_decay=0.01, b2=0.98),
        schedule=Schedule(num_steps=600, warmup_steps=20, kind="cosine"),
        checkpoint=CheckpointConfig(dir="runs/tiny-dual", every_steps=100),
        log_every=10,
        smoke={"schedule.num_steps": "4", "schedule.warmup_steps": "2", "init": "none"},
    )

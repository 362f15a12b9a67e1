"""mres-tiny extended to 400 tokens a picture, where large capitals are larger than it knows.

mres train configs/tiny/extension.py
mres train configs/tiny/extension.py --peft.targets=vision,projector,text.layers --peft.rank=5 \
  --peft.alpha=10 --frozen_dtype=float32 --optimizer.name=adamw --optimizer.learning_rate=3e-3 \
  --optimizer.weight_decay=0 --checkpoint.dir=runs/extension-lora

The first trains all of the model, the second adapters with 4.7 % of its parameters. Pictures of 256
to 384 px a side have capitals of 8 to 10 px, which need that resolution, or of 40 to 60 px.
experiments/2026-11-task-aware/extension.py trains and asks both.
"""

from mres_jax.config import CheckpointConfig, Documents, OptimizerConfig, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.nativeres_llava.presets import mres_tiny


def screens_and_signs(low: int, high: int) -> Documents:
    """Values to be read, with capitals of that many px."""
    return Documents(
        kinds={"screen": 1.0, "sign": 1.0},
        questions={"rc": 1.0},
        area_bins={"D": 1.0},
        cap_heights=(low, high),
        questions_per_image=8,
        examples=512,
    )


def get_config() -> Run:
    return Run(
        name="mres-tiny-extension",
        model=mres_tiny(),
        init="mres-tiny",
        data=(screens_and_signs(8, 10), screens_and_signs(40, 60)),
        policies={"fixed,tokens=400": 1.0},
        ladder=(Rung(max_patches=1_600, max_tokens=640, max_views=1, max_examples=1),),
        accumulation=4,
        optimizer=OptimizerConfig(name="muon", learning_rate=5e-4, weight_decay=0.01, b2=0.98),
        schedule=Schedule(num_steps=100, warmup_steps=10, kind="cosine"),
        checkpoint=CheckpointConfig(dir="runs/extension", every_steps=100, keep=1),
        log_every=20,
        smoke={"schedule.num_steps": "2", "schedule.warmup_steps": "1", "init": "none"},
    )

"""LLaVA-HR at native aspect ratio, stage 2: pictures keep their ratio, up to 1,024 x 1,024 pixels.

mres train configs/llava_hr/stage2_native.py

Beyond the article: as `stage2.py`, from the same stage 1, but nothing is padded to a square. A
picture of 16:9 takes 1,344 x 768 px. The rung names the larger canvases of the model, which hold
every view; those that a pack does not use are skipped. Not run at length.
"""

from mres_jax.config import CheckpointConfig, OptimizerConfig, Rows, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.llava_hr.presets import SMOKE, llava_hr
from mres_jax.models.llava_hr.processor import native_canvases

STAGE1 = "checkpoints/llava-hr-stage1"
LARGE = native_canvases(1_024, 32)[:7]


def get_config() -> Run:
    return Run(
        name="llava-hr-stage2-native",
        model=llava_hr("7b", image_aspect_ratio="native"),
        init=dict.fromkeys(
            ("text", "vision.low", "vision.high", "vision.fusion", "projector"), STAGE1
        ),
        data=(Rows(path="data/llava_v1_5_mix665k.json", images="data/instruct"),),
        num_workers=8,
        policies={"native": 1.0},
        ladder=(
            Rung(
                max_patches=8 * 1_024,
                max_tokens=8 * 1_536,
                max_views=16,
                max_examples=24,
                canvases=tuple((shape.height, shape.width) for shape in LARGE),
            ),
        ),
        optimizer=OptimizerConfig(learning_rate=2e-5, b2=0.999),
        schedule=Schedule(epochs=1, warmup_fraction=0.03),
        accumulation=16,
        loss_average="pack",
        dtype="bfloat16",
        remat="full",
        checkpoint=CheckpointConfig(dir="runs/llava-hr-stage2-native"),
        smoke=SMOKE,
    )

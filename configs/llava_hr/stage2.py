"""LLaVA-HR, stage 2: all parts at 1,024 px, with fresh adapters between the towers.

mres convert runs/llava-hr-stage1 checkpoints/llava-hr-stage1
mres train configs/llava_hr/stage2.py --multihost

Data: llava_v1_5_mix665k, with its picture folders, each picture padded to a square. Every part but
the adapters comes from stage 1, whose model is another one (384 px, none of them), so the parts are
named; projector and final fusion may come from any directory that has them.
Luo et al., 2024, arXiv:2403.03003, and luogen1996/LLaVA-HR: one epoch, 128 rows a step, rate 2e-5
for all parts, cosine, warm-up 3 %. Here a step is `accumulation` packs of one picture: more do
not fit a chip of a v5e-16 beside the state; larger chips take a larger rung and fewer packs.
"""

from mres_jax.config import CheckpointConfig, MeshConfig, OptimizerConfig, Rows, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.llava_hr.presets import SMOKE, llava_hr

STAGE1 = "checkpoints/llava-hr-stage1"


def get_config() -> Run:
    return Run(
        name="llava-hr-stage2",
        model=llava_hr("7b"),
        init=dict.fromkeys(
            ("text", "vision.low", "vision.high", "vision.fusion", "projector"), STAGE1
        ),
        data=(Rows(path="data/llava_v1_5_mix665k.json", images="data/instruct"),),
        num_workers=8,
        policies={"fixed:1024,mode=pad": 1.0},
        ladder=(
            Rung(
                max_patches=1_024,
                max_tokens=1_536,
                max_views=1,
                max_examples=4,
                canvases=((1_024, 1_024),),
            ),
        ),
        optimizer=OptimizerConfig(learning_rate=2e-5, b2=0.999),
        schedule=Schedule(epochs=1, warmup_fraction=0.03),
        accumulation=128,
        mesh=MeshConfig(fsdp=16),
        loss_average="pack",
        dtype="bfloat16",
        remat="full",
        checkpoint=CheckpointConfig(dir="runs/llava-hr-stage2"),
        smoke=SMOKE | {"policies": '{"fixed:128,mode=pad": 1.0}'},
    )

"""NativeRes-LLaVA, stage 2 on LLaVA-1.5's mixture: projector and decoder, the tower frozen.

mres train configs/nativeres_llava/stage2.py

Data: llava_v1_5_mix665k, with its picture folders. Goes on from stage 1.
Niu et al., 2025, arXiv:2506.12776: one epoch, 32 rows a step, rate 1e-5, cosine, warm-up 3 %. Here
a step is `accumulation` packs: set it so that they hold about 32 rows of your pictures.
Memory, counted without activations: 123 GB (7b), 26 GB (1.5b), 9 GB (0.5b).
"""

from mres_jax.config import CheckpointConfig, OptimizerConfig, Rows, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.nativeres_llava.presets import SMOKE, nativeres_llava


def get_config() -> Run:
    return Run(
        name="nativeres-llava-stage2",
        model=nativeres_llava("7b"),
        init="runs/nativeres-llava-stage1",
        data=(Rows(path="data/llava_v1_5_mix665k.json", images="data/instruct"),),
        num_workers=8,
        policies={"native": 1.0},  # 4 to 4,096 visual tokens: the model's own limits
        ladder=(Rung(max_patches=16_384, max_tokens=8_192, max_views=64, max_examples=64),),
        train={"projector": 1.0, "text": 1.0},
        frozen_dtype="bfloat16",  # as released
        optimizer=OptimizerConfig(learning_rate=1e-5, b2=0.999),
        schedule=Schedule(epochs=1, warmup_fraction=0.03),
        accumulation=2,
        loss_average="pack",
        label_mask="released",
        dtype="bfloat16",
        remat="full",
        checkpoint=CheckpointConfig(dir="runs/nativeres-llava-stage2"),
        smoke=SMOKE,
    )

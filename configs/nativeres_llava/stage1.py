"""NativeRes-LLaVA, stage 1: the projector alone learns captions.

mres train configs/nativeres_llava/stage1.py

Data: LLaVA-Pretrain, 558 k captioned pictures. Weights: the tower of Qwen2-VL-2B, the decoder of
Qwen2-7B; the paper's other sizes are "0.5b" and "1.5b", with decoders to match.
Niu et al., 2025, arXiv:2506.12776: one epoch, 128 rows a step, rate 1e-3, cosine, warm-up 3 %. Here
a step is `accumulation` packs: set it so that they hold about 128 rows of your pictures.
Memory, counted without activations: 17 GB (7b), 5 GB (1.5b), 2 GB (0.5b).
"""

from mres_jax.config import CheckpointConfig, OptimizerConfig, Rows, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.nativeres_llava.presets import SMOKE, nativeres_llava


def get_config() -> Run:
    return Run(
        name="nativeres-llava-stage1",
        model=nativeres_llava("7b"),
        init={"vision": "Qwen/Qwen2-VL-2B-Instruct", "text": "Qwen/Qwen2-7B-Instruct"},
        data=(
            Rows(
                path="data/blip_laion_cc_sbu_558k.json",
                images="data/pretrain",
                template="plain",
            ),
        ),
        num_workers=8,
        policies={"native": 1.0},  # 4 to 4,096 visual tokens: the model's own limits
        ladder=(Rung(max_patches=16_384, max_tokens=5_120, max_views=64, max_examples=64),),
        train={"projector": 1.0},
        frozen_dtype="bfloat16",  # as released
        optimizer=OptimizerConfig(learning_rate=1e-3, b2=0.999),
        schedule=Schedule(epochs=1, warmup_fraction=0.03),
        accumulation=4,
        loss_average="pack",
        label_mask="released",
        dtype="bfloat16",
        remat="full",
        checkpoint=CheckpointConfig(dir="runs/nativeres-llava-stage1"),
        smoke=SMOKE,
    )

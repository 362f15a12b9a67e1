"""Qwen2.5-VL-7B with LoRA on a v5e-16: the released weights frozen in bfloat16, adapters trained.

mres train configs/qwen2_5_vl/lora.py --multihost

Data: llava_v1_5_mix665k, with its picture folders; any rows will do. Nothing but the adapters of
the decoder has gradients and optimiser state. Pictures keep their size up to 2,048 visual tokens.
A step is 16 packs, about 170 rows of this mixture.
"""

from mres_jax.config import (
    CheckpointConfig,
    LoRA,
    MeshConfig,
    OptimizerConfig,
    Rows,
    Run,
    Schedule,
)
from mres_jax.data.types import Rung
from mres_jax.models.qwen2_5_vl.config import qwen2_5_vl
from mres_jax.models.qwen2_5_vl.presets import SMOKE


def get_config() -> Run:
    return Run(
        name="qwen2.5-vl-7b-lora",
        model=qwen2_5_vl("7b"),
        init="Qwen/Qwen2.5-VL-7B-Instruct",
        data=(Rows(path="data/llava_v1_5_mix665k.json", images="data/instruct"),),
        num_workers=8,
        policies={"budget:2048": 1.0},
        ladder=(Rung(max_patches=16_384, max_tokens=7_168, max_views=32, max_examples=32),),
        peft=LoRA(targets=("text.layers",), rank=16, alpha=32.0),
        optimizer=OptimizerConfig(learning_rate=1e-4, b2=0.999),
        schedule=Schedule(epochs=1, warmup_fraction=0.03),
        accumulation=16,
        mesh=MeshConfig(fsdp=16),
        balance=512,  # 32 steps
        dtype="bfloat16",
        remat="full",
        checkpoint=CheckpointConfig(dir="runs/qwen2.5-vl-7b-lora"),
        smoke=SMOKE,
    )

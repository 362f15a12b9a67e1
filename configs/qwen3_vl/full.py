"""Qwen3-VL-8B whole on a v5e-16: all parameters fully sharded, the tower at a fifth of the rate.

mres train configs/qwen3_vl/full.py --multihost

Data: llava_v1_5_mix665k, with its picture folders; any rows will do. Pictures keep their size up to
2,048 visual tokens of 32 px. A step is 16 packs, about 110 rows of this mixture. A tensor axis may
have 8 devices at most, as the decoder has 8 key/value heads: `--mesh.fsdp=4 --mesh.tensor=4`.
"""

from mres_jax.config import CheckpointConfig, MeshConfig, OptimizerConfig, Rows, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.qwen3_vl.config import qwen3_vl
from mres_jax.models.qwen3_vl.presets import SMOKE


def get_config() -> Run:
    return Run(
        name="qwen3-vl-8b",
        model=qwen3_vl("8b"),
        init="Qwen/Qwen3-VL-8B-Instruct",
        data=(Rows(path="data/llava_v1_5_mix665k.json", images="data/instruct"),),
        num_workers=8,
        policies={"budget:2048": 1.0},
        ladder=(Rung(max_patches=8_192, max_tokens=4_096, max_views=24, max_examples=24),),
        train={"": 1.0, "vision": 0.2},
        optimizer=OptimizerConfig(learning_rate=1e-5, b2=0.999),
        schedule=Schedule(epochs=1, warmup_fraction=0.03),
        accumulation=16,
        mesh=MeshConfig(fsdp=16),
        balance=512,  # 32 steps
        dtype="bfloat16",
        remat="full",
        checkpoint=CheckpointConfig(dir="runs/qwen3-vl-8b"),
        smoke=SMOKE,
    )

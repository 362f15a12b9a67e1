"""Qwen2.5-VL-7B whole on a v5e-16: all parameters fully sharded, the tower at a fifth of the rate.

mres train configs/qwen2_5_vl/full.py --multihost

Data: llava_v1_5_mix665k, with its picture folders; any rows will do. Pictures keep their size up to
2,048 visual tokens. A step is 16 packs, about 85 rows of this mixture. A tensor axis may have 4
devices at most, as the decoder has 4 key/value heads: `--mesh.fsdp=4 --mesh.tensor=4`.
"""

from mres_jax.config import CheckpointConfig, MeshConfig, OptimizerConfig, Rows, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.qwen2_5_vl.config import qwen2_5_vl
from mres_jax.models.qwen2_5_vl.presets import SMOKE


def get_config() -> Run:
    return Run(
        name="qwen2.5-vl-7b",
        model=qwen2_5_vl("7b"),
        init="Qwen/Qwen2.5-VL-7B-Instruct",
        data=(Rows(path="data/llava_v1_5_mix665k.json", images="data/instruct"),),
        num_workers=8,
        policies={"budget:2048": 1.0},
        ladder=(Rung(max_patches=8_192, max_tokens=4_096, max_views=16, max_examples=16),),
        train={"": 1.0, "vision": 0.2},
        optimizer=OptimizerConfig(learning_rate=1e-5, b2=0.999),
        schedule=Schedule(epochs=1, warmup_fraction=0.03),
        accumulation=16,
        mesh=MeshConfig(fsdp=16),
        balance=512,  # 32 steps
        dtype="bfloat16",
        remat="full",
        checkpoint=CheckpointConfig(dir="runs/qwen2.5-vl-7b"),
        smoke=SMOKE,
    )

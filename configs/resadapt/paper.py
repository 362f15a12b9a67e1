"""ResAdapt as its paper and released runs describe it: an allocator for Qwen2.5-VL-7B.

mres train configs/resadapt/paper.py --data.path=ROWS.jsonl --eyes=HUB_ID

The paper: 128 questions a step, 16 allocations, one rollout each, 128 frames, learning rate 2e-5,
scales from 0.2 to 1.8, a video budget of 8,192 visual tokens, which `max_pixels` is at scale 1, one
epoch of 93.4 K questions on 32 accelerators. Constants that it does not give are those of the
released code. A step holds the frames of 128 clips, 45 GB of host memory at
1280 x 720. Not run here: it needs accelerators, the data and eyes.
Published eyes are those of SmolVLM2-256M, 576 wide; with others set `network.frame_size` and
`network.question_size`.
"""

from mres_jax.config import (
    AllocatorRun,
    CheckpointConfig,
    OptimizerConfig,
    Questions,
    Schedule,
)
from mres_jax.resolution.allocator.config import paper
from mres_jax.training.rl import CAPO, PPO, Concentration, Similarity


def get_config() -> AllocatorRun:
    return AllocatorRun(
        name="resadapt-paper",
        network=paper(),
        backbone="Qwen/Qwen2.5-VL-7B-Instruct",
        eyes="HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
        data=Questions(
            path="data/resadapt/rows.jsonl",
            held_out=512,
            max_frames=128,
            max_pixels=128 * 28 * 28,
        ),
        optimizer=OptimizerConfig(learning_rate=2e-5, weight_decay=0.01, b2=0.999),
        schedule=Schedule(num_steps=730, warmup_steps=10, kind="constant"),
        checkpoint=CheckpointConfig(dir="runs/resadapt-paper", every_steps=50, keep=3),
        capo=CAPO(),
        ppo=PPO(),
        similarity=Similarity(),
        concentration=Concentration(),
        wire="pairs",
        dtype="bfloat16",
        prompts=128,
        allocations=16,
        rollouts=1,
        updates=4,
        clips_per_pack=4,
        drop_agreeing=False,  # 16 right answers to an easy question say that it may be cheaper
        max_new_tokens=256,
        smoke={
            "schedule.num_steps": "2",
            "schedule.warmup_steps": "0",
            "backbone": "none",
            "eyes": "mres-tiny",
            "wire": "stills",
            "network.frame_size": "128",
            "network.question_size": "128",
            "network.num_layers": "1",
            "dtype": "float32",
            "data.max_frames": "8",
            "data.held_out": "2",
            "prompts": "2",
            "allocations": "2",
            "updates": "1",
            "max_new_tokens": "8",
        },
    )

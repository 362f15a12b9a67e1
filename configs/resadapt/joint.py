"""ResAdapt with a backbone that learns beside the allocator, from the same rollouts.

mres train configs/resadapt/joint.py --data.path=ROWS.jsonl --eyes=HUB_ID

On 32 devices, as the paper has them: `paper.py` with 64 frames a clip, each twice as large at scale
1, so that the budget is the paper's 8,192 visual tokens, and GRPO for every token of Qwen2.5-VL-7B,
one update for each of the allocator's. Not run here: it needs accelerators, the data and eyes;
`mres plan` says what it takes.
"""

from mres_jax.config import (
    AllocatorRun,
    BackboneTraining,
    CheckpointConfig,
    MeshConfig,
    OptimizerConfig,
    Questions,
    Schedule,
)
from mres_jax.data.types import Rung
from mres_jax.resolution.allocator.config import paper
from mres_jax.training.rl import CAPO, PPO, Concentration, Similarity

# Visual tokens of a clip at scales of about 0.5, 0.7, 1, 1.4 and 1.8, the largest, per side.
VISUAL = (2_304, 4_608, 9_216, 16_384, 29_696)
TEXT = 1_024  # tokens of a question, the times of its frames and an answer
PAIRS = 32  # of frames


def ladder(clips: int) -> tuple[Rung, ...]:
    """Rungs of so many clips at most."""
    return tuple(
        Rung(
            max_patches=4 * visual,
            max_tokens=visual + clips * TEXT,
            max_views=clips * PAIRS,
            max_examples=clips,
        )
        for visual in VISUAL
    )


def get_config() -> AllocatorRun:
    return AllocatorRun(
        name="resadapt-joint",
        network=paper(),
        backbone="Qwen/Qwen2.5-VL-7B-Instruct",
        eyes="HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
        data=Questions(
            path="data/resadapt/rows.jsonl",
            held_out=512,
            max_frames=2 * PAIRS,
            max_pixels=256 * 28 * 28,
        ),
        optimizer=OptimizerConfig(learning_rate=2e-5, weight_decay=0.01, b2=0.999),
        schedule=Schedule(num_steps=730, warmup_steps=10, kind="constant"),
        checkpoint=CheckpointConfig(dir="runs/resadapt-joint", every_steps=50, keep=3),
        capo=CAPO(),
        ppo=PPO(),
        similarity=Similarity(),
        concentration=Concentration(),
        wire="pairs",
        ladder=ladder(8),  # what is read of the weights for a token serves the answers of a pack
        dtype="bfloat16",
        prompts=128,
        allocations=16,
        rollouts=1,
        updates=4,
        clips_per_pack=1,
        max_new_tokens=256,
        backbone_training=BackboneTraining(
            optimizer=OptimizerConfig(learning_rate=1e-6, weight_decay=0.01, b2=0.999),
            remat="full",
            ladder=ladder(1),
        ),
        mesh=MeshConfig(fsdp=32),
        smoke={
            "schedule.num_steps": "2",
            "schedule.warmup_steps": "0",
            "backbone": "none",
            "eyes": "mres-tiny",
            "wire": "stills",
            "ladder": "[]",
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
            "mesh.fsdp": "1",
            "backbone_training.remat": "none",
            "backbone_training.ladder": "[]",
        },
    )

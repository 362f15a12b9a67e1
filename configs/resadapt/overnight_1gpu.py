r"""ResAdapt in a night on one GPU: the backbone stays as it is, behind a server on the same GPU.

vllm serve Qwen/Qwen2.5-VL-3B-Instruct --served-model-name qwen --max-model-len 8192 \
    --gpu-memory-utilization 0.55 --limit-mm-per-prompt '{"image": 16}'
XLA_PYTHON_CLIENT_MEM_FRACTION=0.35 mres train configs/resadapt/overnight_1gpu.py \
    --data.path=ROWS.jsonl

Both shares of the GPU's memory have to be set, since either program takes nearly all of it by
itself: vLLM 0.55 for weights and caches, JAX 0.35 for eyes and allocator; what is left is for the
CUDA contexts of the two. Start either first: the run waits for the server.

16 frames a clip, each of at most 128 visual tokens at scale 1: 2,048 tokens a question. 32
questions a step with 8 allocations each, one rollout under each: 256 rollouts a step; the log says
how many a second come, which decides how many steps a night has. Not run here: it needs a GPU, the
data and eyes. `--smoke` takes mres-tiny in place of the server, so it needs none.
"""

from mres_jax.config import (
    AllocatorRun,
    CheckpointConfig,
    OptimizerConfig,
    Questions,
    Schedule,
    ServerConfig,
)
from mres_jax.resolution.allocator.config import AllocatorConfig
from mres_jax.training.rl import CAPO, PPO, Concentration, Similarity


def get_config() -> AllocatorRun:
    return AllocatorRun(
        name="resadapt-overnight",
        # Nothing above scale 1: no question has more than 2,048 visual tokens.
        network=AllocatorConfig(frame_size=576, question_size=576, max_scale=1.0),
        backbone="http://localhost:8000/v1#qwen",
        server=ServerConfig(processor="Qwen/Qwen2.5-VL-3B-Instruct", concurrency=64),
        eyes="HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
        data=Questions(
            path="data/resadapt/rows.jsonl",
            held_out=128,
            max_frames=16,
            max_pixels=128 * 28 * 28,
        ),
        optimizer=OptimizerConfig(learning_rate=5e-5, weight_decay=0.01, b2=0.999),
        schedule=Schedule(num_steps=400, warmup_steps=10, kind="constant"),
        checkpoint=CheckpointConfig(dir="runs/resadapt-overnight", every_steps=20, keep=3),
        capo=CAPO(),
        ppo=PPO(),
        similarity=Similarity(),
        concentration=Concentration(),
        wire="stills",
        times=True,
        prompts=32,
        allocations=8,
        rollouts=1,
        clips_per_pack=8,
        max_new_tokens=128,
        retention=0.25,
        smoke={
            "schedule.num_steps": "2",
            "schedule.warmup_steps": "0",
            "backbone": "none",
            "eyes": "mres-tiny",
            "network.frame_size": "128",
            "network.question_size": "128",
            "network.num_layers": "1",
            "data.max_frames": "8",
            "data.held_out": "2",
            "prompts": "2",
            "allocations": "2",
            "max_new_tokens": "8",
            "strip_every": "2",
        },
    )

"""LLaVA-HR, stage 1: the projector and the final fusion learn captions at 384 px, no adapters.

mres train configs/llava_hr/stage1.py --multihost

Data: LLaVA-Pretrain, 558 k captioned pictures, the middle square of each. Weights: CLIP ViT-L/14 at
336 px, ConvNeXt-L as the released code resolves its name, Vicuna 7B v1.5. Vicuna is released as
pickles with a slow tokenizer: keep it as safetensors with a `tokenizer.json` in `checkpoints`.
Luo et al., 2024, arXiv:2403.03003, and luogen1996/LLaVA-HR: one epoch, 256 rows a step, rate 1e-3,
cosine, warm-up 3 %. Here a step is `accumulation` packs of 16 pictures.
"""

from mres_jax.config import CheckpointConfig, MeshConfig, OptimizerConfig, Rows, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.llava_hr.presets import SMOKE, llava_hr


def get_config() -> Run:
    return Run(
        name="llava-hr-stage1",
        model=llava_hr("7b", side=384, num_adapters=0, image_aspect_ratio="square"),
        init={
            "text": "checkpoints/vicuna-7b-v1.5",
            "vision.low": "openai/clip-vit-large-patch14-336",
            "vision.high": "timm/convnext_large_mlp.clip_laion2b_soup_ft_in12k_in1k_320",
        },
        data=(
            Rows(
                path="data/blip_laion_cc_sbu_558k.json",
                images="data/pretrain",
                template="plain",
            ),
        ),
        num_workers=8,
        policies={"fixed:384,mode=crop": 1.0},
        ladder=(
            Rung(
                max_patches=16 * 576,
                max_tokens=16 * 640,
                max_views=16,
                max_examples=16,
                canvases=((384, 384),),
            ),
        ),
        train={"projector": 1.0, "vision.fusion": 1.0},
        frozen_dtype="bfloat16",  # as released
        optimizer=OptimizerConfig(learning_rate=1e-3, b2=0.999),
        schedule=Schedule(epochs=1, warmup_fraction=0.03),
        accumulation=16,
        mesh=MeshConfig(fsdp=16),
        loss_average="pack",
        dtype="bfloat16",
        remat="full",
        checkpoint=CheckpointConfig(dir="runs/llava-hr-stage1"),
        smoke=SMOKE | {"policies": '{"fixed:128,mode=crop": 1.0}'},
    )

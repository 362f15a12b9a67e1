"""mres-tiny, stage 3: places and clips, beside the documents of stage 2. Tried, and not shipped.

mres train configs/tiny/points.py --checkpoint.dir=runs/tiny-heads --train.vision.pos_embed=1 \
    --schedule.num_steps=120                         # fresh heads first, else they harm the tower
mres train configs/tiny/points.py --init=runs/tiny-heads/checkpoints

It does not point after 600 steps, see experiments/2026-11-mres-tiny.

Starts from the weights of stage 2, to which the tower's table of positions is new: rotary positions
say where patches stand to each other, never where in the picture.
"""

from mres_jax.config import CheckpointConfig, Documents, OptimizerConfig, Run, Schedule
from mres_jax.data.types import Rung
from mres_jax.models.nativeres_llava.presets import mres_tiny

SHIPPED = "mres_jax/models/shipped/mres_tiny"
BINS = {"A": 14, "B": 9, "C": 5, "D": 3, "E": 2, "F": 1, "G": 1}
KINDS = {"page": 1.0, "invoice": 1.0, "table": 1.0, "sign": 1.0, "screen": 1.0}


def get_config() -> Run:
    return Run(
        name="mres-tiny-points",
        model=mres_tiny(position_side=20),
        init={
            "vision.patch_embed": SHIPPED,
            "vision.blocks": SHIPPED,
            "vision.merger": SHIPPED,
            "projector": SHIPPED,
            "text": SHIPPED,
        },
        data=(
            Documents(
                examples=1_300,
                kinds=KINDS,
                questions={"rc": 0.75, "sc": 0.25},
                area_bins=BINS,
                images_per_prompt={"1": 32, "2": 2, "3": 1, "4": 1},
                questions_per_image=8,
                hard_share=0.3,
                min_text_height=6.0,
            ),
            Documents(
                examples=2_400,
                kinds=KINDS | {"page": 3.0},
                questions={"rc": 0.1, "point": 0.9},
                area_bins={"B": 3, "C": 5, "D": 4, "E": 1},
                questions_per_image=8,
                min_text_height=6.0,
                min_name_height=4.0,
                place_step=50,
                policies={"native": 1, "scale:0.5": 3, "scale:0.7": 1, "budget:96": 3},
            ),
            Documents(
                examples=1_000,
                kinds={"desktop": 1.0, "scene": 1.0},
                questions={"rc": 0.1, "point": 0.9},
                questions_per_image=8,
                min_text_height=6.0,
                min_name_height=4.0,
                place_step=50,
                policies={"native": 0.5, "scale:0.35": 5, "scale:0.5": 2},
            ),
            Documents(
                examples=120,
                questions={"rc": 1.0},
                min_text_height=6.0,
                clip_frames={"8": 4, "16": 1},
                policies={"native": 4, "scale:0.75": 1, "scale:0.5": 3, "scale:0.25": 2},
            ),
        ),
        policies={"native": 8.0, "fixed:256": 0.7, "scale:0.5": 0.7, "budget:128": 0.7},
        ladder=(
            Rung(max_patches=2_560, max_tokens=896, max_views=64, max_examples=64),
            Rung(max_patches=5_120, max_tokens=1_792, max_views=64, max_examples=64),
            Rung(max_patches=10_240, max_tokens=3_584, max_views=64, max_examples=64),
        ),
        fill=0,
        optimizer=OptimizerConfig(name="muon", learning_rate=1.5e-3, weight_decay=0.01, b2=0.98),
        schedule=Schedule(num_steps=1_400, warmup_steps=30, kind="cosine"),
        checkpoint=CheckpointConfig(dir="runs/tiny-points", every_steps=200),
        aux_loss_weight=0.2,
        log_every=25,
        smoke={"schedule.num_steps": "4", "schedule.warmup_steps": "2", "init": "none"},
    )

"""NativeRes-LLaVA, stage 2, the arm of tiles: projector and decoder, the tower frozen.

mres train configs/nativeres_llava/stage2_tiles.py

As `stage2.py` but for the policy and the stage 1 that it goes on from: a whole picture and
up to four tiles, each of at most 252 x 252 px.

The side makes the mean of visual tokens that of `stage2.py`: 370 a picture for 361. Both are
estimates from the usual sizes of the mixture's parts (COCO 640 x 480 and its like, GQA 500 x 375,
OCR-VQA 330 x 500, TextVQA 1024 x 768, Visual Genome 500 x 375 and 800 x 600), for the pictures were
not at hand. Measure yours, and set the side in both stages, as
`--policies='{"tiles:280,max=4": 1.0}'`:

    mres data prepare data/llava_v1_5_mix665k.json --images data/instruct --model DIR \
        -p native -p tiles:252,max=4 -p fixed:532

The paper's own tiles are larger, 2 x 2 of 364 px with the whole (`tiles:364,max=4`, about 518
tokens), beside native of at most 676 (`budget:676`): equal in the largest picture, not in the mean.
"""

import dataclasses
import pathlib

from mres_jax.config import Run, load_run


def get_config() -> Run:
    native = load_run(pathlib.Path(__file__).with_name("stage2.py"))
    directory = "runs/nativeres-llava-stage2-tiles"
    return dataclasses.replace(
        native,
        name="nativeres-llava-stage2-tiles",
        init="runs/nativeres-llava-stage1-tiles",
        policies={"tiles:252,max=4": 1.0},
        checkpoint=dataclasses.replace(native.checkpoint, dir=directory),
    )

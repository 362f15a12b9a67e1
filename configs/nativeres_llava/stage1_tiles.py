"""NativeRes-LLaVA, stage 1, the arm of tiles: the projector alone learns captions.

mres train configs/nativeres_llava/stage1_tiles.py

As `stage1.py` but for the policy: a whole picture and up to four tiles, each of at most
252 x 252 px, that is 81 visual tokens. How the side was chosen: `stage2_tiles.py`.
"""

import dataclasses
import pathlib

from mres_jax.config import Run, load_run


def get_config() -> Run:
    native = load_run(pathlib.Path(__file__).with_name("stage1.py"))
    directory = "runs/nativeres-llava-stage1-tiles"
    return dataclasses.replace(
        native,
        name="nativeres-llava-stage1-tiles",
        policies={"tiles:252,max=4": 1.0},
        checkpoint=dataclasses.replace(native.checkpoint, dir=directory),
    )

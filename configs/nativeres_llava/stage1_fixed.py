"""NativeRes-LLaVA, stage 1, the arm of one square: the projector alone learns captions.

mres train configs/nativeres_llava/stage1_fixed.py

As `stage1.py` but for the policy: every picture is resized to 532 x 532 px, that is 361
visual tokens. How the side was chosen: `stage2_fixed.py`.
"""

import dataclasses
import pathlib

from mres_jax.config import Run, load_run


def get_config() -> Run:
    native = load_run(pathlib.Path(__file__).with_name("stage1.py"))
    directory = "runs/nativeres-llava-stage1-fixed"
    return dataclasses.replace(
        native,
        name="nativeres-llava-stage1-fixed",
        policies={"fixed:532": 1.0},
        checkpoint=dataclasses.replace(native.checkpoint, dir=directory),
    )

"""NativeRes-LLaVA, stage 2, the arm of one square: projector and decoder, the tower frozen.

mres train configs/nativeres_llava/stage2_fixed.py

As `stage2.py` but for the policy and the stage 1 that it goes on from: every picture is
resized to 532 x 532 px.

Its 361 visual tokens are the mean of `stage2.py`, as `stage2_tiles.py` estimates it; measure yours
as it says there, and set the side in both stages, as `--policies='{"fixed:504": 1.0}'`: the visual
tokens of `fixed:S` are (S / 28)^2. The paper's "378 x 378" is a budget of 182 tokens at the
picture's own ratio, `fixed,tokens=182`, of about half the mean of native.
"""

import dataclasses
import pathlib

from mres_jax.config import Run, load_run


def get_config() -> Run:
    native = load_run(pathlib.Path(__file__).with_name("stage2.py"))
    directory = "runs/nativeres-llava-stage2-fixed"
    return dataclasses.replace(
        native,
        name="nativeres-llava-stage2-fixed",
        init="runs/nativeres-llava-stage1-fixed",
        policies={"fixed:532": 1.0},
        checkpoint=dataclasses.replace(native.checkpoint, dir=directory),
    )

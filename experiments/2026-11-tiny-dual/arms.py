"""The four models that are compared, and what each is trained with.

All see a picture in at most 256 visual tokens. Heights of text that are asked about are scaled by
what a model sees of the square of 256 px, so that all are asked the same.
"""

import dataclasses
import pathlib
from typing import Literal

from mres_jax.config import Documents, Run, load_run
from mres_jax.models.llava.config import LlavaConfig
from mres_jax.models.llava_hr.config import LlavaHRConfig
from mres_jax.models.nativeres_llava.presets import mres_tiny

DUAL = pathlib.Path(__file__).parents[2] / "configs/tiny/dual.py"
SIDE = 256  # of the square that the largest view is, pixels
Name = Literal["single", "dual", "tiles", "merged"]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One of the four.

    Attributes:
      policy: how it is shown pictures.
      side: of the square of them that it sees, pixels.
      is_taught: by `teach.py`; the others begin with mres-tiny.
    """

    policy: str
    side: int
    is_taught: bool


ARMS: dict[Name, Arm] = {
    "single": Arm("fixed:128,mode=pad", 128, True),  # the ViT alone
    "dual": Arm("fixed:256,mode=pad", 256, True),  # the same, told by a ConvNeXt
    "tiles": Arm("tiles:112,max=4", 224, False),  # four squares and a small whole of mres-tiny
    "merged": Arm("fixed:256,mode=pad", 256, False),  # mres-tiny: 2 x 2 patches are one token
}


def base_run(name: Name) -> Run:
    """The run of an arm; where it begins and where it is saved are the caller's."""
    run, arm = load_run(DUAL), ARMS[name]
    assert isinstance(run, Run)
    (data,), (rung,) = run.data, run.ladder
    assert isinstance(data, Documents)
    assert isinstance(run.model, LlavaHRConfig)
    changes = {}
    if name == "single":
        changes["model"] = without_convnext(run.model)
    elif not arm.is_taught:
        changes["model"] = mres_tiny()
        rung = dataclasses.replace(rung, max_patches=4 * rung.max_patches, max_views=40)
    if name != "dual":
        rung = dataclasses.replace(rung, canvases=())
    height = data.min_text_height * arm.side / SIDE
    return dataclasses.replace(
        run,
        **changes,
        data=(dataclasses.replace(data, min_text_height=height),),
        policies={arm.policy: 1.0},
        ladder=(rung,),
    )


def without_convnext(config: LlavaHRConfig) -> LlavaConfig:
    """The same ViT, projector and decoder, as LLaVA-1.5 joins them."""
    return LlavaConfig(
        vision_config=config.vision_config.low,
        text_config=config.text_config,
        image_token_index=config.image_token_index,
        input_image_size=config.vision_config.low.image_size,
    )

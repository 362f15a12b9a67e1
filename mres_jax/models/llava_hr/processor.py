"""What the host side must know of a LLaVA-HR: the canvases of the large picture."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.spec import CanvasRule, ProcessorSpec
from mres_jax.geometry import Size
from mres_jax.models.llava.processor import (
    check_squares,
    clip_spec,
    preprocessor_to_hf as preprocessor_to_hf,
    square_policy,
)
from mres_jax.models.llava_hr.config import LlavaHRConfig

# Canvases: as shares of the square's side, with ratios of their sides.
CANVASES = {1.0: (1.0, 4 / 3, 16 / 9, 5 / 2), 0.75: (1.0, 16 / 9), 0.5: (1.0, 16 / 9)}
SMALLEST = 2  # patches per side of the smallest picture that the model is meant for


def make_spec(
    config: LlavaHRConfig,
    token_id: Callable[[str], int],
    *,
    preprocessor: Mapping[str, Any] | None = None,
) -> ProcessorSpec:
    """Returns the processor's description; `preprocessor` says no more than the configuration.

    Raises:
      CheckpointError: a processor that makes other pixels than we do.
    """
    check_squares(preprocessor or {}, side=None)  # released files hold the sizes of CLIP's own
    vision = config.vision_config
    side, stride = vision.input_image_size, vision.high.stride
    rule = CanvasRule(stride=stride, patches=vision.patches_per_cell, shapes=(Size(side, side),))
    spec = clip_spec(
        vision.low, token_id, image_token_id=config.image_token_index, text=config.text_config
    )
    if config.image_aspect_ratio == "native":
        return dataclasses.replace(
            spec,
            min_pixels=min(SMALLEST * stride, side) ** 2,
            max_pixels=side**2,
            canvas=dataclasses.replace(rule, shapes=native_canvases(side, stride)),
        )
    return dataclasses.replace(
        spec,
        min_pixels=side**2,
        max_pixels=side**2,
        image_size=side,
        accepts=frozenset({"image"}),
        default_policy=square_policy(side, config.image_aspect_ratio),
        canvas=rule,
    )


def native_canvases(side: int, stride: int) -> tuple[Size, ...]:
    """Returns shapes of canvases for pictures of any ratio, none larger than a square of `side` px.

    What is longer than the longest of them is seen smaller.

    Example:
      >>> [tuple(shape) for shape in native_canvases(256, 32)][:3]
      [(256, 256), (224, 288), (288, 224)]
    """
    shapes = []
    for share, ratios in CANVASES.items():
        cells = int(share * side) // stride
        for ratio in ratios if cells else ():
            short = max(1, round(cells / ratio**0.5))
            long = max(short, cells**2 // short)
            shapes += [(short, long), (long, short)]
    return tuple(Size(h * stride, w * stride) for h, w in dict.fromkeys(shapes))

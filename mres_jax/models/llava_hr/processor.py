"""What the host side must know of a LLaVA-HR: the canvas of the large picture."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.spec import CanvasRule, ProcessorSpec
from mres_jax.geometry import Size
from mres_jax.models.llava.processor import (
    clip_spec,
    preprocessor_to_hf as preprocessor_to_hf,
    square_policy,
)
from mres_jax.models.llava_hr.config import LlavaHRConfig


def make_spec(
    config: LlavaHRConfig,
    token_id: Callable[[str], int],
    *,
    preprocessor: Mapping[str, Any] | None = None,
) -> ProcessorSpec:
    """Returns the processor's description; `preprocessor` says no more than the configuration."""
    del preprocessor
    vision = config.vision_config
    side = vision.input_image_size
    rows = config.text_config.vocab_size
    return dataclasses.replace(
        clip_spec(vision.low, token_id, image_token_id=config.image_token_index, rows=rows),
        min_pixels=side**2,
        max_pixels=side**2,
        image_size=side,
        accepts=frozenset({"image"}),
        default_policy=square_policy(side, config.image_aspect_ratio),
        canvas=CanvasRule(
            stride=vision.high.stride,
            min_patches=vision.low.table_side,
            shapes=(Size(side, side),),
        ),
    )

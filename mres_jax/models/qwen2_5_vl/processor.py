"""What the host side must know of a Qwen2.5-VL: a Qwen2-VL with windows, pixels and seconds."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.spec import ProcessorSpec, VideoSpec
from mres_jax.models.qwen2_5_vl.config import Qwen2_5VLConfig
from mres_jax.models.qwen2_vl import processor as qwen2_vl


def make_spec(
    config: Qwen2_5VLConfig,
    token_id: Callable[[str], int],
    *,
    preprocessor: Mapping[str, Any] | None = None,
) -> ProcessorSpec:
    """Returns the processor's description; see `qwen2_vl.processor.make_spec`.

    Boxes and points are pixels of the resized picture, and the views of a clip stand as far apart
    as their seconds (Bai et al., 2025, arXiv:2502.13923).
    """
    vision = config.vision_config

    def make_video(settings: Mapping[str, Any], **known: Any) -> VideoSpec:
        video = qwen2_vl.video_spec(settings, **known)
        return dataclasses.replace(video, tokens_per_second=float(vision.tokens_per_second))

    spec = qwen2_vl.make_spec(
        config,
        token_id,
        preprocessor=preprocessor,
        make_video=make_video,
        position_rule="mrope_seconds",
    )
    return dataclasses.replace(spec, window_side=vision.window_side, coord_frame="resized_px")

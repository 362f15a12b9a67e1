"""What the host side must know of a Qwen2.5-VL: that of a Qwen2-VL, windows, pixel coordinates."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.spec import ProcessorSpec
from mres_jax.models.qwen2_5_vl.config import Qwen2_5VLConfig
from mres_jax.models.qwen2_vl import processor as qwen2_vl


def make_spec(
    config: Qwen2_5VLConfig,
    token_id: Callable[[str], int],
    *,
    preprocessor: Mapping[str, Any] | None = None,
) -> ProcessorSpec:
    """Returns the processor's description; see `qwen2_vl.processor.make_spec`.

    Boxes and points are pixels of the resized picture (Bai et al., 2025, arXiv:2502.13923).
    """
    spec = qwen2_vl.make_spec(config, token_id, preprocessor=preprocessor)
    side = config.vision_config.window_side
    return dataclasses.replace(spec, window_side=side, coord_frame="resized_px")

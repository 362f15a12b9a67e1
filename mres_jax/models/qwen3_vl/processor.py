"""What the host side must know of a Qwen3-VL: no system prompt, larger visual tokens, a table."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.spec import PositionTable, ProcessorSpec
from mres_jax.models.qwen2_vl import processor as qwen2_vl
from mres_jax.models.qwen3_vl.config import Qwen3VLConfig

# Pixel limits of the released preprocessor_config.json.
MIN_PIXELS, MAX_PIXELS = 256 * 256, 4_096 * 4_096

TEMPLATE = dataclasses.replace(qwen2_vl.TEMPLATE, system=None)


def make_spec(
    config: Qwen3VLConfig,
    token_id: Callable[[str], int],
    *,
    preprocessor: Mapping[str, Any] | None = None,
) -> ProcessorSpec:
    """Returns the processor's description; see `qwen2_vl.processor.make_spec`."""
    limits = MIN_PIXELS, MAX_PIXELS
    spec = qwen2_vl.make_spec(config, token_id, preprocessor=preprocessor, limits=limits)
    positions = PositionTable(side=config.vision_config.position_side, resize="linear_corners")
    return dataclasses.replace(spec, template=TEMPLATE, positions=positions)

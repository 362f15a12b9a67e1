"""What the host side must know of a Qwen3-VL: larger visual tokens, a table, times as text."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.spec import PositionTable, ProcessorSpec, VideoSpec
from mres_jax.models.hf_fields import Fields
from mres_jax.models.qwen2_vl import processor as qwen2_vl
from mres_jax.models.qwen3_vl.config import Qwen3VLConfig

# Pixel limits of the released preprocessor_config.json.
MIN_PIXELS, MAX_PIXELS = 256 * 256, 4_096 * 4_096
# Of all frames of a clip together, in the released video_preprocessor_config.json.
MIN_CLIP_PIXELS, MAX_CLIP_PIXELS = 64 * 64, 32 * 32 * 768 * 32
MAX_FRAME_TOKENS = 768  # where a file caps frames
_MOST = 2**40  # visual tokens that a file may ask for

# Each view of a clip behind the text of its time, as the models were trained and are served.
TEMPLATE = dataclasses.replace(
    qwen2_vl.TEMPLATE,
    system=None,
    clip_open="",
    clip_close="",
    frame_open="<{seconds:.1f} seconds><|vision_start|>",
    frame_close="<|vision_end|>",
)
# transformers 5.x leaves the chat template's own marks around all of it, 4.57 took them away.
TEMPLATE_V5 = dataclasses.replace(
    TEMPLATE, clip_open="<|vision_start|>", clip_close="<|vision_end|>"
)


def make_spec(
    config: Qwen3VLConfig,
    token_id: Callable[[str], int],
    *,
    preprocessor: Mapping[str, Any] | None = None,
) -> ProcessorSpec:
    """Returns the processor's description; see `qwen2_vl.processor.make_spec`.

    Reference:
      Bai et al., 2025, "Qwen3-VL Technical Report", arXiv:2511.21631; `Qwen3VLProcessor` of
      `transformers` 4.57 (`TEMPLATE`) and 5.23 (`TEMPLATE_V5`).
    """
    spec = qwen2_vl.make_spec(
        config,
        token_id,
        preprocessor=preprocessor,
        limits=(MIN_PIXELS, MAX_PIXELS),
        make_video=video_spec,
        position_rule="mrope_blocks",
    )
    positions = PositionTable(side=config.vision_config.position_side, resize="linear_corners")
    return dataclasses.replace(spec, template=TEMPLATE, positions=positions)


def video_spec(settings: Mapping[str, Any], *, token_id: int, stride: int, group: int) -> VideoSpec:
    """Returns how clips are taken: from the first frame to the last, with limits of all of them.

    Arguments and errors are those of `qwen2_vl.processor.video_spec`. `group` does not matter: any
    number of frames is taken, and an odd last one is seen twice.
    """
    fields = Fields(settings, qwen2_vl.VIDEO_FILE)
    smallest, largest = qwen2_vl.pixel_limits(
        settings, MIN_CLIP_PIXELS, MAX_CLIP_PIXELS, fields.where
    )
    qwen2_vl.check_frames(settings)
    is_capped = fields.get("cap_pixels_per_frame", False, (bool, type(None))) is True
    tokens = fields.size("max_video_tokens", MAX_FRAME_TOKENS, most=_MOST)
    return VideoSpec(
        token_id=token_id,
        min_pixels=smallest,
        max_pixels=largest,
        limits="clip",
        frame_pixels=tokens * stride**2 if is_capped else None,
        multiple=1,
        spread="ends",
        **qwen2_vl.frame_rates(fields),
    )

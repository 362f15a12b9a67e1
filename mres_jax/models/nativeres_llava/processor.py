"""What the host side must know of a NativeRes-LLaVA: bare visual tokens, plain positions."""

from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.spec import ChatTemplate, ProcessorSpec
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.qwen2_vl.processor import PLACEHOLDERS, pixel_limits, resize_rule

# The released code splits `<image>\n` out of the turn: features, then a newline, then the text.
TEMPLATE = ChatTemplate(
    system="You are a helpful assistant.",
    turn_open="<|im_start|>{role}\n",
    turn_close="<|im_end|>\n",
    image_open="",
    image_close="",
    after_images="\n",
)


def make_spec(
    config: NativeResLlavaConfig,
    token_id: Callable[[str], int],
    *,
    preprocessor: Mapping[str, Any] | None = None,
) -> ProcessorSpec:
    """Returns the processor's description; limits are the config's, in visual tokens.

    Args:
      config: the model.
      token_id: id of a control token by name.
      preprocessor: contents of `preprocessor_config.json`; its pixel limits win where it has them.
    """
    vision = config.vision_config
    token_area = vision.stride**2
    smallest, largest = pixel_limits(
        preprocessor or {},
        config.min_image_tokens * token_area,
        config.max_image_tokens * token_area,
    )
    return ProcessorSpec(
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        mean=vision.image_mean,
        std=vision.image_std,
        min_pixels=smallest,
        max_pixels=largest,
        image_token_id=config.image_token_id,
        pad_token_id=token_id("<|endoftext|>"),
        eos_token_ids=(token_id("<|im_end|>"), token_id("<|endoftext|>")),
        reserved_token_ids=tuple(token_id(name) for name in PLACEHOLDERS),
        template=TEMPLATE,
        position_rule="plain",
        coord_frame="relative_1000",
        # weights from elsewhere were trained behind Hugging Face's processor
        resize_rule=resize_rule(preprocessor or {}, "hf" if preprocessor else "fit"),
    )

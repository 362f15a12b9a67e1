"""What the host side must know of a NativeRes-LLaVA: bare visual tokens, plain positions."""

from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.spec import ChatTemplate, ProcessorSpec
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.qwen2_vl.processor import (
    pixel_limits,
    placeholder_ids,
    resize_rule,
)

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
      preprocessor: contents of `preprocessor_config.json`, whose pixel limits win where it has
        them; None for a model that was made here.
    """
    vision = config.vision_config
    token_area = vision.stride**2
    smallest, largest = pixel_limits(
        preprocessor or {},
        config.min_image_tokens * token_area,
        config.max_image_tokens * token_area,
    )
    pad = token_id("<|endoftext|>")
    # The released id, -200 or past the last row, has no embedding; `slots` say where pictures are.
    has_row = 0 <= config.image_token_id < config.text_config.vocab_size
    return ProcessorSpec(
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        mean=vision.image_mean,
        std=vision.image_std,
        min_pixels=smallest,
        max_pixels=largest,
        image_token_id=config.image_token_id if has_row else pad,
        pad_token_id=pad,
        eos_token_ids=(token_id("<|im_end|>"), pad),
        reserved_token_ids=placeholder_ids(token_id, (config.image_token_id,) if has_row else ()),
        template=TEMPLATE,
        position_rule="plain",
        coord_frame="relative_1000",
        # weights from elsewhere were trained behind Hugging Face's processor
        resize_rule=resize_rule(preprocessor or {}, "fit" if preprocessor is None else "hf"),
    )

"""What the host side must know of a NativeRes-LLaVA: bare visual tokens, plain positions."""

from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.spec import ChatTemplate, PositionTable, ProcessorSpec
from mres_jax.errors import CheckpointError
from mres_jax.models.hf_fields import Fields
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.pixel_fields import UNUSED, check_pixels
from mres_jax.models.qwen2_vl.config import VisionConfig
from mres_jax.models.qwen2_vl.processor import (
    FILE,
    check_pictures,
    pixel_limits,
    placeholder_ids,
    resize_rule,
)
from mres_jax.models.siglip.config import NaflexConfig

_NAFLEX_READ = ("max_num_patches", "resize_rule", *UNUSED)
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

    Raises:
      CheckpointError: limits that cannot be, or a processor that makes other pixels than we do.
    """
    vision = config.vision_config
    if isinstance(vision, NaflexConfig):
        preprocessor = _naflex_settings(vision, preprocessor)
    else:
        check_pictures(
            preprocessor or {},
            patch_size=vision.patch_size,
            temporal_patch_size=vision.temporal_patch_size,
            merge_size=vision.spatial_merge_size,
        )
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
        **_parts_of(vision),
    )


def preprocessor_to_hf(spec: ProcessorSpec) -> dict[str, Any] | None:
    """Contents of a `preprocessor_config.json` of SigLIP2-NaFlex; None for Qwen2-VL's tower."""
    if spec.resample != "bilinear":
        return None
    return {
        "image_processor_type": "Siglip2ImageProcessor",
        "processor_class": "Siglip2Processor",
        "do_resize": True,
        "patch_size": spec.patch_size,
        "max_num_patches": spec.max_pixels // spec.patch_size**2,
        "resample": 2,  # bilinear
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "resize_rule": spec.resize_rule,
    }


def _parts_of(vision: VisionConfig | NaflexConfig) -> dict[str, Any]:
    """What a NaFlex tower, or one with a table of positions, asks of the host besides."""
    if isinstance(vision, NaflexConfig):
        table = PositionTable(side=vision.table_side, resize="linear_antialias")
        return {"resample": "bilinear", "positions": table}
    side = vision.position_side
    return {"positions": PositionTable(side=side, resize="linear_corners")} if side else {}


def _naflex_settings(
    vision: NaflexConfig, preprocessor: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The settings of SigLIP2's processor, as those of Qwen2-VL's: its budget is in patches."""
    if preprocessor is None:
        return None
    same = {"patch_size": vision.patch_size}
    check_pixels(preprocessor, FILE, resample="bilinear", same=same, known=_NAFLEX_READ)
    fields = Fields(preprocessor, FILE)
    rule = fields.get("resize_rule", "naflex", str)
    most = fields.size("max_num_patches", 256) * vision.patch_size**2
    if most < vision.stride**2:
        raise CheckpointError(
            f"{fields.where}: max_num_patches={most // vision.patch_size**2} is less than one "
            f"visual token of {vision.spatial_merge_size**2} patches."
        )
    smallest = {"min_pixels": vision.stride**2} if rule == "naflex" else {}
    return {**smallest, "max_pixels": most, "resize_rule": rule}

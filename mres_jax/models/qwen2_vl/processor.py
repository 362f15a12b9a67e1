"""What the host side must know of a Qwen2-VL: pixels, template, positions."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

from mres_jax.data.spec import ChatTemplate, ProcessorSpec
from mres_jax.errors import CheckpointError
from mres_jax.models.hf_fields import Fields
from mres_jax.models.qwen2_vl.config import QwenVLConfig

# Pixel limits of the released preprocessor_config.json.
MIN_PIXELS, MAX_PIXELS = 56 * 56, 28 * 28 * 16_384
_MOST = 2**40  # pixels that a file may ask for

TEMPLATE = ChatTemplate(
    system="You are a helpful assistant.",
    turn_open="<|im_start|>{role}\n",
    turn_close="<|im_end|>\n",
    image_open="<|vision_start|>",
    image_close="<|vision_end|>",
)

PLACEHOLDERS = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def make_spec(
    config: QwenVLConfig,
    token_id: Callable[[str], int],
    *,
    preprocessor: Mapping[str, Any] | None = None,
    limits: tuple[int, int] = (MIN_PIXELS, MAX_PIXELS),
) -> ProcessorSpec:
    """Returns the processor's description.

    Args:
      config: the model.
      token_id: id of a control token by name.
      preprocessor: contents of `preprocessor_config.json`; its pixel limits win over the released
        ones, in either of the two spellings Hugging Face uses.
      limits: smallest and largest view of the released models, pixels.
    """
    vision = config.vision_config
    smallest, largest = pixel_limits(preprocessor or {}, *limits)
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
        reserved_token_ids=placeholder_ids(token_id, (config.image_token_id,)),
        template=TEMPLATE,
        position_rule="mrope" if config.text_config.mrope_section else "plain",
        coord_frame="relative_1000",
        resize_rule=resize_rule(preprocessor or {}, "hf"),
    )


def placeholder_ids(token_id: Callable[[str], int], others: Sequence[int]) -> tuple[int, ...]:
    """Ids of the placeholders that the vocabulary has, then those of `others` not among them."""
    ids = []
    for name in PLACEHOLDERS:
        with contextlib.suppress(CheckpointError):  # plain Qwen2 vocabularies have none
            ids.append(token_id(name))
    return tuple(dict.fromkeys([*ids, *others]))


def pixel_limits(preprocessor: Mapping[str, Any], smallest: int, largest: int) -> tuple[int, int]:
    """Smallest and largest view, pixels: `min_pixels`/`max_pixels`, or `size` with its edges.

    Raises:
      CheckpointError: a limit that is no count of pixels, or a smallest view above the largest.
    """
    fields = Fields(preprocessor, "preprocessor_config.json")
    edges = fields.child("size")
    least = fields.size("min_pixels", edges.size("shortest_edge", smallest, most=_MOST), most=_MOST)
    most = fields.size("max_pixels", edges.size("longest_edge", largest, most=_MOST), most=_MOST)
    if least > most:
        raise CheckpointError(f"{fields.where}: min_pixels is {least}, above max_pixels {most}.")
    return least, most


def resize_rule(preprocessor: Mapping[str, Any], default: Literal["fit", "hf"]):
    """The rule for native sizes that the model was trained with; see `ProcessorSpec`."""
    rule = preprocessor.get("resize_rule", default)
    if rule not in ("fit", "hf"):
        raise CheckpointError(f"preprocessor_config.json: resize_rule is {rule!r}; have fit, hf.")
    return cast(Literal["fit", "hf"], rule)

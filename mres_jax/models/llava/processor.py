"""What the host side must know of a LLaVA-1.5: one square, or any size with resized positions."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.spec import PositionTable, ProcessorSpec
from mres_jax.models.clip.config import ClipConfig
from mres_jax.models.llama.config import LlamaConfig
from mres_jax.models.llava.config import ASPECTS, LlavaConfig
from mres_jax.models.llava.templates import template_for
from mres_jax.models.pixel_fields import UNUSED, check_pixels

# What `config.json` says, or what is the same for every square.
_KNOWN = ("aspect_ratio_setting", "image_grid_pinpoints", *UNUSED)
LARGEST = 4  # sides of the table that a view may have where the model takes any size


def make_spec(
    config: LlavaConfig,
    token_id: Callable[[str], int],
    *,
    preprocessor: Mapping[str, Any] | None = None,
) -> ProcessorSpec:
    """Returns the processor's description; `preprocessor` says no more than the configuration.

    Raises:
      CheckpointError: a processor that makes other pixels than we do.
    """
    vision, side = config.vision_config, config.input_image_size
    check_squares(preprocessor or {}, side=side)
    spec = clip_spec(
        vision,
        token_id,
        image_token_id=config.image_token_index,
        text=config.text_config,
    )
    if side is None:
        largest = (LARGEST * vision.image_size) ** 2
        return dataclasses.replace(spec, min_pixels=spec.stride**2, max_pixels=largest)
    return dataclasses.replace(
        spec,
        min_pixels=side**2,
        max_pixels=side**2,
        image_size=side,
        accepts=frozenset({"image"}),
        default_policy=square_policy(side, config.image_aspect_ratio),
    )


def check_squares(
    settings: Mapping[str, Any], *, side: int | None, same: Mapping[str, Any] | None = None
) -> None:
    """Raises `CheckpointError` if a processor makes other pixels of a square than we do.

    Args:
      settings: contents of its file.
      side: of the square, pixels; None where the file does not say it.
      same: fields that have to agree with the model's configuration.
    """
    where = "preprocessor_config.json"
    check_pixels(settings, where, resample="bicubic", side=side, same=same, known=_KNOWN)


def square_policy(side: int, image_aspect_ratio: str) -> str:
    """The policy that shows pictures as a released model was trained to see them."""
    return f"fixed:{side},mode={ASPECTS[image_aspect_ratio]}"


def clip_spec(
    vision: ClipConfig, token_id: Callable[[str], int], *, image_token_id: int, text: LlamaConfig
) -> ProcessorSpec:
    """Returns what all models with a CLIP tower have in common; sizes are of the tower's table.

    Args:
      vision: the tower.
      token_id: id of a control token by name.
      image_token_id: of the model.
      text: the decoder.
    """
    template, end, pad = template_for(token_id, text.model_type)
    # Released files without a token for pictures write an id that has no embedding.
    has_row = 0 <= image_token_id < text.vocab_size
    red, green, blue = vision.image_mean
    return ProcessorSpec(
        patch_size=vision.patch_size,
        merge_size=1,
        temporal_patch_size=1,
        mean=vision.image_mean,
        std=vision.image_std,
        min_pixels=vision.image_size**2,
        max_pixels=vision.image_size**2,
        image_token_id=image_token_id if has_row else pad,
        pad_token_id=pad,
        eos_token_ids=(end,),
        reserved_token_ids=(image_token_id,) if has_row else (),
        template=template,
        position_rule="plain",
        coord_frame="relative_1000",
        background=(int(255 * red), int(255 * green), int(255 * blue)),
        pad_first=True,
        positions=PositionTable(side=vision.table_side, resize=vision.position_resize),
    )


def preprocessor_to_hf(spec: ProcessorSpec) -> dict[str, Any]:
    """Contents of a `preprocessor_config.json` with which `transformers` makes the same squares."""
    side = spec.image_size or spec.patch_size * (spec.positions.side if spec.positions else 1)
    return {
        "image_processor_type": "LlavaImageProcessor",
        "processor_class": "LlavaProcessor",
        "do_pad": spec.default_policy.endswith("mode=pad"),
        "do_resize": True,
        "size": {"shortest_edge": side},
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "resample": 3,  # bicubic
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }

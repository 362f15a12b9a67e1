"""LLaVA-NeXT to and from files; see `mres_jax.models.llava.convert`."""

from collections.abc import Mapping
from typing import Any

from mres_jax.errors import CheckpointError
from mres_jax.models.hf_fields import Fields, as_checkpoint_error
from mres_jax.models.key_table import Key, KeyTable
from mres_jax.models.llava.convert import (
    check_export as check_export,
    llava_parts,
    llava_parts_to_hf,
    llava_table,
)
from mres_jax.models.llava_next.config import PINPOINTS, LlavaNextConfig

MODEL_TYPE, ARCHITECTURE = "llava_next", "LlavaNextForConditionalGeneration"
PROCESSOR = "LlavaNextProcessor"


def key_table(config: LlavaNextConfig) -> KeyTable:
    """Keys of a LLaVA-NeXT."""
    newline = Key(hf="image_newline", ours="image_newline")
    return llava_table(config.vision_config, newline)


def config_from_hf(
    content: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> LlavaNextConfig:
    """Returns the configuration in a `config.json`."""
    fields = Fields(content, "config.json")
    fields.expect("model_type", (MODEL_TYPE,))
    fields.ignore(("use_image_newline_parameter",))
    parts = llava_parts(fields, preprocessor or {})
    pinpoints = fields.get("image_grid_pinpoints", [list(pair) for pair in PINPOINTS], list)
    try:
        config = LlavaNextConfig(
            **parts,
            input_image_size=parts["vision_config"].image_size,
            image_grid_pinpoints=tuple(_pair(pair) for pair in pinpoints),
        )
    except ValueError as error:
        raise as_checkpoint_error(error) from error
    fields.close()
    return config


def config_to_hf(config: LlavaNextConfig) -> dict[str, Any]:
    """Returns a `config.json` of Hugging Face's class."""
    return {
        **llava_parts_to_hf(config, ARCHITECTURE, MODEL_TYPE),
        "image_grid_pinpoints": [list(pair) for pair in config.image_grid_pinpoints],
    }


def _pair(pair: Any) -> tuple[int, int]:
    if not isinstance(pair, list) or len(pair) != 2 or not all(type(n) is int for n in pair):
        raise CheckpointError(
            f"config.json: image_grid_pinpoints has {pair!r}, not a height and a width."
        )
    return pair[0], pair[1]

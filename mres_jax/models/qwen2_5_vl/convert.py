"""Qwen2.5-VL to and from Hugging Face: configuration fields and file keys.

Keys are written as hub files have them (`visual.*`, `model.*`), and read as for Qwen2-VL.
"""

from collections.abc import Mapping
from typing import Any

from mres_jax.models.hf_fields import Fields
from mres_jax.models.key_table import KeyTable
from mres_jax.models.qwen2.convert import (
    IGNORED,
    KEYS as TEXT_KEYS,
    TIED,
    text_config_from_hf,
    text_config_to_hf,
)
from mres_jax.models.qwen2_5_vl.config import Qwen2_5VLConfig, VisionConfig
from mres_jax.models.qwen2_vl.convert import (
    MERGER,
    MODULES,
    RENAMES,
    TOKEN_IDS,
    assembled_from_hf,
    refuse_export,
)
from mres_jax.models.tower_convert import (
    shared_tower_fields,
    shared_tower_fields_to_hf,
    tower_keys,
)

MODEL_TYPE, ARCHITECTURE = "qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration"
PROCESSOR = "Qwen2_5_VLProcessor"
MLP = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"}
SIZES = ("hidden_size", "intermediate_size", "out_hidden_size")
# What transformers takes where a file leaves it open.
OPEN = {"window_size": 112, "tokens_per_second": 4, "fullatt_block_indexes": [7, 15, 23, 31]}


def key_table(config: Qwen2_5VLConfig) -> KeyTable:
    """Keys of a Qwen2.5-VL."""
    vision = tower_keys(
        config.vision_config, "visual.", mlp=MLP, mergers={"merger": "merger"}, merger=MERGER
    )
    return KeyTable(
        keys=(*vision, *TEXT_KEYS), renames=RENAMES, modules=MODULES, ignored=IGNORED, tied=TIED
    )


def config_from_hf(
    content: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> Qwen2_5VLConfig:
    """Returns the configuration in a `config.json`; see `qwen2_vl.convert.config_from_hf`."""
    return assembled_from_hf(
        content,
        preprocessor,
        MODEL_TYPE,
        Qwen2_5VLConfig,
        vision_config_from_hf,
        text_config_from_hf,
    )


def config_to_hf(config: Qwen2_5VLConfig) -> dict[str, Any]:
    """Returns a `config.json` in the flat layout of the hub's files; nothing of ours is lost."""
    vision = config.vision_config
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        **text_config_to_hf(config.text_config),
        **{name: getattr(config, name) for name in TOKEN_IDS},
        "vision_config": {
            "model_type": MODEL_TYPE,
            **shared_tower_fields_to_hf(vision, (*SIZES, *OPEN)),
            "hidden_act": "silu",
            "spatial_patch_size": vision.patch_size,
            "in_chans": vision.in_channels,
        },
    }


def check_export(config: Qwen2_5VLConfig) -> None:
    """Raises `CheckpointError` for a variant that transformers cannot be."""
    refuse_export(config, ARCHITECTURE, [])


def vision_config_from_hf(fields: Fields, preprocessor: Mapping[str, Any]) -> VisionConfig:
    """Reads the tower's fields; mean and std of the pixels come from the preprocessor if there."""
    fields.expect("model_type", (MODEL_TYPE, "qwen2_5_vl_vision"))
    fields.expect("hidden_act", ("silu",))
    return VisionConfig(
        **shared_tower_fields(fields, preprocessor, VisionConfig, SIZES),
        window_size=fields.size("window_size", OPEN["window_size"]),
        tokens_per_second=fields.size("tokens_per_second", OPEN["tokens_per_second"]),
        fullatt_block_indexes=layer_indices(
            fields, "fullatt_block_indexes", OPEN["fullatt_block_indexes"]
        ),
    )


def layer_indices(fields: Fields, name: str, default: list[int]) -> tuple[int, ...]:
    """A list of layers; notes one that is none."""
    value = fields.get(name, default, list)
    if all(type(index) is int for index in value):
        return tuple(value)
    fields.problems.append(f"{name} is {value!r}, not a list of layers")
    return ()

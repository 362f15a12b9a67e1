"""Qwen3-VL (dense) to and from Hugging Face: configuration fields and file keys.

Keys are written as hub files have them: `model.visual.*`, `model.language_model.*`.
"""

from collections.abc import Mapping
from typing import Any

from mres_jax.models.hf_fields import Fields
from mres_jax.models.key_table import KeyTable
from mres_jax.models.qwen2.convert import IGNORED, text_keys
from mres_jax.models.qwen2_5_vl.convert import layer_indices
from mres_jax.models.qwen2_vl.convert import TOKEN_IDS, assembled_from_hf, refuse_export
from mres_jax.models.qwen3.convert import text_config_from_hf, text_config_to_hf
from mres_jax.models.qwen3_vl.config import Qwen3VLConfig, VisionConfig
from mres_jax.models.tower_convert import (
    ACTIVATIONS,
    shared_tower_fields,
    shared_tower_fields_to_hf,
    tower_keys,
)

MODEL_TYPE, ARCHITECTURE = "qwen3_vl", "Qwen3VLForConditionalGeneration"
PROCESSOR = "Qwen3VLProcessor"
TEXT = "model.language_model."
MLP = {"linear_fc1": "fc1", "linear_fc2": "fc2"}
MERGERS = {"merger": "merger", "deepstack_merger_list.{i}": "deepstack"}
MERGER = {"norm": "norm", "linear_fc1": "up", "linear_fc2": "down"}
SIZES = ("hidden_size", "intermediate_size", "out_hidden_size")
OWN = ("hidden_act", "num_position_embeddings", "deepstack_visual_indexes")
DEEPSTACK = [8, 16, 24]  # what transformers takes where a file leaves it open


def key_table(config: Qwen3VLConfig) -> KeyTable:
    """Keys of a Qwen3-VL."""
    vision = tower_keys(
        config.vision_config, "model.visual.", mlp=MLP, mergers=MERGERS, merger=MERGER
    )
    return KeyTable(
        keys=(*vision, *text_keys(TEXT)),
        ignored=IGNORED,
        tied={"lm_head.weight": f"{TEXT}embed_tokens.weight"},
    )


def config_from_hf(
    content: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> Qwen3VLConfig:
    """Returns the configuration in a `config.json`; see `qwen2_vl.convert.config_from_hf`."""
    return assembled_from_hf(
        content, preprocessor, MODEL_TYPE, Qwen3VLConfig, vision_config_from_hf, text_config_from_hf
    )


def config_to_hf(config: Qwen3VLConfig) -> dict[str, Any]:
    """Returns a `config.json` in the layout of the hub's files; nothing of ours is lost."""
    vision = shared_tower_fields_to_hf(config.vision_config, (*SIZES, *OWN))
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        **{name: getattr(config, name) for name in TOKEN_IDS},
        "tie_word_embeddings": config.text_config.tie_word_embeddings,
        "text_config": {"model_type": "qwen3_vl_text", **text_config_to_hf(config.text_config)},
        "vision_config": {"model_type": MODEL_TYPE, **vision},
    }


def check_export(config: Qwen3VLConfig) -> None:
    """Raises `CheckpointError` for a variant that transformers cannot be."""
    refuse_export(config, ARCHITECTURE, [])


def vision_config_from_hf(fields: Fields, preprocessor: Mapping[str, Any]) -> VisionConfig:
    """Reads the tower's fields; mean and std of the pixels come from the preprocessor if there."""
    fields.expect("model_type", (MODEL_TYPE, "qwen3_vl_vision"))
    fields.expect("hidden_act", ACTIVATIONS)
    return VisionConfig(
        **shared_tower_fields(fields, preprocessor, VisionConfig, SIZES),
        hidden_act=fields.get("hidden_act", VisionConfig.hidden_act, str),
        num_position_embeddings=fields.size("num_position_embeddings", 2_304),
        deepstack_visual_indexes=layer_indices(fields, "deepstack_visual_indexes", DEEPSTACK),
    )

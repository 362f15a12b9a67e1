"""Qwen2-VL to and from Hugging Face: configuration fields and file keys.

Keys are written as hub files have them (`visual.*`, `model.*`); the names that transformers from
4.52 on uses in memory (`model.visual.*`, `model.language_model.*`) are read as well.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mres_jax.errors import CheckpointError
from mres_jax.models.hf_fields import Fields, as_checkpoint_error
from mres_jax.models.key_table import Key, KeyTable
from mres_jax.models.qwen2.convert import (
    IGNORED,
    KEYS as TEXT_KEYS,
    TIED,
    is_tied,
    nested_text_fields,
    text_config_from_hf,
    text_config_to_hf,
)
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig, QwenVLConfig, VisionConfig
from mres_jax.models.tower_config import TowerConfig
from mres_jax.models.tower_convert import (
    ACTIVATIONS,
    shared_tower_fields,
    shared_tower_fields_to_hf,
    tower_keys,
)

MODEL_TYPE, ARCHITECTURE = "qwen2_vl", "Qwen2VLForConditionalGeneration"
PROCESSOR = "Qwen2VLProcessor"
RENAMES = ((r"^model\.visual\.", "visual."), (r"^model\.language_model\.", "model."))
MODULES = ((r"^model\.", "model.language_model."), (r"^visual\.", "model.visual."))
TOKEN_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
MERGER = {"ln_q": "norm", "mlp.0": "up", "mlp.2": "down"}

Config = TypeVar("Config", bound=QwenVLConfig)


def key_table(config: Qwen2VLConfig) -> KeyTable:
    """Keys of a Qwen2-VL."""
    return KeyTable(
        keys=(*vision_keys(config.vision_config, "visual."), *TEXT_KEYS),
        renames=RENAMES,
        modules=MODULES,
        ignored=IGNORED,
        tied=TIED,
    )


def vision_keys(config: VisionConfig, prefix: str) -> list[Key]:
    """Keys of the tower and its merger under `prefix`."""
    mlp = {name: name for name in ("fc1", "fc2")}
    return tower_keys(config, prefix, mlp=mlp, mergers={"merger": "merger"}, merger=MERGER)


def config_from_hf(
    content: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> Qwen2VLConfig:
    """Returns the configuration in a `config.json`, flat (hub, 4.x) or with `text_config` (5.x).

    Args:
      content: the file.
      preprocessor: `preprocessor_config.json`, which holds mean and std of the pixels.

    Raises:
      CheckpointError: a size is missing, or a field asks for another model; all in one message.

    Warns:
      UserWarning: unknown fields, by name.
    """
    return assembled_from_hf(
        content, preprocessor, MODEL_TYPE, Qwen2VLConfig, vision_config_from_hf, text_config_from_hf
    )


def assembled_from_hf(
    content: Mapping[str, Any],
    preprocessor: Mapping[str, Any] | None,
    model_type: str,
    make: Callable[..., Config],
    read_vision: Callable[[Fields, Mapping[str, Any]], TowerConfig],
    read_text: Callable[..., Any],
) -> Config:
    """Reads the configuration of a model of any generation, see `config_from_hf`."""
    fields = Fields(content, "config.json")
    fields.expect("model_type", (model_type,))
    text = nested_text_fields(fields)
    tied = is_tied(fields, text)
    text.ignore(TOKEN_IDS)  # 4.53 repeats some there; those at the top count
    vision = fields.child("vision_config")
    try:
        config = make(
            vision_config=read_vision(vision, preprocessor or {}),
            text_config=read_text(text, tie_word_embeddings=tied),
            **{name: fields.get(name, getattr(QwenVLConfig, name), int) for name in TOKEN_IDS},
        )
    except ValueError as error:  # sizes that do not go together
        raise as_checkpoint_error(error) from error
    for part in {id(part): part for part in (text, vision, fields)}.values():
        part.close()
    return config


def config_to_hf(config: Qwen2VLConfig) -> dict[str, Any]:
    """Returns a `config.json` in the flat layout of the hub's files; nothing of ours is lost."""
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        **text_config_to_hf(config.text_config),
        **{name: getattr(config, name) for name in TOKEN_IDS},
        "vision_config": vision_config_to_hf(config.vision_config),
    }


def check_export(config: Qwen2VLConfig) -> None:
    """Raises `CheckpointError` for a variant that `Qwen2VLForConditionalGeneration` cannot be."""
    merge = config.vision_config.merge
    problems = [f"merge={merge}"] if merge != "patch_merger" else []
    if config.vision_config.position_side:
        problems.append("table of positions in its tower")
    refuse_export(config, ARCHITECTURE, problems)


def refuse_export(config: QwenVLConfig, architecture: str, problems: list[str]) -> None:
    """Raises `CheckpointError` that names what the classes of transformers do not have."""
    if config.text_config.mrope_section is None:
        problems = [*problems, "plain rotary positions"]
    if problems:
        raise CheckpointError(
            f"export: {architecture} has no {' and no '.join(problems)}. Keep this model as a "
            "checkpoint of ours."
        )


def vision_config_from_hf(fields: Fields, preprocessor: Mapping[str, Any]) -> VisionConfig:
    """Reads the tower's fields; mean and std of the pixels come from the preprocessor if there."""
    fields.expect("model_type", (MODEL_TYPE, "qwen2_vl_vision"))
    fields.expect("hidden_act", ACTIVATIONS)
    return VisionConfig(
        **shared_tower_fields(fields, preprocessor, VisionConfig, ("embed_dim", "hidden_size")),
        mlp_ratio=float(fields.get("mlp_ratio", 4.0, float)),
        hidden_act=fields.get("hidden_act", "quick_gelu", str),
        merge=fields.get("merge", "patch_merger", str),
        num_position_embeddings=fields.get("num_position_embeddings", 0, int),
    )


def vision_config_to_hf(config: VisionConfig) -> dict[str, Any]:
    """The tower's fields; our own ones only where they differ from the released models."""
    ratio = config.mlp_ratio
    usual = {"merge": "patch_merger", "num_position_embeddings": 0}
    own = tuple(name for name, value in usual.items() if getattr(config, name) != value)
    return {
        "model_type": MODEL_TYPE,
        **shared_tower_fields_to_hf(config, ("embed_dim", "hidden_size", "hidden_act", *own)),
        "mlp_ratio": int(ratio) if ratio == int(ratio) else ratio,
        "spatial_patch_size": config.patch_size,
        "in_chans": config.in_channels,
    }

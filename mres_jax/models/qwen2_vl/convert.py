"""Qwen2-VL to and from Hugging Face: configuration fields and file keys.

Keys are written as hub files have them (`visual.*`, `model.*`); the names that transformers from
4.52 on uses in memory (`model.visual.*`, `model.language_model.*`) are read as well.
"""

from collections.abc import Mapping
from typing import Any

from mres_jax.errors import CheckpointError
from mres_jax.models.hf_fields import Fields
from mres_jax.models.key_table import Key, KeyTable
from mres_jax.models.qwen2.convert import (
    IGNORED,
    KEYS as TEXT_KEYS,
    MAX_LAYERS,
    TIED,
    is_tied,
    nested_text_fields,
    text_config_from_hf,
    text_config_to_hf,
)
from mres_jax.models.qwen2_vl.config import CLIP_MEAN, CLIP_STD, Qwen2VLConfig, VisionConfig

MODEL_TYPE, ARCHITECTURE = "qwen2_vl", "Qwen2VLForConditionalGeneration"
RENAMES = ((r"^model\.visual\.", "visual."), (r"^model\.language_model\.", "model."))
TOKEN_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def key_table(config: Qwen2VLConfig) -> KeyTable:
    """Keys of a Qwen2-VL."""
    return KeyTable(
        keys=(*vision_keys(config.vision_config, "visual."), *TEXT_KEYS),
        renames=RENAMES,
        ignored=IGNORED,
        tied=TIED,
    )


def vision_keys(config: VisionConfig, prefix: str) -> tuple[Key, ...]:
    """Keys of the tower and its merger under `prefix`."""
    patch = (config.in_channels, config.temporal_patch_size, *2 * (config.patch_size,))
    rows = [
        Key(
            hf="patch_embed.proj.weight",
            ours="patch_embed.kernel",
            transform="transpose",
            tail=patch,
        )
    ]
    for norm in ("norm1", "norm2"):
        rows += _norm(f"blocks.{{i}}.{norm}", f"blocks.{norm}")
    for linear in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        rows += linear_keys(f"blocks.{{i}}.{linear}", f"blocks.{linear}")
    rows += _norm("merger.ln_q", "merger.norm")
    rows += linear_keys("merger.mlp.0", "merger.up")
    rows += linear_keys("merger.mlp.2", "merger.down")
    return tuple(
        Key(hf=prefix + r.hf, ours="vision." + r.ours, transform=r.transform, tail=r.tail)
        for r in rows
    )


def linear_keys(hf: str, ours: str) -> tuple[Key, Key]:
    """Weight and bias of a linear layer."""
    return (
        Key(hf=f"{hf}.weight", ours=f"{ours}.kernel", transform="transpose"),
        Key(hf=f"{hf}.bias", ours=f"{ours}.bias"),
    )


def _norm(hf: str, ours: str) -> tuple[Key, Key]:
    return Key(hf=f"{hf}.weight", ours=f"{ours}.scale"), Key(hf=f"{hf}.bias", ours=f"{ours}.bias")


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
    fields = Fields(content, "config.json")
    fields.expect("model_type", (MODEL_TYPE,))
    text = nested_text_fields(fields)
    tied = is_tied(fields, text)
    vision = fields.child("vision_config")
    try:
        config = Qwen2VLConfig(
            vision_config=vision_config_from_hf(vision, preprocessor or {}),
            text_config=text_config_from_hf(text, tie_word_embeddings=tied),
            **{name: fields.get(name, default, int) for name, default in _token_ids().items()},
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
    problems = []
    if config.vision_config.merge != "patch_merger":
        problems.append(f"merge={config.vision_config.merge}")
    if config.text_config.mrope_section is None:
        problems.append("plain rotary positions")
    if problems:
        raise CheckpointError(
            f"export: {ARCHITECTURE} has no {' and no '.join(problems)}. Keep this model as a "
            "checkpoint of ours."
        )


def vision_config_from_hf(fields: Fields, preprocessor: Mapping[str, Any]) -> VisionConfig:
    """Reads the tower's fields; mean and std of the pixels come from the preprocessor if there."""
    fields.expect("model_type", (MODEL_TYPE, "qwen2_vl_vision"))
    patch_size = _side(fields, "patch_size", 14)
    fields.expect("spatial_patch_size", (patch_size,))
    fields.expect("hidden_act", ("quick_gelu", "gelu", "gelu_pytorch_tanh", "silu"))
    fields.ignore(("rope_parameters",))  # base 10,000 and two axes in every release
    channels = fields.get("in_channels", fields.get("in_chans", 3, int), int)
    pixels = Fields(preprocessor, "preprocessor_config.json")
    return VisionConfig(
        **{name: fields.size(name) for name in ("embed_dim", "num_heads", "hidden_size")},
        depth=fields.size("depth", most=MAX_LAYERS),
        mlp_ratio=float(fields.get("mlp_ratio", 4.0, float)),
        patch_size=patch_size,
        spatial_merge_size=fields.size("spatial_merge_size", 2),
        temporal_patch_size=_side(fields, "temporal_patch_size", 2),
        in_channels=channels,
        hidden_act=fields.get("hidden_act", "quick_gelu", str),
        merge=fields.get("merge", "patch_merger", str),
        image_mean=_channels(fields, pixels, "image_mean", CLIP_MEAN),
        image_std=_channels(fields, pixels, "image_std", CLIP_STD),
    )


def vision_config_to_hf(config: VisionConfig) -> dict[str, Any]:
    """The tower's fields; our own ones only where they differ from the released models."""
    ours = {
        "merge": (config.merge, "patch_merger"),
        "image_mean": (config.image_mean, CLIP_MEAN),
        "image_std": (config.image_std, CLIP_STD),
    }
    ratio = config.mlp_ratio
    return {
        "model_type": MODEL_TYPE,
        "depth": config.depth,
        "embed_dim": config.embed_dim,
        "num_heads": config.num_heads,
        "hidden_size": config.hidden_size,
        "hidden_act": config.hidden_act,
        "mlp_ratio": int(ratio) if ratio == int(ratio) else ratio,
        "patch_size": config.patch_size,
        "spatial_patch_size": config.patch_size,
        "spatial_merge_size": config.spatial_merge_size,
        "temporal_patch_size": config.temporal_patch_size,
        "in_chans": config.in_channels,
        "in_channels": config.in_channels,
        **{
            name: list(value) if isinstance(value, tuple) else value
            for name, (value, default) in ours.items()
            if value != default
        },
    }


def as_checkpoint_error(error: ValueError) -> CheckpointError:
    """A constructor's complaint about a file's values."""
    return error if isinstance(error, CheckpointError) else CheckpointError(f"config.json: {error}")


def _token_ids() -> dict[str, int]:
    return {name: getattr(Qwen2VLConfig, name) for name in TOKEN_IDS}


def _side(fields: Fields, name: str, default: int) -> int:
    """A size that some files write as a pair of equal numbers."""
    value = fields.get(name, default, (int, list))
    sides = value if isinstance(value, list) else [value]
    if not sides or any(type(side) is not int or side != sides[0] or side < 1 for side in sides):
        raise CheckpointError(f"{fields.where}: {name} is {value!r}, not one size.")
    return sides[0]


def _channels(
    vision: Fields, pixels: Fields, name: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Mean or std per colour channel: from the preprocessor, else from our own field."""
    own = vision.get(name, list(default), list)
    value = pixels.get(name, own, list)
    if len(value) != 3 or not all(isinstance(v, int | float) for v in value):
        raise CheckpointError(f"{pixels.where}: {name} is {value!r}, not three numbers.")
    return float(value[0]), float(value[1]), float(value[2])

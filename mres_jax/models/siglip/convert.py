"""SigLIP's picture encoder: configuration fields and file keys, as they stand in larger models."""

from collections.abc import Mapping
from typing import Any

from mres_jax.models.hf_fields import MAX_LAYERS, Fields, pixel_values
from mres_jax.models.key_table import Key
from mres_jax.models.layers import encoder_layer_keys, norm_keys
from mres_jax.models.siglip.config import NaflexConfig, SiglipConfig
from mres_jax.models.tower_convert import ACTIVATIONS

NAFLEX_TYPE = "siglip2_vision_model"
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "patch_size",
)
# The pooling head, and the text tower where a file has both.
IGNORED = (r"^(vision_model\.)?head\.", r"^text_model\.", r"^logit_(scale|bias)$", r"position_ids$")
# transformers 5 leaves the name of the tower out
RENAMES = ((r"^(?=(embeddings|encoder|post_layernorm)\.)", "vision_model."),)


def siglip_keys(config: SiglipConfig, prefix: str, ours: str) -> tuple[Key, ...]:
    """Keys of a tower; `prefix` ends before `embeddings`, `ours` names our module.

    NaFlex towers embed rows of pixels, the others convolve.
    """
    side = config.patch_size
    layer, block = f"{prefix}encoder.layers.{{i}}", f"{ours}.blocks"
    weight = f"{prefix}embeddings.patch_embedding.weight"
    kernel = f"{ours}.patch_embed.kernel"
    if isinstance(config, NaflexConfig):
        rows = [Key(hf=weight, ours=kernel, transform="transpose_pixels", tail=(side, side, 3))]
    else:
        rows = [Key(hf=weight, ours=kernel, transform="transpose", tail=(3, side, side))]
    rows += [
        Key(hf=f"{prefix}embeddings.patch_embedding.bias", ours=f"{ours}.patch_embed.bias"),
        Key(hf=f"{prefix}embeddings.position_embedding.weight", ours=f"{ours}.positions.embedding"),
        *encoder_layer_keys(layer, block),
        *norm_keys(f"{prefix}post_layernorm", f"{ours}.post_norm"),
    ]
    return tuple(rows)


def siglip_fields(
    fields: Fields, preprocessor: Mapping[str, Any], defaults: Mapping[str, int]
) -> dict[str, Any]:
    """Reads what all towers have alike; absent sizes are those of `defaults`."""
    fields.expect("num_channels", (3,))
    fields.expect("hidden_act", ACTIVATIONS)
    fields.size("num_hidden_layers", defaults["num_hidden_layers"], most=MAX_LAYERS)
    pixels = Fields(preprocessor, "preprocessor_config.json")
    return {
        **{name: fields.size(name, defaults[name]) for name in SIZES},
        "hidden_act": fields.get("hidden_act", SiglipConfig.hidden_act, str),
        "layer_norm_eps": fields.get("layer_norm_eps", SiglipConfig.layer_norm_eps, float),
        **{
            name: pixel_values(fields, pixels, name, SiglipConfig.image_mean)
            for name in ("image_mean", "image_std")
        },
    }


def siglip_fields_to_hf(config: SiglipConfig) -> dict[str, Any]:
    """What `siglip_fields` reads; pixel values where they are not the usual."""
    return {
        **{name: getattr(config, name) for name in SIZES},
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "num_channels": 3,
        **{
            name: list(getattr(config, name))
            for name in ("image_mean", "image_std")
            if getattr(config, name) != SiglipConfig.image_mean
        },
    }


def naflex_config_from_hf(fields: Fields, preprocessor: Mapping[str, Any]) -> NaflexConfig:
    """Reads the fields of a SigLIP2-NaFlex tower; absent ones are those of the base size."""
    fields.expect("model_type", (NAFLEX_TYPE,))
    fields.ignore(("vision_use_head", "image_size"))
    defaults = {name: getattr(NaflexConfig, name) for name in SIZES}
    return NaflexConfig(
        **siglip_fields(fields, preprocessor, defaults),
        num_patches=fields.size("num_patches", NaflexConfig.num_patches),
        spatial_merge_size=fields.size("spatial_merge_size", NaflexConfig.spatial_merge_size),
    )


def naflex_config_to_hf(config: NaflexConfig) -> dict[str, Any]:
    """The fields of a `vision_config`; `spatial_merge_size` is one of ours."""
    own = {"spatial_merge_size": config.spatial_merge_size}
    return {
        "model_type": NAFLEX_TYPE,
        **siglip_fields_to_hf(config),
        "num_patches": config.num_patches,
        **(own if own["spatial_merge_size"] > 1 else {}),
    }

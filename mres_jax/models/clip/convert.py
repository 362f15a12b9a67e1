"""CLIP's picture encoder: configuration fields and file keys, as they stand in larger models."""

from collections.abc import Mapping
from typing import Any

from mres_jax.models.clip.config import ClipConfig
from mres_jax.models.hf_fields import MAX_LAYERS, Fields, pixel_values
from mres_jax.models.key_table import Key
from mres_jax.models.layers import encoder_layer_keys, norm_keys

MODEL_TYPE = "clip_vision_model"
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
)
IGNORED = (r"^(text_model|text_projection|visual_projection)\.", r"^logit_scale$", r"position_ids$")
# transformers 5 leaves the name of the tower out
RENAMES = ((r"^(?=(embeddings|encoder|pre_layrnorm|post_layernorm)\.)", "vision_model."),)
# Of text and picture together, in files of the whole CLIP.
UNUSED = ("projection_dim", "vocab_size", "dropout", "initializer_factor", "logit_scale_init_value")


def clip_keys(config: ClipConfig, prefix: str, ours: str) -> tuple[Key, ...]:
    """Keys of a tower; `prefix` ends before `embeddings`, `ours` names our module."""
    patch = (3, config.patch_size, config.patch_size)
    layer, block = f"{prefix}encoder.layers.{{i}}", f"{ours}.blocks"
    rows = [
        Key(hf=f"{prefix}embeddings.class_embedding", ours=f"{ours}.class_embedding"),
        Key(
            hf=f"{prefix}embeddings.patch_embedding.weight",
            ours=f"{ours}.patch_embed.kernel",
            transform="transpose",
            tail=patch,
        ),
        Key(hf=f"{prefix}embeddings.position_embedding.weight", ours=f"{ours}.positions"),
        *norm_keys(f"{prefix}pre_layrnorm", f"{ours}.pre_norm"),  # their spelling
        *norm_keys(f"{prefix}post_layernorm", f"{ours}.post_norm"),
    ]
    return (*rows, *encoder_layer_keys(layer, block))


def clip_config_from_hf(
    fields: Fields, preprocessor: Mapping[str, Any], **choices: Any
) -> ClipConfig:
    """Reads a tower's fields; absent ones are those of ViT-L/14 at 336 px.

    Args:
      fields: of a `vision_config`.
      preprocessor: of the image processor, which holds mean and std of the pixels.
      **choices: fields that stand elsewhere, such as `feature_layer`.
    """
    fields.expect("model_type", (MODEL_TYPE,))
    fields.expect("num_channels", (3,))
    fields.expect("hidden_act", ("quick_gelu", "gelu", "gelu_pytorch_tanh"))
    fields.ignore(UNUSED)
    sizes = {name: fields.size(name, getattr(ClipConfig, name)) for name in SIZES}
    fields.size("num_hidden_layers", ClipConfig.num_hidden_layers, most=MAX_LAYERS)
    pixels = Fields(preprocessor, "preprocessor_config.json")
    return ClipConfig(
        **sizes,
        hidden_act=fields.get("hidden_act", ClipConfig.hidden_act, str),
        layer_norm_eps=fields.get("layer_norm_eps", ClipConfig.layer_norm_eps, float),
        image_mean=pixel_values(fields, pixels, "image_mean", ClipConfig.image_mean),
        image_std=pixel_values(fields, pixels, "image_std", ClipConfig.image_std),
        **choices,
    )


def clip_config_to_hf(config: ClipConfig) -> dict[str, Any]:
    """The fields of a `vision_config`; ours only where they differ from the released models."""
    return {
        "model_type": MODEL_TYPE,
        **{name: getattr(config, name) for name in SIZES},
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "num_channels": 3,
        **{
            name: list(getattr(config, name))
            for name in ("image_mean", "image_std")
            if getattr(config, name) != getattr(ClipConfig, name)
        },
    }

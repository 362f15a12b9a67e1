"""SmolVLM2 to and from Hugging Face: configuration fields and file keys."""

from collections.abc import Mapping
from typing import Any

from mres_jax.models.hf_fields import Fields, as_checkpoint_error
from mres_jax.models.key_table import Key, KeyTable
from mres_jax.models.llama.convert import (
    IGNORED,
    llama_config_from_hf,
    llama_config_to_hf,
    llama_keys,
)
from mres_jax.models.qwen2.convert import is_tied
from mres_jax.models.siglip.config import SquareConfig
from mres_jax.models.siglip.convert import (
    siglip_fields,
    siglip_fields_to_hf,
    siglip_keys,
)
from mres_jax.models.smolvlm.config import SmolVLMConfig

MODEL_TYPE, ARCHITECTURE = "smolvlm", "SmolVLMForConditionalGeneration"
PROCESSOR = "SmolVLMProcessor"
TOWER, TEXT = "model.vision_model.", "model.text_model."
VISION_TYPE = "smolvlm_vision"
# What transformers takes where a `vision_config` leaves it open.
OPEN = {
    "hidden_size": 1_152,
    "intermediate_size": 3_072,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "patch_size": 32,
}
IMAGE_SIZE = 224
# Of the released training code, of other run times, and sizes that the image processor repeats.
_TOP = ("_pad_token_id", "transformers.js_config", "use_reentrant_checkpointing", "vocab_size")
_VISION = ("max_image_size", "size", "tie_word_embeddings", "use_base_siglip")
_TEXT = (
    "_flash_attn_2_enabled",
    "is_llama_config",
    "neftune_noise_alpha",
    "perceiver_config",
    "pixel_shuffle_factor",
    "transformers.js_config",
)


def key_table(config: SmolVLMConfig) -> KeyTable:
    """Keys of a SmolVLM2."""
    return KeyTable(
        keys=(
            *siglip_keys(config.vision_config, TOWER, "vision"),
            Key(
                hf="model.connector.modality_projection.proj.weight",
                ours="projector.kernel",
                transform="transpose",
            ),
            *llama_keys(TEXT),
        ),
        ignored=(*IGNORED, r"position_ids$"),
        tied={"lm_head.weight": f"{TEXT}embed_tokens.weight"},
    )


def config_from_hf(
    content: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> SmolVLMConfig:
    """Returns the configuration in a `config.json`; mean and std are the preprocessor's."""
    fields = Fields(content, "config.json")
    fields.expect("model_type", (MODEL_TYPE,))
    fields.ignore(_TOP)
    text, vision = fields.child("text_config"), fields.child("vision_config")
    text.expect("model_type", ("llama",))
    text.expect("rope_interleaved", (False,))
    text.expect("qk_layer_norms", (False,))
    text.expect("use_resampler", (False,))
    text.ignore(_TEXT)
    vision.expect("model_type", (VISION_TYPE,))
    vision.ignore(_VISION)
    try:
        config = SmolVLMConfig(
            vision_config=SquareConfig(
                **siglip_fields(vision, preprocessor or {}, OPEN),
                image_size=vision.size("image_size", IMAGE_SIZE),
                spatial_merge_size=fields.size("scale_factor", 2),
            ),
            text_config=llama_config_from_hf(text, tie_word_embeddings=is_tied(fields, text)),
            image_token_id=fields.get("image_token_id", 128_257, int),
        )
    except ValueError as error:  # sizes that do not go together
        raise as_checkpoint_error(error) from error
    for part in (text, vision, fields):
        part.close()
    return config


def config_to_hf(config: SmolVLMConfig) -> dict[str, Any]:
    """Returns a `config.json` as transformers reads it; nothing of ours is lost."""
    vision = config.vision_config
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "image_token_id": config.image_token_id,
        "scale_factor": config.scale_factor,
        "tie_word_embeddings": config.text_config.tie_word_embeddings,
        "vision_config": {
            "model_type": VISION_TYPE,
            **siglip_fields_to_hf(vision),
            "image_size": vision.image_size,
        },
        "text_config": {"model_type": "llama", **llama_config_to_hf(config.text_config)},
    }


def check_export(config: SmolVLMConfig) -> None:
    """Does nothing: every variant is one of transformers."""
    del config

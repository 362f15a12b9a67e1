"""Qwen3 decoder: configuration fields, as they stand inside larger models. Keys: `models.qwen2`."""

from typing import Any

from mres_jax.models.hf_fields import MAX_LAYERS, Fields
from mres_jax.models.qwen2.convert import SIZES, rope_from_hf, shared_text_fields
from mres_jax.models.qwen3.config import TextConfig


def text_config_from_hf(fields: Fields, *, tie_word_embeddings: bool) -> TextConfig:
    """Reads a decoder's fields, in the naming of transformers 4.57 or 5.x."""
    sizes = {name: fields.size(name) for name in SIZES}
    fields.size("num_hidden_layers", most=MAX_LAYERS)
    fields.expect("attention_bias", (False,))
    theta, section = rope_from_hf(fields, interleaved=(True,))
    return TextConfig(
        **sizes,
        **shared_text_fields(fields, sizes["num_attention_heads"]),
        head_dim=fields.size("head_dim", TextConfig.head_dim),
        rope_theta=theta,
        tie_word_embeddings=tie_word_embeddings,
        mrope_section=section or TextConfig.mrope_section,
    )


def text_config_to_hf(config: TextConfig) -> dict[str, Any]:
    """Fields of a `text_config`, as transformers 4.57 and 5.x both read them."""
    names = (*SIZES, "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps")
    section = config.mrope_section or ()
    return {
        **{name: getattr(config, name) for name in names},
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_theta": config.rope_theta,
        "rope_scaling": {
            "rope_type": "default",
            "mrope_section": list(section),
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_cache": True,
    }

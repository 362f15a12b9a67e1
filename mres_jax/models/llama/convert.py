"""Llama decoder: configuration fields and file keys, as they stand inside larger models."""

from typing import Any

from mres_jax.models.hf_fields import Fields
from mres_jax.models.key_table import Key
from mres_jax.models.llama.config import LlamaConfig
from mres_jax.models.qwen2.convert import (
    IGNORED as IGNORED,
    text_config_from_hf,
    text_config_to_hf,
    text_keys,
)

MODEL_TYPES = ("llama", "mistral")
# What transformers fills in where a `text_config` leaves it out, as LLaVA's files do.
DEFAULTS = {
    "vocab_size": 32_000,
    "hidden_size": 4_096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "max_position_embeddings": 2_048,
}


def llama_keys(prefix: str = "model.") -> tuple[Key, ...]:
    """Keys of a decoder that stands under `prefix`, in the order of files."""
    return tuple(key for key in text_keys(prefix) if not key.ours.endswith(".bias"))


KEYS = llama_keys()


def llama_config_from_hf(fields: Fields, *, tie_word_embeddings: bool) -> LlamaConfig:
    """Reads a decoder's fields, flat or nested; absent ones are those of Llama 7B."""
    for name in ("attention_bias", "mlp_bias"):
        fields.expect(name, (False,))
    fields.expect("sliding_window", ())
    fields.ignore(("pretraining_tp", "rope_parameters", *fields.content.keys() & _READ))
    filled = Fields({**DEFAULTS, **_given(fields.content)}, fields.where)
    text = text_config_from_hf(filled, tie_word_embeddings=tie_word_embeddings)
    fields.problems += filled.problems
    sizes = {name: getattr(text, name) for name in _NAMES}
    kind = fields.content.get("model_type")
    return LlamaConfig(
        **sizes,
        tie_word_embeddings=tie_word_embeddings,
        model_type="mistral" if kind == "mistral" else "llama",
    )


def llama_config_to_hf(config: LlamaConfig) -> dict[str, Any]:
    """Fields of a configuration, as transformers 4.x and 5.x both read them."""
    content = text_config_to_hf(config)
    kept = {k: v for k, v in content.items() if k not in ("use_sliding_window", "rope_scaling")}
    return kept | ({"sliding_window": None} if config.model_type == "mistral" else {})


_NAMES = (*DEFAULTS, "num_key_value_heads")
_READ = {*_NAMES, "hidden_act", "head_dim", "rope_scaling", "use_sliding_window", "layer_types"}


def _given(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None}

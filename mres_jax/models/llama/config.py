"""Sizes of a Llama decoder."""

import dataclasses
from typing import ClassVar, Literal

from mres_jax.models.qwen2.config import TextConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaConfig(TextConfig):
    """Decoder; it differs from Qwen2 in that queries, keys and values have no biases.

    Attributes:
      model_type: Mistral's arithmetic is that of Llama, as far as its window is wider than any
        prompt; it was taught other words around turns.
    """

    QKV_BIAS: ClassVar[bool] = False

    model_type: Literal["llama", "mistral"] = "llama"

    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    max_position_embeddings: int = 4_096


def vicuna(size: str) -> LlamaConfig:
    """Vicuna v1.5, `7b` or `13b`: the shapes of Llama 2."""
    width, intermediate_size, layers = _VICUNA[size]
    return LlamaConfig(
        vocab_size=32_000,
        hidden_size=width,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=layers,
        num_key_value_heads=layers,
    )


_VICUNA = {"7b": (4_096, 11_008, 32), "13b": (5_120, 13_824, 40)}  # heads are as many as layers

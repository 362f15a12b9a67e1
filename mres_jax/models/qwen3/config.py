"""Sizes of a Qwen3 decoder."""

import dataclasses
from typing import ClassVar

from mres_jax.models.qwen2 import config as qwen2


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(qwen2.TextConfig):
    """Decoder. Field names follow the Hugging Face `config.json` of the same model.

    Heads have a width of their own, and the queries and keys of each are normalised.

    Reference:
      Yang et al., 2025, "Qwen3 Technical Report", arXiv:2505.09388, section 2.
    """

    QKV_BIAS: ClassVar[bool] = False
    QK_NORM: ClassVar[bool] = True
    MROPE_INTERLEAVED: ClassVar[bool] = True

    head_dim: int = 128  # pyright: ignore[reportIncompatibleMethodOverride], a field here
    rope_theta: float = 5_000_000.0
    max_position_embeddings: int = 262_144
    mrope_section: tuple[int, int, int] | None = (24, 20, 20)  # text alone turns as plain rotary

    def _check_head_dim(self) -> None:
        if self.mrope_section is None:
            raise ValueError("TextConfig: a Qwen3 decoder has an mrope_section, not None.")
        if self.head_dim < 2 or self.head_dim % 2:
            raise ValueError(f"TextConfig: head_dim={self.head_dim} is no even number above 0.")

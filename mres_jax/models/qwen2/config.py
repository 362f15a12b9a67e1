"""Sizes of a Qwen2 decoder."""

import dataclasses
from typing import ClassVar


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Decoder. Field names follow the Hugging Face `config.json` of the same model."""

    QKV_BIAS: ClassVar[bool] = True
    QK_NORM: ClassVar[bool] = False  # of each head
    MROPE_INTERLEAVED: ClassVar[bool] = False

    vocab_size: int
    hidden_size: int  # channels
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 32_768
    mrope_section: tuple[int, int, int] | None = None  # frequencies for t, h, w; None = plain

    def __post_init__(self):
        self._check_head_dim()
        self._check_divides("num_key_value_heads", self.num_attention_heads)
        if self.mrope_section is not None and sum(self.mrope_section) != self.head_dim // 2:
            raise ValueError(
                f"TextConfig: mrope_section={self.mrope_section} must sum to half the head width, "
                f"{self.head_dim // 2}."
            )

    def _check_head_dim(self) -> None:
        self._check_divides("num_attention_heads", self.hidden_size)

    def _check_divides(self, name: str, total: int) -> None:
        parts = getattr(self, name)
        if parts < 1 or total % parts:
            raise ValueError(f"TextConfig: {name}={parts} does not divide {total}.")

    @property
    def head_dim(self) -> int:
        """Head width."""
        return self.hidden_size // self.num_attention_heads

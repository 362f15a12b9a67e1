"""Sizes of Qwen2.5-VL: vision tower with windows, decoder, special tokens."""

import dataclasses
from typing import ClassVar, Literal

from mres_jax.geometry import Grid
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2_vl.config import QwenVLConfig
from mres_jax.models.tower_config import TowerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(TowerConfig):
    """Vision tower. Field names follow the Hugging Face `config.json` of the same model."""

    MLP_KERNELS: ClassVar[int] = 3

    hidden_size: int  # channels
    intermediate_size: int
    out_hidden_size: int  # channels of a visual token
    window_size: int = 112  # pixels per side of a window
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)  # layers without windows
    tokens_per_second: int = 2  # of rotary time, in clips

    def __post_init__(self):
        super().__post_init__()
        if self.window_size < self.stride:
            raise ValueError(
                f"VisionConfig: window_size={self.window_size} px is less than one visual token of "
                f"{self.stride} px."
            )
        wrong = [i for i in self.fullatt_block_indexes if not 0 <= i < self.depth]
        if wrong or len(set(self.fullatt_block_indexes)) < len(self.fullatt_block_indexes):
            raise ValueError(
                f"VisionConfig: fullatt_block_indexes={list(self.fullatt_block_indexes)} must "
                f"name layers 0 to {self.depth - 1}, each once."
            )

    @property
    def width(self) -> int:
        """Channels of a patch."""
        return self.hidden_size

    @property
    def out_width(self) -> int:
        """Channels of a visual token as it leaves the tower."""
        return self.out_hidden_size

    @property
    def mlp_width(self) -> int:
        """Channels inside a feed-forward block."""
        return self.intermediate_size

    @property
    def window_side(self) -> int:
        """Visual tokens per side of a window; what is left of its pixels is not used."""
        return self.window_size // self.spatial_merge_size // self.patch_size

    def attended_pairs(self, grid: Grid) -> int:
        """Pairs of patches of a view that look at each other, in all layers together."""
        full = len(self.fullatt_block_indexes)
        side = self.window_side * self.spatial_merge_size
        inside = _squares(grid.h, side) * _squares(grid.w, side)
        return grid.t * (full * (grid.h * grid.w) ** 2 + (self.depth - full) * inside)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qwen2_5VLConfig(QwenVLConfig):
    """The assembled model."""

    vision_config: VisionConfig


def qwen2_5_vl(size: Literal["3b", "7b", "32b", "72b"]) -> Qwen2_5VLConfig:
    """A released model by its size.

    Reference:
      Bai et al., 2025, "Qwen2.5-VL Technical Report", arXiv:2502.13923, table 1; the released
      `config.json` files where they differ (feed-forward channels of the tower).
    """
    width, layers, heads, kv_heads, intermediate_size, rows, tower = _SIZES[size]
    return Qwen2_5VLConfig(
        vision_config=VisionConfig(
            depth=32,
            num_heads=16,
            hidden_size=1_280,
            intermediate_size=tower,
            out_hidden_size=width,
        ),
        text_config=TextConfig(
            vocab_size=rows,
            hidden_size=width,
            intermediate_size=intermediate_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            tie_word_embeddings=size == "3b",
            max_position_embeddings=128_000,
            mrope_section=(16, 24, 24),
        ),
    )


_SIZES = {  # channels, layers, heads, key/value heads, MLP channels, vocabulary rows, tower's MLP
    "3b": (2_048, 36, 16, 2, 11_008, 151_936, 3_420),
    "7b": (3_584, 28, 28, 4, 18_944, 152_064, 3_420),
    "32b": (5_120, 64, 40, 8, 27_648, 152_064, 3_456),
    "72b": (8_192, 80, 64, 8, 29_568, 152_064, 3_456),
}


def _squares(length: int, side: int) -> int:
    """Sum of the squares of the parts when a length is cut into sides."""
    return length // side * side**2 + (length % side) ** 2

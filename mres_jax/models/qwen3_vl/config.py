"""Sizes of Qwen3-VL (dense): vision tower with DeepStack, decoder, special tokens."""

import dataclasses
import math
from typing import Literal

from mres_jax.models.qwen2_vl.config import QwenVLConfig
from mres_jax.models.qwen3.config import TextConfig
from mres_jax.models.tower_config import TowerConfig

HALF = (0.5, 0.5, 0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(TowerConfig):
    """Vision tower. Field names follow the Hugging Face `config.json` of the same model."""

    hidden_size: int  # channels
    intermediate_size: int
    out_hidden_size: int  # channels of a visual token
    hidden_act: str = "gelu_pytorch_tanh"
    num_position_embeddings: int = 2_304  # a square table
    deepstack_visual_indexes: tuple[int, ...] = (8, 16, 24)  # layers that reach the decoder too
    patch_size: int = 16  # pixels
    image_mean: tuple[float, float, float] = HALF
    image_std: tuple[float, float, float] = HALF

    def __post_init__(self):
        super().__post_init__()
        if self.num_position_embeddings < 1 or self.position_side**2 != (
            self.num_position_embeddings
        ):
            raise ValueError(
                f"VisionConfig: num_position_embeddings={self.num_position_embeddings} is no "
                "square."
            )
        layers = self.deepstack_visual_indexes
        if list(layers) != sorted({i for i in layers if 0 <= i < self.depth}):
            raise ValueError(
                f"VisionConfig: deepstack_visual_indexes={list(layers)} must name layers 0 to "
                f"{self.depth - 1}, in order and each once."
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
    def position_side(self) -> int:
        """Side of the table of positions."""
        return math.isqrt(self.num_position_embeddings)

    @property
    def token_products(self) -> int:
        """Products that make visual tokens of patches, for one of them, DeepStack included."""
        return (1 + len(self.deepstack_visual_indexes)) * super().token_products


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qwen3VLConfig(QwenVLConfig):
    """The assembled model."""

    vision_config: VisionConfig
    text_config: TextConfig

    def __post_init__(self):
        super().__post_init__()
        added, layers = len(self.vision_config.deepstack_visual_indexes), self.text_config
        if added > layers.num_hidden_layers:
            raise ValueError(
                f"Qwen3VLConfig: {added} deepstack_visual_indexes, but the decoder has "
                f"{layers.num_hidden_layers} layers to add them to."
            )


def qwen3_vl(size: Literal["2b", "4b", "8b", "32b"]) -> Qwen3VLConfig:
    """A released dense model by its size.

    Reference:
      Bai et al., 2025, "Qwen3-VL Technical Report", arXiv:2511.21631, section 2, and the released
      `config.json` files.
    """
    width, layers, heads, intermediate_size, tower = _SIZES[size]
    return Qwen3VLConfig(
        vision_config=VisionConfig(num_heads=16, out_hidden_size=width, **_TOWERS[tower]),
        text_config=TextConfig(
            vocab_size=151_936,
            hidden_size=width,
            intermediate_size=intermediate_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=8,
            tie_word_embeddings=size in ("2b", "4b"),
            mrope_section=(24, 20, 20),
        ),
    )


_TOWERS = {
    "large": {
        "depth": 24,
        "hidden_size": 1_024,
        "intermediate_size": 4_096,
        "deepstack_visual_indexes": (5, 11, 17),
    },
    "so400m": {"depth": 27, "hidden_size": 1_152, "intermediate_size": 4_304},
}
_SIZES = {  # channels, layers, heads, feed-forward channels, tower
    "2b": (2_048, 28, 16, 6_144, "large"),
    "4b": (2_560, 36, 32, 9_728, "large"),
    "8b": (4_096, 36, 32, 12_288, "so400m"),
    "32b": (5_120, 64, 64, 25_600, "so400m"),
}

"""Sizes of SmolVLM2: tower, connector, decoder."""

import dataclasses
from typing import Literal

from mres_jax.models.llama.config import LlamaConfig
from mres_jax.models.siglip.config import SquareConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmolVLMConfig:
    """The assembled model; the tower's `spatial_merge_size` is `scale_factor` of the files."""

    vision_config: SquareConfig
    text_config: LlamaConfig
    image_token_id: int = 49_190

    @property
    def scale_factor(self) -> int:
        """Patches per side of one visual token."""
        return self.vision_config.spatial_merge_size

    def encoder_flops(self, num_patches: list[int]) -> float:
        """FLOPs from views of so many patches to visual tokens at the decoder's width."""
        vision, total = self.vision_config, sum(num_patches)
        pairs = vision.num_hidden_layers * sum(n * n for n in num_patches)
        tokens = total // vision.spatial_merge_size**2
        connector = vision.out_width * self.text_config.hidden_size
        return float(2 * (total * vision.patch_products + tokens * connector)) + float(
            4 * vision.hidden_size * pairs
        )


def smolvlm2(size: Literal["256m", "500m", "2.2b"]) -> SmolVLMConfig:
    """A released model by its size: 256,484,928, 507,482,304 and 2,246,784,880 parameters.

    Reference:
      Marafioti et al., 2025, "SmolVLM", arXiv:2504.05299, section 2; `config.json` of
      HuggingFaceTB/SmolVLM2-256M-Video-Instruct, -500M-Video-Instruct and -2.2B-Instruct.
    """
    width, intermediate_size, layers, heads, kv_heads, theta = _SIZES[size]
    return SmolVLMConfig(
        vision_config=_SO400M if size == "2.2b" else _BASE,
        text_config=LlamaConfig(
            vocab_size=49_280,
            hidden_size=width,
            intermediate_size=intermediate_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            rope_theta=theta,
            max_position_embeddings=8_192,
        ),
    )


_BASE = SquareConfig(image_size=512, spatial_merge_size=4)
_SO400M = SquareConfig(
    hidden_size=1_152,
    intermediate_size=4_304,
    num_hidden_layers=27,
    num_attention_heads=16,
    patch_size=14,
    image_size=384,
    spatial_merge_size=3,
)
_SIZES = {  # channels, feed-forward channels, layers, heads, key/value heads, rotary base
    "256m": (576, 1_536, 30, 9, 3, 100_000.0),
    "500m": (960, 2_560, 32, 15, 5, 100_000.0),
    "2.2b": (2_048, 8_192, 24, 32, 32, 130_000.0),
}

"""Sizes of Qwen2-VL: vision tower, decoder, special tokens."""

import dataclasses
import math
from typing import ClassVar, Literal

from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.tower_config import TowerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(TowerConfig):
    """Vision tower. Field names follow the Hugging Face `config.json` of the same model."""

    WIDTH: ClassVar[str] = "embed_dim"

    embed_dim: int  # channels
    hidden_size: int  # channels of a visual token
    mlp_ratio: float = 4.0
    hidden_act: str = "quick_gelu"
    merge: Literal["patch_merger", "avgpool"] = "patch_merger"
    num_position_embeddings: int = (
        0  # a square table beside the rotary positions; 0: none, as released
    )

    def __post_init__(self):
        super().__post_init__()
        if self.merge not in ("patch_merger", "avgpool"):
            raise ValueError(f"VisionConfig: merge={self.merge!r}; have patch_merger, avgpool.")
        if self.merge == "avgpool" and self.hidden_size != self.embed_dim:
            raise ValueError(
                f"VisionConfig: merge=avgpool keeps the width, but hidden_size={self.hidden_size} "
                f"differs from embed_dim={self.embed_dim}."
            )
        if self.num_position_embeddings < 0 or self.position_side**2 != (
            self.num_position_embeddings
        ):
            raise ValueError(
                f"VisionConfig: num_position_embeddings={self.num_position_embeddings} is no "
                "square."
            )

    @property
    def position_side(self) -> int:
        """Side of the table of positions; 0 without one."""
        return math.isqrt(max(0, self.num_position_embeddings))

    @property
    def width(self) -> int:
        """Channels of a patch."""
        return self.embed_dim

    @property
    def out_width(self) -> int:
        """Channels of a visual token as it leaves the tower."""
        return self.hidden_size

    @property
    def mlp_width(self) -> int:
        """Channels inside a feed-forward block."""
        return int(self.embed_dim * self.mlp_ratio)

    @property
    def token_products(self) -> int:
        """Products that make visual tokens of patches, for one of them; a mean takes none."""
        return super().token_products if self.merge == "patch_merger" else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class QwenVLConfig:
    """What the assembled models of all generations share; the tower ends at the decoder's width."""

    vision_config: TowerConfig
    text_config: TextConfig
    image_token_id: int = 151_655
    video_token_id: int = 151_656
    vision_start_token_id: int = 151_652
    vision_end_token_id: int = 151_653

    def __post_init__(self):
        if self.vision_config.out_width != self.text_config.hidden_size:
            raise ValueError(
                f"{type(self).__name__}: visual tokens have {self.vision_config.out_width} "
                f"channels, the decoder {self.text_config.hidden_size}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qwen2VLConfig(QwenVLConfig):
    """The assembled model."""

    vision_config: VisionConfig

"""Sizes of Qwen2-VL: vision tower, decoder, special tokens."""

import dataclasses
from typing import Literal

from mres_jax.models.qwen2.config import TextConfig

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Vision tower. Field names follow the Hugging Face `config.json` of the same model."""

    depth: int  # layers
    embed_dim: int  # channels
    num_heads: int
    hidden_size: int  # channels of a visual token
    mlp_ratio: float = 4.0
    patch_size: int = 14  # pixels
    spatial_merge_size: int = 2  # patches per side of one visual token
    temporal_patch_size: int = 2  # frames
    in_channels: int = 3
    hidden_act: str = "quick_gelu"
    merge: Literal["patch_merger", "avgpool"] = "patch_merger"
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self):
        if self.embed_dim % (4 * self.num_heads):
            raise ValueError(
                f"VisionConfig: embed_dim={self.embed_dim} is not a multiple of 4 * num_heads="
                f"{4 * self.num_heads}: each head turns by row and by column."
            )
        if self.merge not in ("patch_merger", "avgpool"):
            raise ValueError(f"VisionConfig: merge={self.merge!r}; have patch_merger, avgpool.")
        if self.merge == "avgpool" and self.hidden_size != self.embed_dim:
            raise ValueError(
                f"VisionConfig: merge=avgpool keeps the width, but hidden_size={self.hidden_size} "
                f"differs from embed_dim={self.embed_dim}."
            )
        if self.in_channels != 3:
            raise ValueError(f"VisionConfig: in_channels={self.in_channels}; pictures have 3.")

    @property
    def head_dim(self) -> int:
        """Head width."""
        return self.embed_dim // self.num_heads

    @property
    def stride(self) -> int:
        """Side of one visual token, pixels."""
        return self.patch_size * self.spatial_merge_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qwen2VLConfig:
    """The assembled model; the vision tower ends at the decoder's width."""

    vision_config: VisionConfig
    text_config: TextConfig
    image_token_id: int = 151_655
    video_token_id: int = 151_656
    vision_start_token_id: int = 151_652
    vision_end_token_id: int = 151_653

    def __post_init__(self):
        if self.vision_config.hidden_size != self.text_config.hidden_size:
            raise ValueError(
                f"Qwen2VLConfig: visual tokens have {self.vision_config.hidden_size} channels, the "
                f"decoder {self.text_config.hidden_size}."
            )

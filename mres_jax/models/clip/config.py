"""Sizes of a CLIP tower."""

import dataclasses
from typing import Literal

from mres_jax.models.tower_config import CLIP_MEAN, CLIP_STD

RESIZES = ("none", "bicubic", "bicubic_antialias")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Vision tower. Field names follow the Hugging Face `config.json` of the same model.

    The defaults are those of openai/clip-vit-large-patch14-336.
    """

    hidden_size: int = 1_024  # channels
    intermediate_size: int = 4_096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 336  # side of the square that the table of positions is for, pixels
    patch_size: int = 14  # pixels
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD
    feature_layer: int = -2  # whose output is used: -1 the last, 0 what enters the first
    class_token: bool = True  # whether patches see one; its own output is dropped in any case
    position_resize: Literal["none", "bicubic", "bicubic_antialias"] = "bicubic"

    def __post_init__(self):
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"ClipConfig: num_attention_heads={self.num_attention_heads} does not divide "
                f"hidden_size={self.hidden_size}."
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"ClipConfig: image_size={self.image_size} is not whole patches of "
                f"{self.patch_size} px."
            )
        if not 0 <= self.num_layers_run <= self.num_hidden_layers:
            raise ValueError(
                f"ClipConfig: feature_layer={self.feature_layer} of {self.num_hidden_layers} "
                f"layers; have {-self.num_hidden_layers - 1} to {self.num_hidden_layers}."
            )
        if self.position_resize not in RESIZES:
            raise ValueError(
                f"ClipConfig: position_resize={self.position_resize!r}; have {', '.join(RESIZES)}."
            )

    @property
    def num_layers_run(self) -> int:
        """Layers that the features pass."""
        if self.feature_layer >= 0:
            return self.feature_layer
        return self.num_hidden_layers + 1 + self.feature_layer

    @property
    def table_side(self) -> int:
        """Rows and columns of the table of positions."""
        return self.image_size // self.patch_size

    @property
    def width(self) -> int:
        """Channels of a patch's features."""
        return self.hidden_size

    @property
    def spatial_merge_size(self) -> int:
        """Patches per side of one visual token."""
        return 1

    def flops(self, num_patches: list[int]) -> float:
        """FLOPs of views of so many patches; matrix products alone, as `inference.cost` counts."""
        rows = [n + self.class_token for n in num_patches]
        layer = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size
        run, size = self.num_layers_run, self.hidden_size
        embed = 3 * self.patch_size**2 * size * sum(num_patches)
        squares = 2 * size * sum(n * n for n in rows)
        return 2.0 * (embed + run * (layer * sum(rows) + squares))

"""Sizes that all vision towers have, and what an encoded view costs."""

import dataclasses
from typing import ClassVar

from mres_jax.geometry import Grid

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """A vision tower. Field names follow the Hugging Face `config.json` of the same model.

    Families name widths differently; `width`, `out_width` and `mlp_width` are the same in all.
    Products are multiply-adds.
    """

    WIDTH: ClassVar[str] = "hidden_size"  # field that holds `width`, for messages
    MLP_KERNELS: ClassVar[int] = 2  # 3 where one gates

    depth: int  # layers
    num_heads: int
    patch_size: int = 14  # pixels
    spatial_merge_size: int = 2  # patches per side of one visual token
    temporal_patch_size: int = 2  # frames
    in_channels: int = 3
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self):
        if self.width % (4 * self.num_heads):
            raise ValueError(
                f"VisionConfig: {self.WIDTH}={self.width} is not a multiple of 4 * num_heads="
                f"{4 * self.num_heads}: each head turns by row and by column."
            )
        if self.in_channels != 3:
            raise ValueError(f"VisionConfig: in_channels={self.in_channels}; pictures have 3.")

    @property
    def width(self) -> int:
        """Channels of a patch."""
        raise NotImplementedError

    @property
    def out_width(self) -> int:
        """Channels of a visual token as it leaves the tower."""
        raise NotImplementedError

    @property
    def mlp_width(self) -> int:
        """Channels inside a feed-forward block."""
        raise NotImplementedError

    @property
    def head_dim(self) -> int:
        """Head width."""
        return self.width // self.num_heads

    @property
    def stride(self) -> int:
        """Side of one visual token, pixels."""
        return self.patch_size * self.spatial_merge_size

    @property
    def block_width(self) -> int:
        """Channels of the patches of one visual token together."""
        return self.width * self.spatial_merge_size**2

    @property
    def patch_products(self) -> int:
        """Products for one patch of a still, attention left out."""
        layer = 4 * self.width**2 + self.MLP_KERNELS * self.width * self.mlp_width
        return 3 * self.patch_size**2 * self.width + self.depth * layer

    @property
    def token_products(self) -> int:
        """Products that make visual tokens of patches, for one of them."""
        return self.block_width * (self.block_width + self.out_width)

    def attended_pairs(self, grid: Grid) -> int:
        """Pairs of patches of a view that look at each other, in all layers together."""
        return self.depth * grid.t * (grid.h * grid.w) ** 2

"""Sizes of a ConvNeXt tower."""

import dataclasses
import math

from mres_jax.models.tower_config import CLIP_MEAN, CLIP_STD

STEM = 4  # pixels per side of one position after the stem; each later stage halves a side


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig:
    """Four stages; field names follow `ConvNextConfig` of `transformers`."""

    depths: tuple[int, ...]  # layers of each stage
    hidden_sizes: tuple[int, ...]  # channels of each stage
    layer_norm_eps: float = 1e-6
    mlp_ratio: int = 4
    kernel_size: int = 7  # positions per side
    layer_scale_init_value: float = 1e-6  # of fresh weights; small towers learn sooner with more
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self):
        if len(self.depths) != len(self.hidden_sizes) or not self.depths:
            raise ValueError(
                f"ConvNeXtConfig: {len(self.depths)} depths and {len(self.hidden_sizes)} "
                "hidden_sizes; there is one of each per stage."
            )
        if min(*self.depths, *self.hidden_sizes) < 1 or self.kernel_size % 2 == 0:
            raise ValueError(
                f"ConvNeXtConfig: depths={self.depths}, hidden_sizes={self.hidden_sizes} must be "
                f"at least 1, kernel_size={self.kernel_size} odd."
            )

    @property
    def stride(self) -> int:
        """Side of one position of the last stage, pixels."""
        return STEM * 2 ** (len(self.depths) - 1)

    @property
    def out_size(self) -> int:
        """Channels of the last stage."""
        return self.hidden_sizes[-1]

    def flops(self, height: int, width: int) -> float:
        """FLOPs of a picture of so many pixels; matrix products and convolutions alone."""
        positions = height * width / STEM**2
        total = 3 * STEM**2 * self.hidden_sizes[0] * positions
        for stage, (depth, size) in enumerate(zip(self.depths, self.hidden_sizes, strict=True)):
            if stage:
                positions /= 4
                total += 4 * self.hidden_sizes[stage - 1] * size * positions
            block = 2 * self.mlp_ratio * size**2 + self.kernel_size**2 * size
            total += depth * block * positions
        return math.fsum([2.0 * total])


def convnext_large() -> ConvNeXtConfig:
    """ConvNeXt-L: 196 M parameters; tower of LLaVA-HR."""
    return ConvNeXtConfig(depths=(3, 3, 27, 3), hidden_sizes=(192, 384, 768, 1_536))


def convnext_xxlarge() -> ConvNeXtConfig:
    """ConvNeXt-XXL: 843 M parameters; tower of LLaVA-HR-X."""
    return ConvNeXtConfig(
        depths=(3, 4, 30, 3), hidden_sizes=(384, 768, 1_536, 3_072), layer_norm_eps=1e-5
    )

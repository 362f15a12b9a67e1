"""Sizes of SigLIP towers."""

import dataclasses
import math

from mres_jax.geometry import Grid

HALVES = (0.5, 0.5, 0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SiglipConfig:
    """Vision tower. Field names follow the Hugging Face `config.json` of the same model.

    The defaults are those of SigLIP-base with patches of 16 px. Products are multiply-adds.
    """

    hidden_size: int = 768  # channels
    intermediate_size: int = 3_072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    patch_size: int = 16  # pixels
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    image_mean: tuple[float, float, float] = HALVES
    image_std: tuple[float, float, float] = HALVES
    spatial_merge_size: int = 1  # patches per side of one visual token, put side by side

    def __post_init__(self):
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"{type(self).__name__}: num_attention_heads={self.num_attention_heads} does not "
                f"divide hidden_size={self.hidden_size}."
            )

    @property
    def table_side(self) -> int:
        """Rows and columns of the table of positions."""
        raise NotImplementedError

    @property
    def temporal_patch_size(self) -> int:
        """Frames that are seen together."""
        return 1

    @property
    def width(self) -> int:
        """Channels of a patch's features."""
        return self.hidden_size

    @property
    def out_width(self) -> int:
        """Channels of a visual token as it leaves the tower."""
        return self.hidden_size * self.spatial_merge_size**2

    @property
    def stride(self) -> int:
        """Side of one visual token, pixels."""
        return self.patch_size * self.spatial_merge_size

    @property
    def patch_products(self) -> int:
        """Products for one patch, attention left out."""
        layer = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size
        return 3 * self.patch_size**2 * self.hidden_size + self.num_hidden_layers * layer

    @property
    def token_products(self) -> int:
        """Products that make visual tokens of patches: none."""
        return 0

    def attended_pairs(self, grid: Grid) -> int:
        """Pairs of patches of a view that look at each other, in all layers together."""
        return self.num_hidden_layers * grid.t * (grid.h * grid.w) ** 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquareConfig(SiglipConfig):
    """A tower for squares of one size, whose last pixels may be no whole patch."""

    image_size: int = 512  # pixels

    def __post_init__(self):
        super().__post_init__()
        if self.table_side < 1 or self.table_side % self.spatial_merge_size:
            raise ValueError(
                f"{type(self).__name__}: image_size={self.image_size} is {self.table_side} patches "
                f"of {self.patch_size} px a side, not whole blocks of {self.spatial_merge_size}."
            )

    @property
    def table_side(self) -> int:
        """Rows and columns of the table of positions."""
        return self.image_size // self.patch_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class NaflexConfig(SiglipConfig):
    """SigLIP2-NaFlex: pictures of any size and ratio, the table of positions resized to each.

    The defaults are those of google/siglip2-base-patch16-naflex.

    Reference:
      Tschannen et al., 2025, "SigLIP 2", arXiv:2502.14786, section 2.4.2.
    """

    num_patches: int = 256  # cells of the table of positions, a square

    def __post_init__(self):
        super().__post_init__()
        if self.table_side**2 != self.num_patches or self.num_patches < 1:
            raise ValueError(f"NaflexConfig: num_patches={self.num_patches} is no square.")

    @property
    def table_side(self) -> int:
        """Rows and columns of the table of positions."""
        return math.isqrt(max(self.num_patches, 0))


NAFLEX = {  # google/siglip2-base-patch16-naflex and google/siglip2-so400m-patch16-naflex
    "base": NaflexConfig(),
    "so400m": NaflexConfig(
        hidden_size=1_152,
        intermediate_size=4_304,
        num_hidden_layers=27,
        num_attention_heads=16,
    ),
}

"""Sizes of LLaVA-HR: two towers, what joins them, projector, decoder."""

import dataclasses
from typing import Literal

from mres_jax.models.clip.config import ClipConfig
from mres_jax.models.convnext.config import ConvNeXtConfig
from mres_jax.models.llama.config import LlamaConfig
from mres_jax.models.llava.config import ASPECTS
from mres_jax.nn.mr_adapter import MRAdapterOptions


def released_low() -> ClipConfig:
    """The ViT as LLaVA-HR runs it, which resizes its positions with antialias."""
    return ClipConfig(feature_layer=-1, class_token=False, position_resize="bicubic_antialias")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DualConfig:
    """Two towers and what joins them; the defaults are those of the released code.

    Attributes:
      low: ViT on the small picture. No class token: the released code drops it before the first
        layer, and runs all layers whatever its flag for the layer says.
      high: ConvNeXt on the large picture.
      input_image_size: side of the large picture, pixels.
      num_adapters: between equal groups of layers; 0 in the first stage of training.
      adapter: how they are built.
      direction: `high_to_low`, the ViT is told by the ConvNeXt's last map between its groups of
        layers; or `low_to_high`, the ConvNeXt is told by the ViT's features after each of its
        last stages (our reading of one row of the article's table 3: no code of it is public).
      final_fusion: `two_projections`, both towers' features projected and added (released code);
        or `high_projection`, the ViT's as they are (the article, eq. 3, adds them; their widths
        differ, so one is projected).

    Reference:
      Luo et al., 2024, "Feast Your Eyes", arXiv:2403.03003, section 3; luogen1996/LLaVA-HR.
    """

    low: ClipConfig = dataclasses.field(default_factory=released_low)
    high: ConvNeXtConfig
    input_image_size: int = 1_024
    num_adapters: int = 3
    adapter: MRAdapterOptions = dataclasses.field(default_factory=MRAdapterOptions)
    direction: Literal["high_to_low", "low_to_high"] = "high_to_low"
    final_fusion: Literal["two_projections", "high_projection"] = "two_projections"

    def __post_init__(self):
        for name, have in (
            ("direction", ("high_to_low", "low_to_high")),
            ("final_fusion", ("two_projections", "high_projection")),
        ):
            value = getattr(self, name)
            if value not in have:
                raise ValueError(f"DualConfig: {name}={value!r}; have {', '.join(have)}.")
        if self.low.class_token:
            raise ValueError("DualConfig: the ViT has no class token: low.class_token=False.")
        self._check_adapters()
        self._check_side()

    def _check_adapters(self) -> None:
        groups, layers = self.num_adapters + 1, self.low.num_layers_run
        stages = len(self.high.depths)
        if self.num_adapters < 0 or (self.direction == "high_to_low" and layers % groups):
            raise ValueError(
                f"DualConfig: num_adapters={self.num_adapters} cannot stand between equal groups "
                f"of the ViT's {layers} layers."
            )
        if self.direction == "low_to_high" and self.num_adapters > stages:
            raise ValueError(
                f"DualConfig: num_adapters={self.num_adapters}, but the ConvNeXt has {stages} "
                "stages."
            )

    def _check_side(self) -> None:
        side, stride = self.input_image_size, self.high.stride
        cells = side // stride
        if side < 1 or side % stride or self.grid_side % max(cells, 1):
            least = self.low.table_side
            small = [stride * n for n in range(1, least) if least % n == 0]
            raise ValueError(
                f"DualConfig: input_image_size={side} px; have multiples of {stride} from "
                f"{stride * least} on, and {', '.join(map(str, small))}: the {cells} x {cells} "
                f"positions of the ConvNeXt and the {self.grid_side} x {self.grid_side} patches of "
                "the ViT must divide each other."
            )

        if self.direction == "low_to_high":
            told = [cells * 2**n for n in range(self.num_adapters)]
            uneven = [n for n in told if n < self.grid_side and self.grid_side % n]
            if uneven:
                raise ValueError(
                    f"DualConfig: input_image_size={side} px with direction=low_to_high: the "
                    f"{self.grid_side} x {self.grid_side} patches of the ViT cannot tell a map of "
                    f"{uneven[0]} x {uneven[0]} positions. Use {stride * self.low.table_side} px."
                )

    @property
    def grid_side(self) -> int:
        """Patches per side of the small picture: one per position of the ConvNeXt at the least."""
        return max(self.input_image_size // self.high.stride, self.low.table_side)

    @property
    def patches_per_cell(self) -> int:
        """Patches per side for each position of the ConvNeXt's last map."""
        return self.grid_side * self.high.stride // self.input_image_size

    @property
    def is_aligned(self) -> bool:
        """Whether a patch stands for a position wherever one pathway tells the other."""
        told = self.direction == "low_to_high" and self.num_adapters > 1
        return self.patches_per_cell == 1 and not told

    @property
    def width(self) -> int:
        """Channels of a patch's features."""
        return self.low.hidden_size

    @property
    def spatial_merge_size(self) -> int:
        """Patches per side of one visual token."""
        return 1

    def flops(self, num_patches: list[int]) -> float:
        """FLOPs of views of so many patches; matrix products and convolutions alone."""
        patches, stride = sum(num_patches), self.high.stride
        cells = patches // self.patches_per_cell**2
        total = self.low.flops(num_patches) + cells * self.high.flops(stride, stride)
        d, c = self.low.hidden_size, self.high.out_size
        adapter = cells * (c * c + c * d) + patches * (49 * d + d * d)
        if self.direction == "high_to_low":
            total += 2.0 * self.num_adapters * adapter
        return total + 2.0 * (patches * d * d + cells * c * d)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaHRConfig:
    """The assembled model; fields as in `LlavaConfig`.

    With `image_aspect_ratio="native"`, which is ours, pictures keep their ratio: a view has at most
    the pixels of the square, and as many patches as positions of the ConvNeXt. A square is seen as
    by the released model.
    """

    vision_config: DualConfig
    text_config: LlamaConfig
    image_token_index: int = -1  # Vicuna's vocabulary has no token for pictures
    image_aspect_ratio: Literal["pad", "square", "native"] = "pad"

    def __post_init__(self):
        vision, have = self.vision_config, (*ASPECTS, "native")
        if self.image_aspect_ratio not in have:
            raise ValueError(
                f"LlavaHRConfig: image_aspect_ratio={self.image_aspect_ratio!r}; have "
                f"{', '.join(have)}."
            )
        if self.image_aspect_ratio == "native" and not vision.is_aligned:
            least = vision.low.table_side * vision.high.stride
            raise ValueError(
                f"LlavaHRConfig: image_aspect_ratio=native with input_image_size="
                f"{vision.input_image_size} and direction={vision.direction}; maps that would have "
                f"to be resized take squares only. Use at least {least} px and high_to_low."
            )

    @property
    def image_token_id(self) -> int:
        """As other families call it."""
        return self.image_token_index

    def encoder_flops(self, num_patches: list[int]) -> float:
        """FLOPs from views of so many patches to visual tokens at the decoder's width."""
        out = self.text_config.hidden_size
        projector = out * (self.vision_config.low.hidden_size + out)
        return self.vision_config.flops(num_patches) + 2.0 * sum(num_patches) * projector

"""Sizes of NativeRes-LLaVA: tower, projector, decoder."""

import dataclasses

from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2_vl.config import VisionConfig
from mres_jax.models.siglip.config import NaflexConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class NativeResLlavaConfig:
    """The assembled model. The decoder has plain rotary positions.

    The tower is Qwen2-VL's, as released, or SigLIP2-NaFlex, which the released code planned and
    left out.
    """

    vision_config: VisionConfig | NaflexConfig
    text_config: TextConfig
    mm_projector_type: str = "mlp2x_gelu"
    image_token_id: int = 151_655  # stands where the released code has -200
    min_image_tokens: int = 4  # visual tokens of the smallest view
    max_image_tokens: int = 4_096

    def __post_init__(self):
        if self.mm_projector_type != "mlp2x_gelu":
            raise ValueError(
                f"NativeResLlavaConfig: mm_projector_type={self.mm_projector_type!r}; "
                "have mlp2x_gelu."
            )
        if self.text_config.mrope_section is not None:
            raise ValueError(
                "NativeResLlavaConfig: the decoder has plain rotary: mrope_section=None."
            )

    @property
    def mm_hidden_size(self) -> int:
        """Channels of a visual token before the projector."""
        return self.vision_config.out_width

"""Sizes of LLaVA-1.5: tower, projector, decoder."""

import dataclasses
from typing import Literal

from mres_jax.models.clip.config import ClipConfig
from mres_jax.models.llama.config import LlamaConfig

ASPECTS = {"pad": "pad", "square": "crop"}  # `image_aspect_ratio` -> mode of the policy `fixed`


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaConfig:
    """The assembled model.

    Attributes:
      vision_config: tower.
      text_config: decoder.
      image_token_index: id of a picture's token; out of the vocabulary in files that have none.
      input_image_size: side of the only square that pictures are shown as, pixels; None takes any
        size, with the positions resized.
      image_aspect_ratio: what the model is asked with where nobody names a policy: `pad`, squares
        padded with the mean colour, or `square`, the middle square of the picture.
    """

    vision_config: ClipConfig
    text_config: LlamaConfig
    image_token_index: int = 32_000
    input_image_size: int | None = 336
    image_aspect_ratio: Literal["pad", "square"] = "pad"

    def __post_init__(self):
        name, vision = type(self).__name__, self.vision_config
        if self.image_aspect_ratio not in ASPECTS:
            raise ValueError(
                f"{name}: image_aspect_ratio={self.image_aspect_ratio!r}; have "
                f"{', '.join(ASPECTS)}."
            )
        side = self.input_image_size
        if side is not None and (side < 1 or side % vision.patch_size):
            near = max(1, round(side / vision.patch_size)) * vision.patch_size
            raise ValueError(
                f"{name}: input_image_size={side} is not whole patches of {vision.patch_size} px. "
                f"Use {near}."
            )
        if vision.position_resize == "none" and side != vision.image_size:
            raise ValueError(
                f"{name}: input_image_size={side}, but the table of positions is for "
                f"{vision.image_size} px and position_resize=none. Let it be bicubic."
            )

    @property
    def image_token_id(self) -> int:
        """As other families call it."""
        return self.image_token_index

    def encoder_flops(self, num_patches: list[int]) -> float:
        """FLOPs from views of so many patches to visual tokens at the decoder's width."""
        out = self.text_config.hidden_size
        projector = out * (self.vision_config.hidden_size + out)
        return self.vision_config.flops(num_patches) + 2.0 * sum(num_patches) * projector

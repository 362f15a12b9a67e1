"""Sizes of LLaVA-NeXT: those of LLaVA-1.5 and the canvases that pictures are tiled on."""

import dataclasses

from mres_jax.models.llava.config import LlavaConfig

PINPOINTS = ((336, 672), (672, 336), (672, 672), (1_008, 336), (336, 1_008))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaNextConfig(LlavaConfig):
    """The assembled model; `image_grid_pinpoints` are heights and widths, pixels."""

    image_grid_pinpoints: tuple[tuple[int, int], ...] = PINPOINTS

    def __post_init__(self):
        super().__post_init__()
        side = self.vision_config.image_size
        if self.input_image_size != side:
            raise ValueError(
                f"LlavaNextConfig: input_image_size={self.input_image_size}; a tile has the size "
                f"of the table of positions, {side} px."
            )
        wrong = [pair for pair in self.image_grid_pinpoints if any(n < 1 or n % side for n in pair)]
        if wrong or not self.image_grid_pinpoints:
            found = f"{wrong[0][0]} x {wrong[0][1]}" if wrong else "nothing"
            raise ValueError(
                f"LlavaNextConfig: image_grid_pinpoints has {found}; each is whole tiles of "
                f"{side} px, height and width."
            )

"""What a model's processor tells the host side. Filled by `models/<family>/processor.py`."""

import dataclasses
from typing import Literal

from mres_jax.geometry import Grid


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """Trusted text around the turns of a chat; `{role}` is `system`, `user` or `assistant`.

    Trusted parts are encoded with control tokens on, what users write with control tokens off.
    """

    system: str | None  # default system prompt
    turn_open: str  # "<|im_start|>{role}\n"
    turn_close: str  # "<|im_end|>\n"
    image_open: str  # before the visual tokens of one view
    image_close: str  # after them
    after_images: str = ""  # between the last picture of a turn and its text


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessorSpec:
    """How pictures and text become the input of one model."""

    patch_size: int  # pixels
    merge_size: int  # patches per side of one visual token
    temporal_patch_size: int  # frames
    mean: tuple[float, float, float]  # of pixel values / 255
    std: tuple[float, float, float]
    min_pixels: int  # smallest and largest view the model is meant for
    max_pixels: int
    image_token_id: int
    pad_token_id: int
    eos_token_ids: tuple[int, ...]
    reserved_token_ids: tuple[int, ...]  # vision placeholders: never sampled
    template: ChatTemplate
    position_rule: Literal["plain", "mrope"]
    coord_frame: Literal["relative_1000", "relative_1", "resized_px"]
    accepts: frozenset[str] = frozenset({"image"})  # kinds of views, see `View.kind`
    image_size: int | None = None  # side of the only square a fixed tower takes, pixels
    resize_rule: Literal["fit", "hf"] = "fit"  # native sizes: ours, or exactly Hugging Face's
    window_side: int | None = None  # of attention windows, visual tokens; None: no windows
    position_side: int | None = None  # of a learned table of positions; None: no such table

    @property
    def stride(self) -> int:
        """Side of one visual token, pixels."""
        return self.patch_size * self.merge_size

    @property
    def patch_row_size(self) -> int:
        """Values of one still patch row."""
        return 3 * self.patch_size**2

    def num_visual_tokens(self, grid: Grid) -> int:
        """Visual tokens of one view."""
        return grid.num_visual_tokens(self.merge_size)

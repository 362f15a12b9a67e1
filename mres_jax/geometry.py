"""Integers of pictures: grids, sizes, boxes, views. Pixels and arrays live elsewhere."""

import dataclasses
from typing import NamedTuple


class Size(NamedTuple):
    """Extent of a picture, pixels."""

    height: int
    width: int

    @property
    def area(self) -> int:
        """Pixels."""
        return self.height * self.width


class Box(NamedTuple):
    """Half-open rectangle, pixels of the original upright picture."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> Size:
        """Extent of the box."""
        return Size(self.bottom - self.top, self.right - self.left)


class Grid(NamedTuple):
    """Patch counts of one view: temporal patches, rows, columns (Hugging Face's `grid_thw`)."""

    t: int
    h: int
    w: int

    @property
    def num_patches(self) -> int:
        """Patches of the view."""
        return self.t * self.h * self.w

    def num_visual_tokens(self, merge_size: int) -> int:
        """Visual tokens that the decoder receives."""
        return self.num_patches // merge_size**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """One rectangle of one item at one size: the only thing a resolution policy says.

    Attributes:
      item: index of the picture in its request.
      crop: what is looked at, pixels of the original upright picture.
      size: what `crop` is resized to, pixels.
      canvas: when set, the resized crop is centred on a grey canvas of this size, pixels.
      time: seconds, for a frame of a clip.
      group: views of one group are one item to the reader (the frames of a clip, the tiles of a page).
      tile: index of a tile in its group; None when the view is not a tile.
    """

    item: int
    crop: Box
    size: Size
    canvas: Size | None = None
    time: float | None = None
    group: int = 0
    tile: int | None = None

    @property
    def encoded_size(self) -> Size:
        """What the encoder receives, pixels."""
        return self.canvas or self.size

    @property
    def kind(self) -> str:
        """`image`, `tile` or `frame`: what `ProcessorSpec.accepts` lists."""
        if self.tile is not None:
            return "tile"
        return "image" if self.time is None else "frame"

    def grid(self, patch_size: int) -> Grid:
        """Patch counts of a still view."""
        size = self.encoded_size
        return Grid(1, size.height // patch_size, size.width // patch_size)

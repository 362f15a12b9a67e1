"""Integers of pictures: grids, sizes, boxes, views, block order. Pixels live elsewhere."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from mres_jax.errors import MresError

MAX_HF_ASPECT_RATIO = 200  # beyond it Hugging Face's rule refuses a picture


class Size(NamedTuple):
    """Extent of a picture, pixels."""

    height: int
    width: int

    @property
    def area(self) -> int:
        """Pixels."""
        return self.height * self.width


class ClipSize(NamedTuple):
    """Extent of a clip: all its frames have one size."""

    size: Size
    times: tuple[float, ...]  # of each frame, seconds, ascending
    seconds: float | None = None  # of the whole video; None: up to the last of its frames

    @property
    def length(self) -> float:
        """Of the whole video, seconds."""
        return self.times[-1] if self.seconds is None else self.seconds

    def groups(self, frames: int) -> list[tuple[int, ...]]:
        """Returns the frames that are seen together, `frames` at a time; the last is repeated.

        Example:
          >>> ClipSize(Size(8, 8), (0.0, 0.5, 1.0)).groups(2)
          [(0, 1), (2, 2)]
        """
        last = len(self.times) - 1
        return [
            tuple(min(start + k, last) for k in range(frames))
            for start in range(0, len(self.times), frames)
        ]

    def middles(self, frames: int) -> list[float]:
        """Returns the time of each of the `groups`, seconds."""
        ends = ((group[0], group[-1]) for group in self.groups(frames))
        return [(self.times[first] + self.times[last]) / 2 for first, last in ends]


Extent = Size | ClipSize  # of one item: a picture or a clip


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

    def holds(self, other: "Box") -> bool:
        """Whether all of another box lies in this one."""
        return (
            self.top <= other.top
            and self.left <= other.left
            and other.bottom <= self.bottom
            and other.right <= self.right
        )


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
      item: index of the picture or clip in its request.
      crop: what is looked at, pixels of the original upright picture.
      size: what `crop` is resized to, pixels.
      through: sizes that it is resized to before that, one after the other, pixels: released models
        were trained behind processors that resample more than once.
      canvas: when set, the resized crop is centred on a canvas of this size, pixels.
      window: when set, only this part is shown of the resized crop, or of its canvas, pixels.
      time: seconds, of what is seen of a clip: the middle of its frames.
      clip_seconds: of the whole clip, for models that are told it.
      frames: which frames of a clip are seen together, as many as the encoder takes at a time; none
        for a picture.
      group: views of one group are one item to the reader (frames of a clip, tiles of a page).
      tile: index of a tile in its group; None when the view is not a tile.
    """

    item: int
    crop: Box
    size: Size
    canvas: Size | None = None
    window: Box | None = None
    time: float | None = None
    clip_seconds: float | None = None
    through: tuple = ()  # of Size
    frames: tuple = ()  # of int; run-time checkers would draw one of tuple[int, ...] at random
    group: int = 0
    tile: int | None = None

    @property
    def encoded_size(self) -> Size:
        """What the encoder receives, pixels."""
        return self.window.size if self.window else self.canvas or self.size

    @property
    def kind(self) -> str:
        """`image`, `tile` or `frame`: what `ProcessorSpec.accepts` lists."""
        if self.tile is not None:
            return "tile"
        return "image" if self.time is None and not self.frames else "frame"

    def grid(self, patch_size: int) -> Grid:
        """Patch counts; the frames that are seen together count as one."""
        size = self.encoded_size
        return Grid(1, size.height // patch_size, size.width // patch_size)


def fit_size(
    height: int,
    width: int,
    *,
    stride: int,
    min_pixels: int,
    max_pixels: int,
    hf_compat: bool = False,
) -> Size:
    """Returns the size at which a picture is looked at: whole visual tokens, within a budget.

    Ours: both sides are at least one stride and the area never exceeds `max_pixels`. A picture
    whose sides, each rounded to the nearest stride, lie within the limits gets that size, as with
    Hugging Face. Any other is scaled onto the nearer limit, and of the sizes around that exact one
    the best is taken: within the budget always, above `min_pixels` if any is, and of those the one
    with the least error (an error of the aspect ratio counts twice an error of the area).

    `hf_compat`: exactly what Hugging Face does, faults included: the area may exceed `max_pixels`
    for thin strips and fall below `min_pixels`.

    Args:
      height: of the picture, pixels.
      width: of the picture, pixels.
      stride: side of one visual token, pixels (`patch_size * merge_size`).
      min_pixels: smallest area, pixels; smaller pictures are enlarged.
      max_pixels: the budget, pixels; at least `stride**2`.
      hf_compat: the rule of `transformers` 5.x instead of ours.

    Raises:
      MresError: a side or limit that cannot be; with `hf_compat`, a ratio of sides above 200.

    Example:
      >>> fit_size(1080, 1920, stride=28, min_pixels=3_136, max_pixels=1_003_520)
      Size(height=756, width=1316)
      >>> fit_size(28, 5_600, stride=28, min_pixels=3_136, max_pixels=78_400)
      Size(height=28, width=2800)

    Reference:
      `smart_resize` of the Qwen2-VL image processor in `transformers` 5.23 (`hf_compat`); Wang et
      al., 2024, "Qwen2-VL", arXiv:2409.12191, section 2.1.
    """
    _check_fit(height, width, stride, min_pixels, max_pixels)
    if hf_compat:
        return _fit_size_hf(height, width, stride, min_pixels, max_pixels)
    most = max_pixels // stride**2  # visual tokens
    least = min(-(-min_pixels // stride**2), most)
    exact = height / stride, width / stride  # rows and columns of visual tokens
    rows, columns = max(1, round(exact[0])), max(1, round(exact[1]))
    if rows * columns > most:
        scale = min(1.0, math.sqrt(max_pixels / (height * width)))
    elif rows * columns < least:
        scale = max(1.0, math.sqrt(min_pixels / (height * width)))
    else:
        return Size(rows * stride, columns * stride)
    rows, columns = _nearest_grid(exact[0] * scale, exact[1] * scale, least, most)
    return Size(rows * stride, columns * stride)


def naflex_size(height: int, width: int, *, stride: int, max_tokens: int) -> Size:
    """Returns the size at which SigLIP2 looks at a picture: it fills a budget, small ones too.

    Both sides are scaled alike and rounded up to whole strides; the scale is the largest one found
    by bisection that stays within the budget. Nothing is enlarged more than a hundred times.

    Args:
      height: of the picture, pixels.
      width: of the picture, pixels.
      stride: side of one visual token, pixels.
      max_tokens: the budget, visual tokens.

    Raises:
      MresError: a side or a budget of less than 1.

    Example:
      >>> naflex_size(480, 640, stride=16, max_tokens=256)
      Size(height=224, width=288)

    Reference:
      Tschannen et al., 2025, "SigLIP 2", arXiv:2502.14786, section 2.4.2;
      `get_image_size_for_max_num_patches` of `transformers` 5.23, whose steps this keeps.
    """
    _check_fit(height, width, stride, 0, max_tokens * stride**2)

    def at(scale: float) -> Size:
        sides = (math.ceil(side * scale / stride) * stride for side in (height, width))
        return Size(*(max(stride, side) for side in sides))

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        scale = (low + high) / 2
        fits = at(scale).area <= max_tokens * stride**2
        low, high = (scale, high) if fits else (low, scale)
    return at(low)


def block_order(rows: int, columns: int, merge_size: int) -> np.ndarray:
    """Returns the raster index of each patch in block order.

    Merge blocks follow each other by row, and so do the patches within a block.

    Args:
      rows: patches.
      columns: patches.
      merge_size: patches per side of one visual token.

    Returns:
      `int32 [p]`.

    Raises:
      MresError: a side that is not whole blocks.

    Example:
      >>> block_order(2, 4, 2).tolist()
      [0, 1, 4, 5, 2, 3, 6, 7]
    """
    if merge_size < 1 or rows % merge_size or columns % merge_size or min(rows, columns) < 0:
        raise MresError(
            f"block order: {rows} x {columns} patches are not whole blocks of "
            f"{merge_size} x {merge_size}."
        )
    raster = np.arange(rows * columns, dtype=np.int32)
    blocks = raster.reshape(rows // merge_size, merge_size, columns // merge_size, merge_size)
    return blocks.transpose(0, 2, 1, 3).reshape(-1)


def _check_fit(height: int, width: int, stride: int, min_pixels: int, max_pixels: int) -> None:
    if height < 1 or width < 1 or stride < 1:
        raise MresError(
            f"fit size: a picture of {width} x {height} px and a stride of {stride} px; each side "
            "must be at least 1."
        )
    if max_pixels < stride**2:
        raise MresError(
            f"fit size: max_pixels={max_pixels} is less than one visual token of {stride} x "
            f"{stride} = {stride**2} px. Raise max_pixels."
        )
    if not 0 <= min_pixels <= max_pixels:
        raise MresError(
            f"fit size: min_pixels={min_pixels} must lie between 0 and max_pixels={max_pixels}."
        )


def _fit_size_hf(height: int, width: int, stride: int, min_pixels: int, max_pixels: int) -> Size:
    ratio = max(height, width) / min(height, width)
    if ratio > MAX_HF_ASPECT_RATIO:
        raise MresError(
            f"fit size: a picture of {width} x {height} px has a ratio of {ratio:.1f}, but Hugging "
            f"Face's rule takes at most {MAX_HF_ASPECT_RATIO}. Crop it, or use hf_compat=False."
        )
    # The order of operations is theirs to the last rounding: a multiple of the stride sits right
    # on the edge of floor and ceil. round() is to even, so half a stride becomes 0.
    rows, columns = round(height / stride), round(width / stride)
    area = rows * columns * stride**2
    if area > max_pixels:
        shrink = math.sqrt((height * width) / max_pixels)
        rows = max(1, math.floor(height / shrink / stride))
        columns = max(1, math.floor(width / shrink / stride))
    elif area < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / stride)
        columns = math.ceil(width * grow / stride)
    if not rows or not columns:
        raise MresError(
            f"fit size: Hugging Face's rule gives {width} x {height} px a side of 0 at min_pixels="
            f"{min_pixels}. Raise min_pixels, or use hf_compat=False."
        )
    return Size(rows * stride, columns * stride)


def _nearest_grid(rows: float, columns: float, least: int, most: int) -> tuple[int, int]:
    """The whole grid next to an exact one: at most `most` visual tokens, at least `least` if so."""
    tall, wide = (
        [(n, math.log(n / exact)) for n in {max(1, math.floor(exact)), max(1, math.ceil(exact))}]
        for exact in (rows, columns)
    )
    around = [
        (r * c < least, 4 * (dr - dc) ** 2 + (dr + dc) ** 2, r, c)
        for r, dr in tall
        for c, dc in wide
        if r * c <= most
    ]
    if not around:  # a strip one token thick, and too long: its length is what the budget leaves
        return (1, most) if columns > rows else (most, 1)
    return min(around)[2:]

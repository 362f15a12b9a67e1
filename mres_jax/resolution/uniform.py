"""Policies that need nothing but sizes: native, fixed, scale, budget.

One view per picture, and one per group of frames of a clip, whose views all have one size.
"""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import PolicyError, suggest
from mres_jax.geometry import Box, ClipSize, Extent, Size, View, fit_size, naflex_size
from mres_jax.resolution.clips import clip_views, frame_limits, native_clip_size, share_tokens
from mres_jax.resolution.policy import Policy


def native_size(size: Extent, spec: ProcessorSpec) -> Size:
    """Returns what the model's own rule makes of a picture or of each frame of a clip, pixels.

    The rule is ours (`resize_rule="fit"`: never above `max_pixels`) or exactly Hugging Face's, that
    of Qwen2-VL (`hf`) or of SigLIP2 (`naflex`); a model that takes only one size has no other.
    """
    if isinstance(size, ClipSize):
        return native_clip_size(size, spec)
    if spec.image_size is not None:
        return Size(spec.image_size, spec.image_size)
    largest = min(spec.max_pixels, spec.native_pixels or spec.max_pixels)
    if spec.resize_rule == "naflex":
        return naflex_size(*size, stride=spec.stride, max_tokens=largest // spec.stride**2)
    return fitted(
        size,
        spec,
        min_pixels=spec.min_pixels,
        max_pixels=largest,
        hf_compat=spec.resize_rule == "hf",
    )


def fitted(
    size: Size, spec: ProcessorSpec, *, min_pixels: int, max_pixels: int, hf_compat: bool = False
) -> Size:
    """Returns `fit_size` of a picture for a model, whose canvases may allow less.

    Where no canvas holds that size, it is the largest of the same ratio that one does.
    """
    size = fit_size(
        *size,
        stride=spec.stride,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        hf_compat=hf_compat,
    )
    shapes = spec.canvas.shapes if spec.canvas else ()
    if not shapes or any(size.height <= s.height and size.width <= s.width for s in shapes):
        return size
    return max((_inside(shape, size, spec.stride) for shape in shapes), key=lambda s: s.area)


def _inside(shape: Size, size: Size, stride: int) -> Size:
    """The largest size of a ratio, in whole strides, that a canvas holds; no side grows."""
    scale = min(Fraction(most, side) for most, side in zip(shape, size, strict=True))
    return Size(*(max(1, round(side * scale / stride)) * stride for side in size))


def scaled_size(
    extent: Extent, factor: float, spec: ProcessorSpec, *, min_pixels: int | None = None
) -> Size:
    """Returns the native size with both sides times a factor, pixels.

    It stays within the model's limits, unless the native size does not.

    Args:
      extent: of a picture or clip.
      factor: per side.
      spec: of the model; above native size `max_pixels` holds, not `native_pixels`.
      min_pixels: smallest view, where the model's limit for the item is above it.
    """
    native = native_size(extent, spec)
    if factor == 1:
        return native
    smallest, largest = _limits(extent, spec)
    smallest = min(smallest, min_pixels or smallest)
    # Sides beyond max_pixels are all the same to `fit_size`; this keeps them finite.
    factor = min(factor, largest)
    return fitted(
        Size(*(max(1, round(side * factor)) for side in native)),
        spec,
        min_pixels=min(smallest, native.area),
        max_pixels=max(largest, native.area),
    )


def whole_view(item: int, size: Size, target: Size, canvas: Size | None = None) -> View:
    """Returns the view of a whole picture."""
    return View(item=item, crop=Box(0, 0, *size), size=target, canvas=canvas, group=item)


def whole_views(
    item: int, extent: Extent, target: Size, spec: ProcessorSpec, canvas: Size | None = None
) -> list[View]:
    """Returns the view of a whole picture, or the views of a whole clip."""
    if isinstance(extent, ClipSize):
        return clip_views(item, extent, target, spec, canvas)
    return [whole_view(item, extent, target, canvas)]


class Uniform(Policy):
    """A policy that chooses one size for each item, from the item's size alone."""

    takes_clips: ClassVar[bool] = True

    def __call__(self, sizes: Sequence[Extent], question: str, spec: ProcessorSpec) -> list[View]:
        """Returns one view per picture, and per group of frames of a clip."""
        return [
            view
            for i, extent in enumerate(sizes)
            for view in whole_views(i, extent, self.target(extent, spec), spec)
        ]

    def target(self, extent: Extent, spec: ProcessorSpec) -> Size:
        """Returns the size at which a picture or each frame of a clip is looked at."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Native(Uniform):
    """Every item at its own size and aspect ratio, within the model's limits.

    Reference:
      Niu et al., 2025, "Native Visual Understanding", arXiv:2506.12776.
    """

    name: ClassVar[str] = "native"
    example: ClassVar[str] = "native"

    def target(self, extent: Extent, spec: ProcessorSpec) -> Size:
        """Returns the native size."""
        return native_size(extent, spec)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget(Uniform):
    """Native size, shrunk where an item would cost more than `tokens` visual tokens.

    A clip has the budget for all its frames. An item is never enlarged for it. The budget holds
    even where it is below the smallest view that the model is meant for.
    """

    name: ClassVar[str] = "budget"
    example: ClassVar[str] = "budget:256"
    value: ClassVar[str] = "tokens"
    tokens: int

    def __post_init__(self):
        _at_least_one(self.name, "tokens", self.tokens)

    def target(self, extent: Extent, spec: ProcessorSpec) -> Size:
        """Returns a size within the budget."""
        size, tokens = _each(extent, self.tokens, spec, self)
        return within_budget(size, native_size(extent, spec), tokens, spec)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale(Uniform):
    """Both sides of the native size times a factor; retention is about its square."""

    name: ClassVar[str] = "scale"
    example: ClassVar[str] = "scale:0.5"
    value: ClassVar[str] = "factor"
    factor: float  # per side

    def __post_init__(self):
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise PolicyError(
                f"policy scale: factor={self.factor} must be above 0, for example 0.5."
            )

    def target(self, extent: Extent, spec: ProcessorSpec) -> Size:
        """Returns the scaled size."""
        return scaled_size(extent, self.factor, spec)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fixed(Uniform):
    """Every picture at one cost.

    `fixed:336` squashes it into a square of 336 px; `mode=pad` keeps the ratio and pads with the
    model's background (grey unless it was trained with another); `mode=crop` fits the shorter side
    and keeps the middle; `mode=keep` keeps the ratio at about the same number of pixels.
    `fixed,tokens=182` keeps the ratio at about 182 visual tokens, as the fixed rows of
    NativeRes-LLaVA do ("378 x 378"). Sides
    are those of each frame of a clip, tokens those of all its frames.
    """

    name: ClassVar[str] = "fixed"
    example: ClassVar[str] = "fixed:336,mode=pad"
    value: ClassVar[str] = "side"
    side: int | None = None  # pixels
    mode: str | None = None
    tokens: int | None = None

    def __post_init__(self):
        modes = ("squash", "pad", "crop", "keep")
        if (self.side is None) == (self.tokens is None):
            raise PolicyError(
                "policy fixed: give a side in pixels (fixed:336) or visual tokens "
                f"(fixed,tokens=182), got {'neither' if self.side is None else 'both'}."
            )
        if self.tokens is not None:
            _at_least_one(self.name, "tokens", self.tokens)
            if self.mode not in (None, "keep"):
                raise PolicyError(
                    f"policy fixed: tokens keeps the ratio, so mode={self.mode} cannot be."
                )
        else:
            _at_least_one(self.name, "side", self.side or 0)
            if self.mode not in (None, *modes):
                raise PolicyError(
                    f"policy fixed: unknown mode {self.mode!r}{suggest(self.mode, modes)}; "
                    f"have {', '.join(modes)}."
                )
        # one spelling for one meaning
        default = "squash" if self.tokens is None else "keep"
        if self.mode == default:
            object.__setattr__(self, "mode", None)

    @property
    def square(self) -> bool:
        """Whether every view is a square."""
        return self.tokens is None and self.mode != "keep"

    def check(self, spec: ProcessorSpec) -> None:
        """Raises `PolicyError` if the side does not suit the model."""
        if not self.square or spec.image_size is None:
            if spec.image_size is not None or "image" not in spec.accepts:
                super().check(spec)
        elif self.side != spec.image_size:
            raise PolicyError(
                f"policy {self}: the model takes only {spec.image_size} x {spec.image_size} px. "
                f"Use fixed:{spec.image_size}."
            )
        if self.side is not None and self.side % spec.stride:
            near = max(1, round(self.side / spec.stride)) * spec.stride
            raise PolicyError(
                f"policy {self}: {self.side} px is not a multiple of the {spec.stride} px of a "
                f"visual token. Use fixed:{near}."
            )
        pixels = (self.tokens or 0) * spec.stride**2 or (self.side or 0) ** 2
        if pixels > spec.max_pixels:
            raise PolicyError(
                f"policy {self}: {pixels} px are more than the model's max_pixels="
                f"{spec.max_pixels}."
            )

    def __call__(self, sizes: Sequence[Extent], question: str, spec: ProcessorSpec) -> list[View]:
        """Returns one view per picture, and per group of frames of a clip."""
        self.check(spec)
        views = []
        for item, extent in enumerate(sizes):
            if self.mode == "crop":
                views.append(self._middle(item, extent))
                continue
            size = extent.size if isinstance(extent, ClipSize) else extent
            target = self.target(extent, spec)
            is_padded = self.mode == "pad" and size.height != size.width
            canvas = Size(self.side or 0, self.side or 0) if is_padded else None
            views += whole_views(item, extent, target, spec, canvas)
        return views

    def target(self, extent: Extent, spec: ProcessorSpec) -> Size:
        """Returns the size, on a canvas of `side` where it is padded."""
        size, tokens = _each(extent, self.tokens, spec, self)
        pixels = tokens * spec.stride**2 or (self.side or 0) ** 2
        if isinstance(extent, ClipSize) and pixels > (most := _limits(extent, spec)[1]):
            raise PolicyError(
                f"policy {self}: {pixels} px are more than the {most} px that the model has for "
                f"each of {len(extent.times)} frames. Choose fewer, or look at fewer frames."
            )
        if self.square:
            assert self.side is not None
            square = Size(self.side, self.side)
            if self.mode != "pad":
                return square
            scale = self.side / max(size)
            return Size(*(min(self.side, max(1, round(side * scale))) for side in size))
        return fitted(
            size,
            spec,
            min_pixels=pixels,
            max_pixels=pixels,
            hf_compat=spec.resize_rule == "hf",
        )

    def _middle(self, item: int, size: Extent) -> View:
        """The middle square of a picture whose shorter side becomes `side`."""
        if isinstance(size, ClipSize):
            raise PolicyError(f"policy {self}: mode=crop is for pictures, item {item} is a clip.")
        side, short = self.side or 0, min(size)
        inner = Size(*(side if extent == short else int(side * extent / short) for extent in size))
        view = whole_view(item, size, inner)
        if inner == (side, side):
            return view
        top, left = ((extent - side) // 2 for extent in inner)
        window = Box(top, left, top + side, left + side)
        return dataclasses.replace(view, window=window)


def within_budget(size: Size, target: Size, tokens: int, spec: ProcessorSpec) -> Size:
    """Returns `target`, or the largest fit of a picture of `size` within so many visual tokens."""
    pixels = tokens * spec.stride**2
    if target.area <= pixels:
        return target
    return fitted(
        size,
        spec,
        min_pixels=min(spec.min_pixels, pixels),
        max_pixels=pixels,
    )


def _each(
    extent: Extent, tokens: int | None, spec: ProcessorSpec, policy: Policy
) -> tuple[Size, int]:
    """Size of a view's crop, and its share of an item's visual tokens; 0 where none are given."""
    if not isinstance(extent, ClipSize):
        return extent, tokens or 0
    return extent.size, share_tokens(tokens, extent, spec, policy=policy) if tokens else 0


def _limits(extent: Extent, spec: ProcessorSpec) -> tuple[int, int]:
    """Smallest and largest view of an item, pixels."""
    if isinstance(extent, ClipSize):
        return frame_limits(len(extent.times), spec)
    return spec.min_pixels, spec.max_pixels


def _at_least_one(policy: str, field: str, value: int) -> None:
    if value < 1:
        raise PolicyError(f"policy {policy}: {field}={value} must be at least 1.")

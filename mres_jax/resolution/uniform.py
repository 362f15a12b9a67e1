"""Policies that need nothing but sizes: native, fixed, scale, budget. One view per picture."""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import PolicyError, suggest
from mres_jax.geometry import Box, Size, View, fit_size
from mres_jax.resolution.policy import Policy


def native_size(size: Size, spec: ProcessorSpec) -> Size:
    """Returns what the model's own rule makes of a picture, pixels.

    The rule is ours (`resize_rule="fit"`: never above `max_pixels`) or exactly Hugging Face's; a
    model that takes only one size has no other.
    """
    if spec.image_size is not None:
        return Size(spec.image_size, spec.image_size)
    return fit_size(
        size.height,
        size.width,
        stride=spec.stride,
        min_pixels=spec.min_pixels,
        max_pixels=spec.max_pixels,
        hf_compat=spec.resize_rule == "hf",
    )


def whole_view(item: int, size: Size, target: Size, canvas: Size | None = None) -> View:
    """Returns the view of a whole picture."""
    return View(item=item, crop=Box(0, 0, *size), size=target, canvas=canvas, group=item)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Native(Policy):
    """Every picture at its own size and aspect ratio, within the model's limits.

    Reference:
      Niu et al., 2025, "Native Visual Understanding", arXiv:2506.12776.
    """

    name: ClassVar[str] = "native"
    example: ClassVar[str] = "native"

    def __call__(self, sizes: Sequence[Size], question: str, spec: ProcessorSpec) -> list[View]:
        """Returns one view per picture."""
        return [whole_view(i, s, native_size(s, spec)) for i, s in enumerate(sizes)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget(Policy):
    """Native size, shrunk where a picture would cost more than `tokens` visual tokens.

    A picture is never enlarged for it. The budget holds even where it is below the smallest view
    that the model is meant for.
    """

    name: ClassVar[str] = "budget"
    example: ClassVar[str] = "budget:256"
    value: ClassVar[str] = "tokens"
    tokens: int

    def __post_init__(self):
        _at_least_one(self.name, "tokens", self.tokens)

    def __call__(self, sizes: Sequence[Size], question: str, spec: ProcessorSpec) -> list[View]:
        """Returns one view per picture, none above the budget."""
        return [
            whole_view(i, s, within_budget(s, native_size(s, spec), self.tokens, spec))
            for i, s in enumerate(sizes)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale(Policy):
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

    def __call__(self, sizes: Sequence[Size], question: str, spec: ProcessorSpec) -> list[View]:
        """Returns one view per picture."""
        return [whole_view(i, s, self._target(s, spec)) for i, s in enumerate(sizes)]

    def _target(self, size: Size, spec: ProcessorSpec) -> Size:
        native = native_size(size, spec)
        if self.factor == 1:
            return native
        # Sides beyond max_pixels are all the same to `fit_size`; this keeps them finite.
        factor = min(self.factor, spec.max_pixels)
        return fit_size(
            max(1, round(native.height * factor)),
            max(1, round(native.width * factor)),
            stride=spec.stride,
            min_pixels=min(spec.min_pixels, native.area),
            max_pixels=max(spec.max_pixels, native.area),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fixed(Policy):
    """Every picture at one cost.

    `fixed:336` squashes it into a square of 336 px; `mode=pad` keeps the ratio and pads with the
    model's background (grey unless it was trained with another); `mode=crop` fits the shorter side
    and keeps the middle; `mode=keep` keeps the ratio at about the same number of pixels.
    `fixed,tokens=182` keeps the ratio at about 182 visual tokens, as the fixed rows of
    NativeRes-LLaVA do ("378 x 378").
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

    def __call__(self, sizes: Sequence[Size], question: str, spec: ProcessorSpec) -> list[View]:
        """Returns one view per picture."""
        self.check(spec)
        return [self._view(i, size, spec) for i, size in enumerate(sizes)]

    def _view(self, item: int, size: Size, spec: ProcessorSpec) -> View:
        if self.square:
            assert self.side is not None
            square = Size(self.side, self.side)
            if self.mode == "crop":
                return _middle(item, size, self.side)
            if self.mode != "pad":
                return whole_view(item, size, square)
            scale = self.side / max(size)
            inner = Size(*(min(self.side, max(1, round(extent * scale))) for extent in size))
            return whole_view(item, size, inner, None if inner == square else square)
        pixels = self.tokens * spec.stride**2 if self.tokens else (self.side or 0) ** 2
        target = fit_size(
            size.height,
            size.width,
            stride=spec.stride,
            min_pixels=pixels,
            max_pixels=pixels,
            hf_compat=spec.resize_rule == "hf",
        )
        return whole_view(item, size, target)


def _middle(item: int, size: Size, side: int) -> View:
    """The middle square of a picture whose shorter side becomes `side`."""
    short = min(size)
    inner = Size(*(side if extent == short else int(side * extent / short) for extent in size))
    if inner == (side, side):
        return whole_view(item, size, inner)
    top, left = ((extent - side) // 2 for extent in inner)
    window = Box(top, left, top + side, left + side)
    return dataclasses.replace(whole_view(item, size, inner), window=window)


def within_budget(size: Size, target: Size, tokens: int, spec: ProcessorSpec) -> Size:
    """Returns `target`, or the largest fit of a picture of `size` within so many visual tokens."""
    pixels = tokens * spec.stride**2
    if target.area <= pixels:
        return target
    return fit_size(
        size.height,
        size.width,
        stride=spec.stride,
        min_pixels=min(spec.min_pixels, pixels),
        max_pixels=pixels,
    )


def _at_least_one(policy: str, field: str, value: int) -> None:
    if value < 1:
        raise PolicyError(f"policy {policy}: {field}={value} must be at least 1.")

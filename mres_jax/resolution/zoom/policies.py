"""`zoom`, which needs a model to find its window, and `window`, which names one."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import ClassVar

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import PolicyError, suggest
from mres_jax.geometry import Box, ClipSize, Extent, Size, View
from mres_jax.resolution.policy import Policy, stills
from mres_jax.resolution.uniform import native_size, whole_view, within_budget
from mres_jax.resolution.zoom.prompts import is_file_of_prompts
from mres_jax.resolution.zoom.windows import window_size

_BOX = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})\.(\d{1,6})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window(Policy):
    """Parts of the first picture, `window:TOP.LEFT.BOTTOM.RIGHT[+...]` in px, in place of it.

    Attributes:
      boxes: the parts, a `+` between them.
      context: `crop`, the parts alone; `both`, the whole picture first.
      fine: most visual tokens of a part; None as many as its own size takes.
      coarse: most visual tokens of the whole picture, and of every other one.
    """

    name: ClassVar[str] = "window"
    example: ClassVar[str] = "window:0.0.336.448"
    value: ClassVar[str] = "boxes"
    boxes: str
    context: str = "crop"
    fine: int | None = None
    coarse: int | None = None

    def __post_init__(self):
        _one_of(self.name, "context", self.context, ("crop", "both"))
        for key in ("fine", "coarse"):
            _at_least(self.name, key, getattr(self, key), 1)
        if not all(_BOX.fullmatch(part) for part in self.boxes.split("+")):
            raise PolicyError(
                f"policy window: {self.boxes!r} is not TOP.LEFT.BOTTOM.RIGHT in px, for example "
                f"{self.example}."
            )

    @classmethod
    def of(cls, boxes: Sequence[Box], **options) -> "Window":
        """The policy of some boxes."""
        return cls(boxes="+".join(".".join(map(str, box)) for box in boxes), **options)

    def check(self, spec: ProcessorSpec) -> None:
        """Raises `PolicyError` if the model takes no images."""
        if "image" not in spec.accepts:
            super().check(spec)

    def __call__(self, sizes: Sequence[Extent], question: str, spec: ProcessorSpec) -> list[View]:
        """Returns the views of the parts, then those of the other pictures, whole."""
        pictures = stills(self, sizes)
        if not pictures:
            raise PolicyError(f"policy {self}: there is no picture to take a part of.")
        parts = [Box(*map(int, part.split("."))) for part in self.boxes.split("+")]
        whole = [
            whole_view(i, size, _fitted(size, self.coarse, spec)) for i, size in enumerate(pictures)
        ]
        views = whole[:1] if self.context == "both" else []
        for box in parts:
            self._check_inside(box, pictures[0])
            views.append(View(item=0, crop=box, size=_fitted(box.size, self.fine, spec)))
        return views + whole[1:]

    def _check_inside(self, box: Box, size: Size) -> None:
        if not (box.top < box.bottom <= size.height and box.left < box.right <= size.width):
            raise PolicyError(
                f"policy {self}: the part spans rows {box.top} to {box.bottom} and columns "
                f"{box.left} to {box.right}, but the picture has {size.height} rows and "
                f"{size.width} columns."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Zoom(Policy):
    """Two passes: a coarse look at the picture names a place, the answer is read in a window there.

    The paper's settings are `zoom,window=1024` for places on screens and
    `zoom,context=both,fine=1280` for questions about scenes.

    Reference:
      Lee et al., 2025, arXiv:2507.10202 (ECP); `source=gradient`: Zhang et al., 2025,
      arXiv:2502.17422, see `mres_jax.inference.pointing`. Ours: `candidates` and `join`, since one
      window cannot hold two things that are to be compared; the full picture where no place was
      found.

    Attributes:
      window: up to 1 a share of each side, above 1 the side of a square in px.
      context: of the second pass: `crop`, the window alone; `both`, the coarse picture before it.
      coarse: most visual tokens of the whole picture.
      fine: most visual tokens of a window; None as many as its own size takes.
      candidates: most windows.
      join: several windows are shown together (`views`) or one by one, where the answer with the
        highest mean log-probability counts (`best`).
      prompts: words of the first pass: a name of `prompts/`, or a JSON file.
      source: who finds the place: what the `model` says; the `gradient` of its answer's first
        token, for models that read and cannot point; or chance (`random`, a control).
      fallback: without a usable place: the whole picture (`full`), or an `error`.
      compat: `release` has the defects of the released code: with a window in px, places are scaled
        by its side instead of the picture's, chance leans to the lower right, and a first pass
        without a place makes the answer empty.
    """

    name: ClassVar[str] = "zoom"
    example: ClassVar[str] = "zoom,window=0.25"
    window: float = 0.25
    context: str = "crop"
    coarse: int = 960
    fine: int | None = None
    candidates: int = 1
    join: str = "views"
    prompts: str = "generic"
    source: str = "model"
    fallback: str = "full"
    compat: str = "none"

    def __post_init__(self):
        if not (math.isfinite(self.window) and self.window > 0):
            raise PolicyError(
                f"policy zoom: window={self.window} must be above 0: up to 1 a share of the sides, "
                "above 1 px."
            )
        _one_of(self.name, "context", self.context, ("crop", "both"))
        _one_of(self.name, "join", self.join, ("views", "best"))
        _one_of(self.name, "source", self.source, ("model", "gradient", "random"))
        _one_of(self.name, "fallback", self.fallback, ("full", "error"))
        _one_of(self.name, "compat", self.compat, ("none", "release"))
        for key in ("coarse", "candidates", "fine"):
            _at_least(self.name, key, getattr(self, key), 1)

    @property
    def compares_answers(self) -> bool:
        """Whether the second pass has several answers, of which the surest is taken."""
        return self.join == "best" and self.candidates > 1

    def files(self) -> tuple[str, ...]:
        """That of prompts which are not ours."""
        return (self.prompts,) if is_file_of_prompts(self.prompts) else ()

    def check(self, spec: ProcessorSpec) -> None:
        """Raises `PolicyError` if the model takes no images."""
        if "image" not in spec.accepts:
            super().check(spec)

    @property
    def shows_several(self) -> bool:
        """Whether an answer may come from several views, in which places have no one meaning."""
        return self.context == "both" or (self.join == "views" and self.candidates > 1)

    def window_in(self, items: Sequence[Extent]) -> Size:
        """Returns the extent of a window in the one picture of a request, px.

        Raises:
          PolicyError: no picture, several or a clip; a window larger than the picture.
        """
        if len(items) != 1:
            raise PolicyError(
                f"policy zoom looks into one picture, but there are {len(items) or 'none'}."
            )
        if isinstance(items[0], ClipSize):
            raise PolicyError("policy zoom looks into a picture, not a clip.")
        return window_size(items[0], self.window)

    def __call__(self, sizes: Sequence[Extent], question: str, spec: ProcessorSpec) -> list[View]:
        """Raises `PolicyError`: its views follow from what a model says."""
        raise PolicyError(
            f"policy {self}: a model has to find its window, so it answers questions (mres ask, "
            "VLM.answer) and prepares no data."
        )


def _fitted(size: Size, tokens: int | None, spec: ProcessorSpec) -> Size:
    """The size at which a part of that size is looked at."""
    if spec.image_size is not None:
        return Size(spec.image_size, spec.image_size)
    native = native_size(size, spec)
    return native if tokens is None else within_budget(size, native, tokens, spec)


def _one_of(policy: str, key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise PolicyError(
            f"policy {policy}: {key}={value}{suggest(value, allowed)}; have {', '.join(allowed)}."
        )


def _at_least(policy: str, key: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise PolicyError(f"policy {policy}: {key}={value} must be at least {least}.")

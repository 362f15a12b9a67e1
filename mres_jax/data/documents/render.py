"""A list of things to draw, and the painter that turns it into pixels and glyph labels.

Text is painted last, so a picture without its text differs from it only under the glyphs.
"""

import dataclasses
import functools

import numpy as np

from mres_jax.data.documents.fonts import Face
from mres_jax.data.documents.grounds import Colour, Ground, paint_ground
from mres_jax.data.documents.shapes import shape_mask
from mres_jax.data.documents.types import Glyphs
from mres_jax.geometry import Box, Size

KEY, VALUE, OTHER = 0, 1, 2  # `Glyphs.parts`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fill:
    """A rectangle; `radius` rounds its corners, `share` < 1 lets the ground shine through."""

    box: Box
    colour: Colour
    radius: int = 0
    share: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mark:
    """A shape of `shapes.SHAPES` that fills a square box."""

    box: Box
    shape: str
    colour: Colour


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One string on one baseline; `field` is -1 for other text."""

    text: str
    left: int
    baseline: int
    face: Face
    colour: Colour
    field: int = -1
    part: int = OTHER
    first: int = 0  # place of its first character in the whole string

    @functools.cached_property
    def boxes(self) -> np.ndarray:
        """Ink of each character but spaces, `int32 [n 4]`."""
        rows, pen = [], self.left
        for character in self.text:
            glyph = self.face.glyphs[character]
            if glyph.mask.size:
                top, left = self.baseline + glyph.top, pen + glyph.left
                height, width = glyph.mask.shape
                rows.append((top, left, top + height, left + width))
            pen += glyph.advance
        return np.array(rows, np.int32).reshape(-1, 4)


@dataclasses.dataclass(kw_only=True)
class Plan:
    """Everything that will be painted, in order: ground, fills and marks, text."""

    size: Size
    ground: Ground
    things: list[Fill | Mark] = dataclasses.field(default_factory=list)
    runs: list[Run] = dataclasses.field(default_factory=list)


def paint(plan: Plan, *, text: bool = True) -> np.ndarray:
    """Paints a plan, `uint8 [h w 3]`; `text=False` leaves out every character."""
    image = paint_ground(plan.ground, plan.size)
    for thing in plan.things:
        if isinstance(thing, Mark):
            box = thing.box
            _blend(image, box, shape_mask(thing.shape, box.bottom - box.top), thing.colour)
        else:
            _fill(image, thing)
    if text:
        for run in plan.runs:
            _write(image, run)
    return image


def union(boxes: np.ndarray) -> Box:
    """Smallest box around boxes `[n 4]`."""
    return Box(*(int(x) for x in (*boxes[:, :2].min(0), *boxes[:, 2:].max(0))))


def make_glyphs(plan: Plan) -> Glyphs:
    """Returns the labels of every character of a plan."""
    codes, indices = [], []
    for run in plan.runs:
        shown = [(i, c) for i, c in enumerate(run.text) if c != " "]
        codes += [ord(c) for _, c in shown]
        indices += [run.first + i for i, _ in shown]
    counts = np.array([len(run.boxes) for run in plan.runs], np.int64)
    return Glyphs(
        codes=np.array(codes, np.int32),
        boxes=np.concatenate([np.zeros((0, 4), np.int32), *(run.boxes for run in plan.runs)]),
        fields=np.repeat(np.array([run.field for run in plan.runs], np.int32), counts),
        parts=np.repeat(np.array([run.part for run in plan.runs], np.int8), counts),
        indices=np.array(indices, np.int32),
    )


def _blend(image: np.ndarray, box: Box, alpha: np.ndarray, colour: Colour) -> None:
    """Mixes a colour into a box; `alpha` is `uint8 [h w]`."""
    part = image[box.top : box.bottom, box.left : box.right]
    weight = alpha.astype(np.uint16)[..., None]
    mixed = part * (255 - weight) + weight * np.array(colour, np.uint16) + 127
    part[:] = (mixed // 255).astype(np.uint8)


def _fill(image: np.ndarray, fill: Fill) -> None:
    box = fill.box
    if not fill.radius and fill.share == 1:
        image[box.top : box.bottom, box.left : box.right] = fill.colour
        return
    alpha = np.full(box.size, round(255 * fill.share), np.uint8)
    radius = min(fill.radius, *(side // 2 for side in box.size))
    if radius:
        corner = _corner(radius)
        for rows, flip in ((slice(radius), 1), (slice(-radius, None), -1)):
            for cols, turn in ((slice(radius), 1), (slice(-radius, None), -1)):
                alpha[rows, cols] = (alpha[rows, cols] * corner[::flip, ::turn]).astype(np.uint8)
    _blend(image, box, alpha, fill.colour)


@functools.lru_cache(maxsize=64)
def _corner(radius: int) -> np.ndarray:
    """Coverage of the upper left corner of a rounded rectangle, `float32 [radius radius]`."""
    axis = radius - np.arange(radius, dtype=np.float32) - 0.5
    return np.clip(radius + 0.5 - np.hypot(axis[:, None], axis[None, :]), 0, 1)


def _write(image: np.ndarray, run: Run) -> None:
    box = union(run.boxes)
    alpha = np.zeros(box.size, np.uint8)
    shown = (c for c in run.text if c != " ")
    for (top, left, bottom, right), character in zip(run.boxes.tolist(), shown, strict=True):
        part = alpha[top - box.top : bottom - box.top, left - box.left : right - box.left]
        np.maximum(part, run.face.glyphs[character].mask, out=part)
    _blend(image, box, alpha, run.colour)

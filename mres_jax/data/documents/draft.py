"""A document while it is being drawn: the plan so far, the colours, small drawing helpers."""

import dataclasses
import random

from mres_jax.data.documents.fonts import Face
from mres_jax.data.documents.grounds import Colour, Ground, contrast, ink_on
from mres_jax.data.documents.layout import Type
from mres_jax.data.documents.render import Fill, Mark, Plan, Run
from mres_jax.geometry import Box

PAPER: Colour = (253, 253, 250)


def shrink(box: Box, by: int) -> Box:
    """Returns a box without a margin."""
    return Box(box.top + by, box.left + by, box.bottom - by, box.right - by)


@dataclasses.dataclass(kw_only=True)
class Draft:
    """A document being drawn.

    Attributes:
      ground: what the text stands on: the picture's own, or a sheet of paper that lies on it.
      accent: colour of bands and charts.
      family: of the fonts, see `fonts.FAMILIES`.
      is_free: no logo has been drawn, so that another mark cannot be taken for it.
    """

    rng: random.Random
    plan: Plan
    ground: Ground
    accent: Colour
    type_: Type
    family: str
    is_free: bool = True

    @property
    def line(self) -> int:
        """Height of a text line, px."""
        return self.type_.line

    def fill(self, box: Box, colour: Colour, *, radius: int = 0, share: float = 1.0) -> None:
        """Paints a rectangle, cut at the picture's border; nothing where it is empty."""
        height, width = self.plan.size
        box = Box(max(0, box.top), max(0, box.left), min(height, box.bottom), min(width, box.right))
        if box.size.height > 0 and box.size.width > 0:
            self.plan.things.append(Fill(box=box, colour=colour, radius=radius, share=share))

    def soften(self, box: Box, *, radius: int = 0) -> None:
        """Sets a part of the ground slightly off; on a photo away from the ink, for contrast."""
        if self.ground.style == "photo":
            self.fill(box, self.ground.base, radius=radius, share=0.5)
        else:
            self.fill(box, self.ground.ink, radius=radius, share=0.06)

    def rule(self, box: Box, share: float = 0.4) -> None:
        """A line in the colour of the ink."""
        self.fill(box, self.ground.ink, share=share)

    def outline(self, box: Box, width: int, share: float = 1.0) -> None:
        """Four lines inside a box, in the colour of the ink."""
        top, left, bottom, right = box
        for part in (
            Box(top, left, top + width, right),
            Box(bottom - width, left, bottom, right),
            Box(top + width, left, bottom - width, left + width),
            Box(top + width, right - width, bottom - width, right),
        ):
            self.rule(part, share)

    def bar(self, left: int, middle: int, width: int) -> None:
        """A bar that stands for print too small to read."""
        height = max(2, self.line // 5)
        top = middle - height // 2
        self.fill(Box(top, left, top + height, left + width), self.ground.ink, share=0.17)

    def paragraph(self, rect: Box, most: int) -> None:
        """Up to `most` bars below each other, ragged at the right."""
        pitch = max(5, round(0.55 * self.line))
        for i in range(min(most, rect.size.height // pitch)):
            width = int(rect.size.width * self.rng.uniform(0.5, 1.0))
            self.bar(rect.left, rect.top + i * pitch + pitch // 2, width)

    def heading(self, left: int, baseline: int, text: str, face: Face, colour: Colour) -> None:
        """Writes text that no question asks for."""
        run = Run(text=text, left=left, baseline=baseline, face=face, colour=colour)
        self.plan.runs.append(run)

    def mark(self, box: Box, shape: str, colour: Colour) -> None:
        """Draws a shape of `shapes`."""
        self.plan.things.append(Mark(box=box, shape=shape, colour=colour))


def accent_on(rng: random.Random, ground: Ground) -> Colour:
    """Draws a colour for bands: apart from the ground, and fit to carry text."""
    choices: tuple[Colour, ...] = (
        *((28, 62, 120), (140, 30, 44), (20, 92, 84), (64, 54, 110), (46, 52, 62)),
        *((240, 196, 60), (120, 190, 240), (236, 236, 232), (150, 220, 170)),
    )
    fit = [c for c in choices if contrast(c, ground.base) > 3 and contrast(c, ink_on(c)) > 4.6]
    return rng.choice(fit)

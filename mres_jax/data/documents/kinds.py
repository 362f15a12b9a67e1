"""How an invoice, a table, a sign and a screen look around their text.

For each kind, `frame_*` draws what surrounds the text and returns what is left of the rectangle,
and `dress_*` draws what belongs to the cells. Both leave out what has no room.
"""

import dataclasses
import random

from mres_jax.data.documents.fonts import Face, face
from mres_jax.data.documents.grounds import Colour, Ground, contrast, ink_on, mix
from mres_jax.data.documents.layout import Arrangement, Type
from mres_jax.data.documents.render import Fill, Plan, Run
from mres_jax.geometry import Box

HEADINGS = {
    "invoice": ("INVOICE", "RECEIPT", "BILL"),
    "table": ("LIST", "DATA", "REPORT"),
    "screen": ("HOME", "STATUS", "PANEL"),
}


@dataclasses.dataclass(kw_only=True)
class Draft:
    """A document being drawn.

    Attributes:
      ground: what the text stands on: the picture's own, or a sheet of paper that lies on it.
      accent: colour of bands and lines.
    """

    rng: random.Random
    plan: Plan
    ground: Ground
    accent: Colour
    type_: Type
    family: str

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
            self.fill(box, self.ground.base, radius=radius, share=0.45)
        else:
            self.fill(box, self.ground.ink, radius=radius, share=0.07)

    def rule(self, box: Box, share: float = 0.4) -> None:
        """A line in the colour of the ink."""
        self.fill(box, self.ground.ink, share=share)

    def outline(self, box: Box, width: int, colour: Colour, share: float = 1.0) -> None:
        """Four lines inside a box."""
        top, left, bottom, right = box
        for part in (
            Box(top, left, top + width, right),
            Box(bottom - width, left, bottom, right),
            Box(top + width, left, bottom - width, left + width),
            Box(top + width, right - width, bottom - width, right),
        ):
            self.fill(part, colour, share=share)

    def grey_text(self, rect: Box, lines: int, height: int) -> None:
        """Bars that stand for print too small to read."""
        pitch = 2 * height + 1
        for i in range(min(lines, rect.size.height // pitch)):
            top = rect.top + i * pitch
            width = int(rect.size.width * self.rng.uniform(0.45, 1.0))
            self.rule(Box(top, rect.left, top + height, rect.left + width), 0.16)

    def heading(self, left: int, baseline: int, text: str, face_: Face, colour: Colour) -> None:
        """Writes text that no question asks for."""
        self.plan.runs.append(
            Run(text=text, left=left, baseline=baseline, face=face_, colour=colour)
        )


PAPER: Colour = (253, 253, 250)


def shrink(box: Box, by: int) -> Box:
    """Returns a box without a margin."""
    return Box(box.top + by, box.left + by, box.bottom - by, box.right - by)


def accent_on(rng: random.Random, ground: Ground) -> Colour:
    """Draws a colour for bands: apart from the ground, and fit to carry text."""
    choices: tuple[Colour, ...] = (
        *((28, 62, 120), (140, 30, 44), (20, 92, 84), (64, 54, 110), (46, 52, 62)),
        *((240, 196, 60), (120, 190, 240), (236, 236, 232), (150, 220, 170)),
    )
    fit = [c for c in choices if contrast(c, ground.base) > 3 and contrast(c, ink_on(c)) > 4.6]
    return rng.choice(fit)


# Invoice ---------------------------------------------------------------------------------------


def frame_invoice(draft: Draft, rect: Box) -> Box:
    """A heading over a band, small print at the foot."""
    line, (height, width) = draft.line, rect.size
    if height < 5 * line or width < 7 * line:
        return rect
    top = rect.top + _headline(draft, rect)
    bottom = rect.bottom
    if height > 9 * line:
        foot = max(2, line // 6)
        count = min(4, (height // (2 * line)) - 3)
        bottom -= (2 * foot + 1) * count + line // 3
        left = rect.left + 1
        draft.grey_text(Box(bottom + line // 3, left, rect.bottom, left + width // 2), count, foot)
    return Box(top, rect.left, bottom, rect.right)


def _headline(draft: Draft, rect: Box) -> int:
    """Writes a heading with a thick line; returns the height it takes."""
    kind_face = face(draft.family, True, min(22, round(draft.type_.value_face.cap_height * 1.35)))
    text = draft.rng.choice(HEADINGS["invoice"])
    line = draft.line
    baseline = rect.top + kind_face.ascent + line // 4
    band = max(2, line // 6)
    if draft.rng.random() < 0.5 and draft.ground.style != "photo":  # on a band
        tall = kind_face.line + line // 2
        draft.fill(Box(rect.top, rect.left, rect.top + tall, rect.right), draft.accent)
        draft.heading(rect.left + line // 2, baseline, text, kind_face, ink_on(draft.accent))
    else:
        tall = kind_face.line + line // 4 + band
        draft.heading(rect.left, baseline, text, kind_face, draft.ground.ink)
        box = Box(rect.top + tall - band, rect.left, rect.top + tall, rect.right)
        draft.fill(box, draft.accent)
        if rect.size.width > 20 * line:
            side = Box(rect.top + line // 3, rect.right - 5 * line, rect.top + tall, rect.right)
            draft.grey_text(side, 2, max(2, line // 6))
    return tall + line // 2


def dress_invoice(draft: Draft, arrangement: Arrangement) -> None:
    """A thin line under each row, the last cell set off."""
    if arrangement.cells[0].size.height < 1.25 * draft.line:
        return
    cells, box = arrangement.cells, arrangement.box
    if draft.rng.random() < 0.7:
        for cell in cells[-1:]:
            draft.soften(cell)
    for row in range(arrangement.rows):
        bottom = arrangement.cells[row * arrangement.columns].bottom
        draft.rule(Box(bottom - 1, box.left, bottom, box.right))


# Table -----------------------------------------------------------------------------------------


def frame_table(draft: Draft, rect: Box) -> Box:
    """A heading, where there is room."""
    line, (height, width) = draft.line, rect.size
    if height < 6 * line or width < 7 * line or draft.rng.random() < 0.3:
        return rect
    title = face(draft.family, True, min(20, round(draft.type_.value_face.cap_height * 1.2)))
    text = draft.rng.choice(HEADINGS["table"])
    baseline = rect.top + title.ascent + line // 5
    left = rect.left + (width - title.width(text)) // 2
    draft.heading(left, baseline, text, title, draft.ground.ink)
    return Box(rect.top + title.line + line // 3, rect.left, rect.bottom, rect.right)


def dress_table(draft: Draft, arrangement: Arrangement) -> None:
    """Lines around all cells and between keys and values; the keys' side is set off."""
    cells, box = arrangement.cells, arrangement.box
    room = cells[0].size.height >= 1.1 * draft.line
    for i, cell in enumerate(cells):
        if arrangement.style == "stacked":
            middle = cell.top + cell.size.height // 2
            draft.soften(Box(cell.top, cell.left, middle, cell.right))
            draft.rule(Box(middle, cell.left, middle + 1, cell.right))
        elif arrangement.style == "split":
            tab = cell.left + arrangement.tab - max(2, draft.type_.gap // 2)
            if (i // arrangement.columns) % 2 == 0:
                draft.soften(cell)
            draft.rule(Box(cell.top, tab, cell.bottom, tab + 1))
        if room:
            draft.outline(
                Box(cell.top, cell.left, cell.bottom + 1, cell.right + 1), 1, draft.ground.ink, 0.4
            )
    if room and cells[0].size.height > 1.6 * draft.line:
        draft.outline(
            Box(box.top - 1, box.left - 1, box.bottom + 2, box.right + 2), 2, draft.ground.ink, 0.8
        )


# Sign ------------------------------------------------------------------------------------------


def frame_sign(draft: Draft, rect: Box) -> Box:
    """Nothing: the border of a sign is drawn with its plate."""
    return rect


def dress_sign(draft: Draft, arrangement: Arrangement) -> None:
    """A bar between the lines of a sign."""
    if arrangement.rows < 2 or arrangement.cells[0].size.height < 1.5 * draft.line:
        return
    box = arrangement.box
    for row in range(1, arrangement.rows):
        top = arrangement.cells[row * arrangement.columns].top
        draft.rule(Box(top - 1, box.left, top + 1, box.right), 0.5)


# Screen ----------------------------------------------------------------------------------------


def frame_screen(draft: Draft, rect: Box) -> Box:
    """A title bar over the whole width with three dots, a chart at the foot."""
    line, (height, width) = draft.line, rect.size
    if height < 5 * line or width < 5 * line:
        return rect
    tall = round(1.1 * line)
    bar = Box(0, 0, tall, draft.plan.size.width)
    draft.fill(bar, mix(draft.ground.base, draft.ground.ink, 0.2))
    dot = max(4, tall // 3)
    for i, colour in enumerate(((236, 94, 84), (244, 190, 76), (98, 200, 84))):
        left = dot + i * (dot + dot // 2 + 1)
        top = (tall - dot) // 2
        draft.fill(Box(top, left, top + dot, left + dot), colour, radius=dot // 2)
    bottom = rect.bottom
    if height > 9 * line and width > 7 * line:
        chart = min(height // 4, 4 * line)
        bottom -= chart + line // 2
        _chart(draft, Box(rect.bottom - chart, rect.left, rect.bottom, rect.right))
    return Box(max(rect.top, tall + line // 3), rect.left, bottom, rect.right)


def _chart(draft: Draft, rect: Box) -> None:
    step = max(8, draft.line // 2)
    draft.rule(Box(rect.bottom - 1, rect.left, rect.bottom, rect.right), 0.4)
    for left in range(rect.left, rect.right - step // 2, step):
        tall = int(rect.size.height * draft.rng.uniform(0.15, 0.95))
        box = Box(rect.bottom - tall, left, rect.bottom - 1, left + step - 3)
        draft.fill(box, draft.accent, share=0.75)


def dress_screen(draft: Draft, arrangement: Arrangement) -> None:
    """A rounded card under each cell."""
    if arrangement.cells[0].size.height < 1.2 * draft.line:
        return
    for cell in arrangement.cells:
        draft.soften(cell, radius=max(2, draft.line // 4))


FRAMES = {
    "invoice": frame_invoice,
    "table": frame_table,
    "sign": frame_sign,
    "screen": frame_screen,
}
DRESSES = {
    "invoice": dress_invoice,
    "table": dress_table,
    "sign": dress_sign,
    "screen": dress_screen,
}

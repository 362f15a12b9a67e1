"""How an invoice, a table, a sign and a screen look around their text.

For each kind, `frame_*` draws what surrounds the text and returns what is left of the rectangle;
`dress_*` draws what belongs to the cells and fills what they leave free. Whatever has no room is
left out. Grey bars stand for small print: a patch of them has nothing to read.
"""

from mres_jax.data.documents.draft import Draft
from mres_jax.data.documents.fonts import face
from mres_jax.data.documents.grounds import ink_on, mix
from mres_jax.data.documents.layout import Arrangement
from mres_jax.data.documents.shapes import ARROWS
from mres_jax.geometry import Box

INVOICE_HEADINGS = ("INVOICE", "RECEIPT", "BILL")
TABLE_HEADINGS = ("LIST", "DATA", "REPORT")


def _rests(draft: Draft, rect: Box, used: Box) -> tuple[Box, Box]:
    """Returns what the cells leave free to their right and below."""
    gap = draft.line // 2
    right = Box(used.top, used.right + 2 * gap, used.bottom, rect.right)
    return right, Box(used.bottom + gap, rect.left, rect.bottom, rect.right)


def frame_invoice(draft: Draft, rect: Box) -> Box:
    """A heading on or over a band, with small print beside it."""
    line, (height, width) = draft.line, rect.size
    title = face(draft.family, True, min(22, round(draft.type_.value_face.cap_height * 1.35)))
    text = draft.rng.choice(INVOICE_HEADINGS)
    on_band = draft.rng.random() < 0.5
    if height < 5 * line or width < title.width(text) + line:
        return rect
    baseline = rect.top + title.ascent + line // 4
    band = max(2, line // 6)
    if on_band:
        tall = title.line + line // 2
        draft.fill(Box(rect.top, rect.left, rect.top + tall, rect.right), draft.accent)
        draft.heading(rect.left + line // 2, baseline, text, title, ink_on(draft.accent))
    else:
        tall = title.line + line // 4 + band
        draft.heading(rect.left, baseline, text, title, draft.ground.ink)
        draft.fill(
            Box(rect.top + tall - band, rect.left, rect.top + tall, rect.right), draft.accent
        )
        if width > title.width(text) + 8 * line:
            middle = rect.top + line // 3
            draft.paragraph(Box(middle, rect.right - 5 * line, rect.top + tall, rect.right), 2)
    return Box(rect.top + tall + line // 2, rect.left, rect.bottom, rect.right)


def dress_invoice(draft: Draft, arrangement: Arrangement, rect: Box) -> None:
    """A thin line under each row, the last row set off; grey items fill the sheet."""
    cells, box, line = arrangement.cells, arrangement.box, draft.line
    if cells[0].size.height >= 1.25 * line:
        if draft.rng.random() < 0.7:
            draft.soften(Box(cells[-1].top, box.left, cells[-1].bottom, box.right))
        for row in range(arrangement.rows):
            bottom = cells[row * arrangement.columns].bottom
            draft.rule(Box(bottom - 1, box.left, bottom, box.right))
    right, below = _rests(draft, rect, box)
    if right.size.width > 6 * line:
        draft.paragraph(right._replace(right=min(right.right, right.left + 14 * line)), 5)
    pitch = round(1.3 * line)
    for i in range(min(20, below.size.height // pitch)):
        middle = below.top + i * pitch + pitch // 2
        draft.bar(below.left, middle, int(below.size.width * draft.rng.uniform(0.25, 0.55)))
        side = max(6, int(below.size.width * draft.rng.uniform(0.08, 0.16)))
        draft.bar(below.right - side, middle, side)
        draft.rule(Box(middle + pitch // 2, below.left, middle + pitch // 2 + 1, below.right), 0.12)


def frame_table(draft: Draft, rect: Box) -> Box:
    """A heading over the table."""
    line, (height, width) = draft.line, rect.size
    title = face(draft.family, True, min(20, round(draft.type_.value_face.cap_height * 1.2)))
    text = draft.rng.choice(TABLE_HEADINGS)
    if height < 6 * line or width < title.width(text) + line or draft.rng.random() < 0.3:
        return rect
    draft.heading(rect.left + 1, rect.top + title.ascent + line // 5, text, title, draft.ground.ink)
    return Box(rect.top + title.line + line // 2, rect.left, rect.bottom, rect.right)


def dress_table(draft: Draft, arrangement: Arrangement, rect: Box) -> None:
    """Lines around all cells, the keys' side set off, and more rows in grey below."""
    cells, box, line = arrangement.cells, arrangement.box, draft.line
    tall, wide = cells[0].size
    split = arrangement.style == "split"
    lines = line if split else 2 * line  # of text in a cell
    has_lines = tall >= 1.1 * lines
    rows = arrangement.rows
    if has_lines:
        rows += max(0, min(8, (rect.bottom - box.bottom - 2) // tall))
    for i in range(rows * arrangement.columns):
        row, column = divmod(i, arrangement.columns)
        top, left = box.top + row * tall, box.left + column * wide
        tab = arrangement.tab - max(2, draft.type_.gap // 2)
        middle = top + tall // 2
        if split:
            if row % 2 == 0:
                draft.soften(Box(top, left, top + tall, left + wide))
            draft.rule(Box(top, left + tab, top + tall, left + tab + 1))
        else:
            draft.soften(Box(top, left, middle, left + wide))
            if has_lines:
                draft.rule(Box(middle, left, middle + 1, left + wide))
        if has_lines:
            draft.outline(Box(top, left, top + tall + 1, left + wide + 1), 1, 0.35)
        if i >= len(cells):
            key = left + arrangement.pad, top + (tall // 2 if split else tall // 4)
            value = (left + arrangement.tab, key[1]) if split else (key[0], top + 3 * tall // 4)
            room = (tab, wide - arrangement.tab) if split else (wide, wide)
            for (x, y), space in zip((key, value), room, strict=True):
                draft.bar(x, y, max(4, int((space - 2 * arrangement.pad) * 0.6)))
    if has_lines and tall > 1.25 * lines:
        draft.outline(
            Box(box.top - 1, box.left - 1, box.top + rows * tall + 2, box.right + 2), 2, 0.8
        )


def frame_sign(draft: Draft, rect: Box) -> Box:
    """Nothing: the border of a sign is drawn with its plate."""
    return rect


def dress_sign(draft: Draft, arrangement: Arrangement, rect: Box) -> None:
    """A line between the rows, an arrow below where there is room."""
    box, line = arrangement.box, draft.line
    if arrangement.cells[0].size.height >= 1.4 * line:
        for row in range(1, arrangement.rows):
            top = arrangement.cells[row * arrangement.columns].top
            draft.rule(Box(top - 1, box.left, top + 1, box.right), 0.5)
    _, below = _rests(draft, rect, box)
    point_way(draft, below)


def point_way(draft: Draft, rect: Box) -> None:
    """An arrow in the middle of a free part of a sign, often; none where a logo stands."""
    side = min(round(rect.size.height * 0.7), round(rect.size.width * 0.4), 8 * draft.line)
    if draft.is_free and side > 1.5 * draft.line and draft.rng.random() < 0.75:
        top = rect.top + (rect.size.height - side) // 2
        left = rect.left + (rect.size.width - side) // 2
        shape = draft.rng.choice(ARROWS)
        draft.mark(Box(top, left, top + side, left + side), shape, draft.ground.ink)


def frame_screen(draft: Draft, rect: Box) -> Box:
    """A title bar over the whole width with three dots."""
    line, (height, width) = draft.line, rect.size
    if height < 4 * line or width < 5 * line:
        return rect
    tall = round(1.2 * line)
    if rect.top > 3 * tall:  # a logo stands above
        return rect
    bar = Box(0, 0, tall, draft.plan.size.width)
    draft.fill(bar, mix(draft.ground.base, draft.ground.ink, 0.2))
    dot = max(4, tall // 3)
    for i, colour in enumerate(((236, 94, 84), (244, 190, 76), (98, 200, 84))):
        left, top = dot + i * (dot + dot // 2 + 1), (tall - dot) // 2
        draft.fill(Box(top, left, top + dot, left + dot), colour, radius=dot // 2)
    return Box(max(rect.top, tall + line // 2), rect.left, rect.bottom, rect.right)


def dress_screen(draft: Draft, arrangement: Arrangement, rect: Box) -> None:
    """A rounded card under each cell; a chart below, a list beside."""
    line = draft.line
    if arrangement.cells[0].size.height >= 1.2 * line:
        for cell in arrangement.cells:
            draft.soften(cell, radius=max(2, line // 3))
    right, below = _rests(draft, rect, arrangement.box)
    if right.size.width > 6 * line:
        draft.paragraph(right._replace(right=min(right.right, right.left + 12 * line)), 6)
    if below.size.height > 3 * line:
        chart = below._replace(bottom=min(below.bottom, below.top + 10 * line))
        _chart(draft, chart)
        rest = chart.bottom + line
        draft.paragraph(Box(rest, below.left, below.bottom, below.right), 8)


def _chart(draft: Draft, rect: Box) -> None:
    """Bars over a base line, at most 24."""
    step = max(8, draft.line // 2, rect.size.width // 24)
    draft.rule(Box(rect.bottom - 1, rect.left, rect.bottom, rect.right), 0.4)
    height = draft.rng.uniform(0.3, 0.7)
    for left in range(rect.left, rect.right - step // 2, step):
        height = min(0.95, max(0.12, height + draft.rng.uniform(-0.25, 0.25)))
        tall = int(rect.size.height * height)
        draft.fill(
            Box(rect.bottom - tall, left, rect.bottom - 1, left + step - max(2, step // 4)),
            draft.accent,
            share=0.8,
        )


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

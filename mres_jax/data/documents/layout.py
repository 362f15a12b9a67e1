"""Places key-value pairs in a rectangle: a grid of equal cells, one pair per cell.

In a cell the value stands beside its key (`inline`, `split` with a common tab stop) or below it
(`stacked`). A bare value stands alone, on one line or, where a strip is too narrow for a line, one
character below the other (`upright`).
"""

import dataclasses
from collections.abc import Sequence

from mres_jax.data.documents.fonts import Face
from mres_jax.data.documents.grounds import Colour
from mres_jax.data.documents.render import KEY, VALUE, Run
from mres_jax.geometry import Box, Size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """What one cell says: the key as it is printed, and its value."""

    key: str
    value: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Type:
    """Faces and colour of keys and values; `flat` text has capitals and digits only."""

    key_face: Face
    value_face: Face
    colour: Colour
    flat: bool = False

    @property
    def line(self) -> int:
        """Height of one line, px."""
        if self.flat:
            return self.ascent
        return max(self.key_face.line, self.value_face.line)

    @property
    def ascent(self) -> int:
        """Reach above the baseline, px."""
        if self.flat:
            return max(self.key_face.cap_height, self.value_face.cap_height)
        return max(self.key_face.ascent, self.value_face.ascent)

    @property
    def gap(self) -> int:
        """Space between a key and its value, px."""
        return max(4, round(0.55 * self.value_face.size))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrangement:
    """A grid of cells that fits its rectangle.

    Attributes:
      style: `inline`, `split` or `stacked`.
      cells: one box per pair, px.
      tab: where values start in a cell, px from its left; for `split`.
      pad: space left and right inside a cell, px.
    """

    style: str
    rows: int
    columns: int
    cells: tuple[Box, ...]
    tab: int
    pad: int

    @property
    def box(self) -> Box:
        """Around all cells."""
        first, last = self.cells[0], self.cells[-1]
        right = max(cell.right for cell in self.cells)
        return Box(first.top, first.left, last.bottom, right)


def arrange(
    pairs: Sequence[Pair],
    rect: Box,
    type_: Type,
    *,
    style: str,
    columns: int,
    pad: int,
    leading: float = 1.35,
    gutter: int = 0,
    stretch: tuple[float, float] = (2.0, 1.5),
    place: tuple[float, float] = (0.5, 0.5),
) -> Arrangement | None:
    """Fits pairs into a rectangle, or returns None where they do not fit.

    Args:
      pad: space left and right inside a cell, px.
      leading: height of a text line in a cell, in lines; 1.0 where the rectangle has no more.
      gutter: space between cells, px.
      stretch: how much taller and wider than needed a cell may become.
      place: where the grid stands in spare room, from 0 (top, left) to 1 (bottom, right).
    """
    rows = -(-len(pairs) // columns)
    tab, need = _needed(pairs, type_, style, pad)
    height = need.height + (2 if style != "stacked" else 3) * round((leading - 1) * type_.line / 2)
    free = Size(rect.size.height - gutter * (rows - 1), rect.size.width - gutter * (columns - 1))
    if need.height * rows > free.height or need.width * columns > free.width:
        return None
    height = max(need.height, min(free.height // rows, round(height * stretch[0])))
    width = min(free.width // columns, round(need.width * stretch[1]))
    top = rect.top + round((free.height - height * rows) * place[0])
    left = rect.left + round((free.width - width * columns) * place[1])
    cells = []
    for i in range(len(pairs)):
        y = top + (i // columns) * (height + gutter)
        x = left + (i % columns) * (width + gutter)
        cells.append(Box(y, x, y + height, x + width))
    if style == "split":
        tab += round((width - need.width) * 0.4)
    return Arrangement(
        style=style, rows=rows, columns=columns, cells=tuple(cells), tab=tab, pad=pad
    )


def _needed(pairs: Sequence[Pair], type_: Type, style: str, pad: int) -> tuple[int, Size]:
    """Returns the tab stop and the smallest cell that holds every pair."""
    keys = [type_.key_face.width(p.key) for p in pairs]
    values = [type_.value_face.width(p.value) for p in pairs]
    if style == "stacked":
        lines = type_.key_face.line + type_.value_face.line + max(1, type_.line // 8)
        return pad, Size(lines, max(*keys, *values) + 2 * pad)
    tab = pad + max(keys) + type_.gap
    if style == "split":
        return tab, Size(type_.line, tab + max(values) + pad)
    widest = max(k + v for k, v in zip(keys, values, strict=True))
    return tab, Size(type_.line, widest + type_.gap + 2 * pad)


def write_pairs(
    pairs: Sequence[Pair], arrangement: Arrangement, type_: Type, *, align: str = "left"
) -> list[Run]:
    """Returns the runs of every pair; `align` is `left`, `centre` or (values only) `right`."""
    runs = []
    for i, (pair, cell) in enumerate(zip(pairs, arrangement.cells, strict=True)):
        write = _write_stacked if arrangement.style == "stacked" else _write_beside
        key_at, value_at = write(pair, cell, arrangement, type_, align)
        runs.append(_run(pair.key, key_at, type_.key_face, type_.colour, i, KEY))
        runs.append(_run(pair.value, value_at, type_.value_face, type_.colour, i, VALUE))
    return runs


def _run(text: str, at: tuple[int, int], face: Face, colour: Colour, field: int, part: int) -> Run:
    baseline, left = at
    return Run(
        text=text, left=left, baseline=baseline, face=face, colour=colour, field=field, part=part
    )


def _write_beside(
    pair: Pair, cell: Box, arrangement: Arrangement, type_: Type, align: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    baseline = cell.top + (cell.size.height - type_.line) // 2 + type_.ascent
    key_width, value_width = type_.key_face.width(pair.key), type_.value_face.width(pair.value)
    if arrangement.style == "split":
        left = cell.left + arrangement.pad
        right = cell.right - arrangement.pad - value_width
        return (baseline, left), (
            baseline,
            right if align == "right" else cell.left + arrangement.tab,
        )
    spare = cell.size.width - 2 * arrangement.pad - key_width - type_.gap - value_width
    left = cell.left + arrangement.pad + (spare // 2 if align == "centre" else 0)
    return (baseline, left), (baseline, left + key_width + type_.gap)


def _write_stacked(
    pair: Pair, cell: Box, arrangement: Arrangement, type_: Type, align: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    lead = max(1, type_.line // 8)
    lines = type_.key_face.line + type_.value_face.line + lead
    spare = cell.size.height - lines
    extra = min(spare // 2, type_.line // 2)  # between key and value
    top = cell.top + (spare - extra) // 2
    key_at = top + type_.key_face.ascent
    value_at = top + type_.key_face.line + lead + extra + type_.value_face.ascent
    lefts = []
    for face, text in ((type_.key_face, pair.key), (type_.value_face, pair.value)):
        spare = cell.size.width - 2 * arrangement.pad - face.width(text)
        lefts.append(cell.left + arrangement.pad + (spare // 2 if align == "centre" else 0))
    return (key_at, lefts[0]), (value_at, lefts[1])


def write_bare(value: str, rect: Box, face: Face, colour: Colour) -> list[Run] | None:
    """Returns a value alone in the middle of a rectangle, or None where its ink does not fit."""
    glyphs = [face.glyphs[c] for c in value]
    low, high = min(g.top for g in glyphs), max(g.top + g.mask.shape[0] for g in glyphs)
    first, last = glyphs[0], glyphs[-1]
    ink_width = face.width(value) - first.left - (last.advance - last.left - last.mask.shape[1])
    if ink_width > rect.size.width or high - low > rect.size.height:
        return None
    left = rect.left + (rect.size.width - ink_width) // 2 - first.left
    baseline = rect.top + (rect.size.height - (high - low)) // 2 - low
    return [_run(value, (baseline, left), face, colour, 0, VALUE)]


def write_upright(value: str, rect: Box, face: Face, colour: Colour) -> list[Run] | None:
    """Returns a value with one character below the other, or None where it does not fit."""
    glyphs = [face.glyphs[c] for c in value]
    space = max(2, face.cap_height // 4)
    heights = [g.mask.shape[0] for g in glyphs]
    total = sum(heights) + space * (len(value) - 1)
    if total > rect.size.height or max(g.mask.shape[1] for g in glyphs) > rect.size.width:
        return None
    runs, top = [], rect.top + (rect.size.height - total) // 2
    for i, (character, glyph) in enumerate(zip(value, glyphs, strict=True)):
        left = rect.left + (rect.size.width - glyph.mask.shape[1]) // 2 - glyph.left
        run = _run(character, (top - glyph.top, left), face, colour, 0, VALUE)
        runs.append(dataclasses.replace(run, first=i))
        top += glyph.mask.shape[0] + space
    return runs

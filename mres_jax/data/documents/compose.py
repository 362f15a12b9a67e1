"""Decides everything about one document: ground, frame, logo, text, in this order, from one seed.

Where something does not fit, ornament goes first, then fields, then text height (never below 8 px),
and at last the keys: a bare value is left. So every size of every bin gives a legible document.
"""

import dataclasses
import random
from collections.abc import Sequence

from mres_jax.data.documents import kinds, layout
from mres_jax.data.documents.bins import bin_of
from mres_jax.data.documents.draft import PAPER, Draft, accent_on, shrink
from mres_jax.data.documents.fonts import face
from mres_jax.data.documents.grounds import LOGO_COLOURS, Colour, Ground, contrast, draw_ground
from mres_jax.data.documents.render import Plan
from mres_jax.data.documents.shapes import SHAPES
from mres_jax.data.documents.types import Options
from mres_jax.data.documents.vocabulary import (
    BARE_FORMATS,
    KEYS_OF_KIND,
    VALUE_FORMATS,
    draw_value,
)
from mres_jax.errors import MresError
from mres_jax.geometry import Box, Size

# Share of each background colour by kind: rows add up to 1, columns to 0.5, so that over the kinds
# every colour is equally likely although a sign is seldom white and a screen often black.
COLOUR_NAMES = ("white", "grey", "black", "red", "yellow", "green", "blue", "purple")
COLOUR_SHARES = {
    "invoice": (0.25, 0.15, 0.00, 0.10, 0.20, 0.10, 0.10, 0.10),
    "table": (0.15, 0.15, 0.05, 0.10, 0.15, 0.15, 0.15, 0.10),
    "sign": (0.02, 0.05, 0.15, 0.20, 0.10, 0.15, 0.15, 0.18),
    "screen": (0.08, 0.15, 0.30, 0.10, 0.05, 0.10, 0.10, 0.12),
}
NUM_FIELDS = {  # fewest and most wanted
    **{"A": (1, 1), "B": (1, 2), "C": (1, 3), "D": (2, 4), "E": (2, 6), "F": (3, 7), "G": (3, 8)}
}
STYLES = {  # besides `stacked`
    "invoice": ("split", "inline"),
    "table": ("split",),
    "sign": ("inline",),
    "screen": ("split",),
}
STRETCH = {"invoice": (1.6, 2.2), "table": (1.8, 1.9), "sign": (2.6, 1.6), "screen": (1.8, 2.2)}
COLUMN_SHARES = {"one": 0.63, "two": 1.0, "many": 0.0}  # asked for: makes one and two even
LOGO_SIDES = {"AH": "top bottom", "BH": "top bottom", "AW": "left right", "BW": "left right"}


@dataclasses.dataclass(kw_only=True)
class Design:
    """A plan with what is known about it; `keys` are one per field, "" for a bare value."""

    plan: Plan
    keys: tuple[str, ...]
    facts: dict[str, str]
    asked_facts: Sequence[str]


class Composer:
    """Draws the choices of one document and fits them together."""

    def __init__(
        self,
        rng: random.Random,
        size: Size,
        kind: str,
        options: Options,
        *,
        values: Sequence[str] = (),
    ):
        self.rng, self.size, self.kind, self.options, self.values = rng, size, kind, options, values
        self.area_bin, self.ratio_bin = bin_of(size)
        style = rng.choice(options.grounds)
        colour = rng.choices(COLOUR_NAMES, COLOUR_SHARES[kind])[0]
        self.ground = draw_ground(rng, style, colour)
        self.cap_height = rng.randint(*options.cap_heights)
        families = options.families
        self.family = rng.choices(list(families), list(families.values()))[0]
        self.bold = rng.random() < 0.35
        self.wants_logo = rng.random() < options.logo and min(size) >= 48
        self.wants_card = style == "photo" and kind in ("invoice", "table") and min(size) >= 96
        fewest, most = (min(n, options.max_fields) for n in NUM_FIELDS[self.area_bin])
        self.num_fields = max(rng.randint(fewest, most), len(values))
        self.wants_bare = self.area_bin == "A" or (kind == "sign" and rng.random() < 0.12)
        self.seed = rng.getrandbits(64)  # of keys and values, the same in every attempt

    def run(self) -> Design:
        """Returns the first attempt that fits, the richest tried first."""
        lowest = min(8, self.cap_height)
        ornaments = dict.fromkeys(((self.wants_logo, True), (False, True), (False, False)))
        heights = dict.fromkeys((self.cap_height, (self.cap_height + lowest) // 2, lowest))
        for cap_height in () if self.wants_bare else heights:
            for logo, framed in ornaments:
                if design := self._attempt(cap_height, logo=logo, framed=framed):
                    return design
        for cap_height in range(self.cap_height, lowest - 1, -1):
            if design := self._attempt_bare(cap_height):
                return design
        raise MresError(
            f"documents: no text with capitals of {lowest} px fits {self.size.width} x "
            f"{self.size.height} px. Choose a larger size or a smaller `cap_heights`."
        )

    # Attempts -----------------------------------------------------------------------------------

    def _attempt(self, cap_height: int, *, logo: bool, framed: bool) -> Design | None:
        draft, rect = self._start(cap_height, framed)
        facts: dict[str, str] = {}
        if framed:
            rect = kinds.FRAMES[self.kind](draft, rect)
        if logo:
            if (found := self._add_logo(draft, rect)) is None:
                return None
            rect, facts = found
        if min(rect.size) < cap_height:
            return None
        draft.type_ = dataclasses.replace(draft.type_, flat=rect.size.height < draft.line)
        for count in range(self.num_fields, max(1, len(self.values)) - 1, -1):
            keys, pairs = self._draw_pairs(draft.type_, rect, count)
            if pairs and (columns := self._place(draft, rect, pairs, framed)):
                facts["columns"] = {1: "one", 2: "two"}.get(columns, "many")
                return self._finish(draft, keys, facts)
        return None

    def _attempt_bare(self, cap_height: int) -> Design | None:
        """A value alone; on a narrow strip one character below the other."""
        draft, rect = self._start(cap_height, self.area_bin != "A")
        rng = random.Random(self.seed)
        value_face = draft.type_.value_face
        fewest, most = (2, 3) if self.area_bin == "A" else (3, min(5, self.options.max_chars))
        across = min(most, (rect.size.width + 1) // value_face.glyphs["0"].advance)
        down = min(most, rect.size.height // (cap_height + max(2, cap_height // 4)))
        upright = across < 2 <= down
        most = down if upright else across
        write = layout.write_upright if upright else layout.write_bare
        for longest in range(most, 0, -1):
            for _ in range(4):  # W may be too wide where 1 is not
                length = rng.randint(min(fewest, longest), longest)
                formats = tuple(f for f in BARE_FORMATS if len(f) == length)
                value = draw_value(rng, formats, length, True)
                if runs := write(value, rect, value_face, draft.ground.ink):
                    draft.plan.runs += runs
                    if self.kind == "sign":
                        under = (rect.top + rect.bottom) // 2 + draft.line
                        kinds.point_way(draft, rect._replace(top=under))
                    return self._finish(draft, ("",), {})
        return None

    # Parts --------------------------------------------------------------------------------------

    def _start(self, cap_height: int, framed: bool) -> tuple[Draft, Box]:
        """Lays the ground, a sheet of paper on a photo, the border of a sign; returns the rest."""
        has_card = framed and self.wants_card
        plan = Plan(size=self.size, ground=dataclasses.replace(self.ground, is_open=has_card))
        ground, rect, short = self.ground, Box(0, 0, *self.size), min(self.size)
        if has_card:
            ground = Ground(
                style="plain", colour=None, base=PAPER, other=PAPER, ink=(20, 22, 28), seed=0
            )
        draft = Draft(
            rng=self.rng,
            plan=plan,
            ground=ground,
            accent=accent_on(self.rng, ground),
            type_=self._type(cap_height, ground),
            family=self.family,
        )
        if has_card:
            rect = shrink(rect, max(8, short // 11))
            drop = max(2, short // 90)
            draft.fill(Box(*(x + drop for x in rect)), (0, 0, 0), radius=2 * drop, share=0.35)
            draft.fill(rect, PAPER)
        if framed and self.kind == "sign" and short >= 40:
            width = max(1, short // 90)
            rect = shrink(rect, max(2, short // 30))
            draft.outline(rect, width, 0.85)
            rect = shrink(rect, width)
        return draft, shrink(rect, max(1, short // (16 if framed and short >= 48 else 24)))

    def _type(self, cap_height: int, ground: Ground) -> layout.Type:
        value_face = face(self.family, self.bold, cap_height)
        return layout.Type(
            key_face=face(self.family, False, cap_height) if self.bold else value_face,
            value_face=value_face,
            colour=ground.ink,
        )

    def _add_logo(self, draft: Draft, rect: Box) -> tuple[Box, dict[str, str]] | None:
        """Puts a shape on one side; returns the rest of the rectangle, or None without room."""
        short = min(self.size)
        side = self.rng.choice(LOGO_SIDES.get(self.ratio_bin, "left right top bottom").split())
        length = min(round(short * self.rng.uniform(0.27, 0.42)), *rect.size)
        if length < 0.25 * short:
            return None
        shades = {name: _logo_shade(draft.ground, name) for name in LOGO_COLOURS}
        names = [n for n, shade in shades.items() if shade and n != self.ground.colour]
        name, shape = self.rng.choice(names), self.rng.choice(SHAPES)
        gap = max(4, short // 20)
        top, left, bottom, right = rect
        middle_y, middle_x = (top + bottom - length) // 2, (left + right - length) // 2
        corner, rest = {
            "left": ((middle_y, left), Box(top, left + length + gap, bottom, right)),
            "right": ((middle_y, right - length), Box(top, left, bottom, right - length - gap)),
            "top": ((top, middle_x), Box(top + length + gap, left, bottom, right)),
            "bottom": ((bottom - length, middle_x), Box(top, left, bottom - length - gap, right)),
        }[side]
        colour = shades[name]
        assert colour is not None
        draft.mark(Box(*corner, corner[0] + length, corner[1] + length), shape, colour)
        draft.is_free = False
        return rest, {"logo": shape, "logo side": side, "logo colour": name}

    def _draw_pairs(
        self, type_: layout.Type, rect: Box, count: int
    ) -> tuple[tuple[str, ...], list[layout.Pair]]:
        """Draws `count` keys that fit the width with values; nothing where too few do."""
        rng = random.Random(self.seed)
        width = rect.size.width - 2
        is_upper = rng.random() < 0.3 or type_.flat
        colon = ":" if self.kind in ("invoice", "screen") and rng.random() < 0.5 else ""
        printed = {
            key: (key.upper() if is_upper else key.capitalize()) + colon
            for key in rng.sample(KEYS_OF_KIND[self.kind], len(KEYS_OF_KIND[self.kind]))
        }
        keys = [key for key, text in printed.items() if type_.key_face.width(text) <= width]
        max_chars = min(self.options.max_chars, width // type_.value_face.glyphs["0"].advance)
        if max_chars < 3 or len(keys) < count:
            return (), []
        pairs: list[layout.Pair] = []
        for key in keys[:count]:
            taken = {pair.value for pair in pairs}
            value = draw_value(rng, VALUE_FORMATS[key], max_chars, type_.flat)
            while value in taken:
                value = draw_value(rng, VALUE_FORMATS[key], max_chars, type_.flat)
            pairs.append(layout.Pair(key=printed[key], value=value))
        for i, value in enumerate(self.values):
            pairs[i] = dataclasses.replace(pairs[i], value=value)
        return tuple(keys[:count]), pairs

    def _place(self, draft: Draft, rect: Box, pairs: Sequence[layout.Pair], framed: bool) -> int:
        """Writes the pairs in one of the arrangements that fit; returns its columns, 0 if none."""
        found = self._arrangements(draft, rect, pairs, framed)
        if not found:
            return 0
        few = [columns for columns in found if columns <= 2]
        if not few or (self.size.width > 2 * self.size.height and self.rng.random() < 0.6):
            few = [max(found)]
        arrangement = self.rng.choice(found[self.rng.choice(few)])
        if framed:
            kinds.DRESSES[self.kind](draft, arrangement, rect)
        align = "centre" if self.kind == "sign" else "left"
        if self.kind == "invoice" and self.rng.random() < 0.4:
            align = "right"
        draft.plan.runs += layout.write_pairs(pairs, arrangement, draft.type_, align=align)
        return arrangement.columns

    def _arrangements(
        self, draft: Draft, rect: Box, pairs: Sequence[layout.Pair], framed: bool
    ) -> dict[int, list[layout.Arrangement]]:
        """All arrangements that fit, by number of columns."""
        line = draft.line
        is_roomy = framed and self.kind != "sign" and rect.size.height > 6 * line
        across = 0.5 if self.kind == "sign" else self.rng.choice((0.0, 0.5))
        place = (0.0 if is_roomy else 0.45, across)
        found: dict[int, list[layout.Arrangement]] = {}
        for columns in dict.fromkeys((1, 2, 3, len(pairs))):
            for style in (*STYLES[self.kind], "stacked") if columns <= len(pairs) else ():
                gutter = line // 3 if self.kind == "screen" and framed else 0
                if columns > 1 and self.kind in ("invoice", "sign"):
                    gutter = line
                arrangement = layout.arrange(
                    pairs,
                    rect,
                    draft.type_,
                    style=style,
                    columns=columns,
                    pad=max(2, line // 3) if framed else 1,
                    gutter=gutter,
                    stretch=STRETCH[self.kind],
                    place=place,
                )
                if arrangement:
                    found.setdefault(columns, []).append(arrangement)
        return found

    # Facts --------------------------------------------------------------------------------------

    def _finish(self, draft: Draft, keys: tuple[str, ...], facts: dict[str, str]) -> Design:
        facts |= {"kind": self.kind, "ground": self.ground.style}
        if self.ground.colour:
            facts["colour"] = self.ground.colour
        asked = self._asked(facts, len(keys))
        return Design(plan=draft.plan, keys=keys, facts=facts, asked_facts=asked)

    def _asked(self, facts: dict[str, str], num_fields: int) -> tuple[str, ...]:
        """Facts that a picture of a quarter of the side still shows."""
        short, columns = min(self.size), facts.get("columns", "many")
        rules = {
            "colour": "colour" in facts,
            "ground": short >= 64 and facts["ground"] in ("plain", "striped", "checked", "photo"),
            "logo": "logo" in facts,
            "logo side": "logo" in facts,
            "logo colour": "logo" in facts,
            "columns": num_fields >= 3 and self.rng.random() < COLUMN_SHARES[columns],
            "kind": short >= 96 and num_fields >= 2,
        }
        return tuple(topic for topic, holds in rules.items() if holds)


def _logo_shade(ground: Ground, name: str) -> Colour | None:
    """The shade of a colour that stands out from a ground, if one does."""
    for shade in LOGO_COLOURS[name]:
        if min(contrast(shade, ground.base), contrast(shade, ground.other)) > 2.4:
            return shade
    return None

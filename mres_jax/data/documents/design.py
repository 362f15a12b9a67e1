"""Draws one document: ground, logo, frame, text, in this order, from one random seed.

Where something does not fit, ornament goes first, then fields, then text height (never below 8 px),
and at last the keys: a bare value is left. So every size of every bin gives a legible document.
"""

import dataclasses
import random
from collections.abc import Sequence

from mres_jax.data.documents import kinds, layout
from mres_jax.data.documents.bins import bin_of, draw_size
from mres_jax.data.documents.fonts import face
from mres_jax.data.documents.grounds import (
    LOGO_COLOURS,
    Ground,
    contrast,
    draw_ground,
)
from mres_jax.data.documents.questions import ask
from mres_jax.data.documents.render import (
    KEY,
    VALUE,
    Mark,
    Plan,
    make_glyphs,
    paint,
    union,
)
from mres_jax.data.documents.shapes import SHAPES
from mres_jax.data.documents.types import Document, Field, Options
from mres_jax.data.documents.vocabulary import (
    BARE_FORMATS,
    KEYS_OF_KIND,
    KINDS,
    VALUE_FORMATS,
    draw_value,
)
from mres_jax.errors import MresError
from mres_jax.geometry import Box, Size

# Share of each background colour by kind: rows add up to 1, columns to 0.5, so that over the kinds
# every colour is equally likely although a sign is seldom white and a screen often black.
COLOUR_SHARES = {
    "invoice": (0.25, 0.15, 0.00, 0.10, 0.20, 0.10, 0.10, 0.10),
    "table": (0.15, 0.15, 0.05, 0.10, 0.15, 0.15, 0.15, 0.10),
    "sign": (0.02, 0.05, 0.15, 0.20, 0.10, 0.15, 0.15, 0.18),
    "screen": (0.08, 0.15, 0.30, 0.10, 0.05, 0.10, 0.10, 0.12),
}
COLOUR_NAMES = ("white", "grey", "black", "red", "yellow", "green", "blue", "purple")
MOST_FIELDS = {"A": 1, "B": 2, "C": 3, "D": 4, "E": 5, "F": 6, "G": 8}
STYLES = {
    "invoice": ("split", "inline"),
    "table": ("split",),
    "sign": ("inline",),
    "screen": ("split",),
}


@dataclasses.dataclass(kw_only=True)
class Design:
    """A plan with what is known about it."""

    plan: Plan
    keys: tuple[str, ...]
    facts: dict[str, str]
    asked_facts: list[str]


def make_document(
    seed: int,
    *,
    area_bin: str | None = None,
    ratio_bin: str | None = None,
    size: Size | None = None,
    kind: str | None = None,
    options: Options | None = None,
) -> Document:
    """Draws one document; the same arguments give the same bytes.

    Args:
      seed: any integer >= 0.
      area_bin, ratio_bin: cell to draw the size from; each is drawn evenly where it is None.
      size: an exact size instead, at least 11 px per side and inside the area bins.
      kind: one of `KINDS`; drawn evenly where it is None.

    Raises:
      MresError: an unknown bin or kind, or a size outside the bins.
    """
    design, size = draw_design(
        seed, area_bin=area_bin, ratio_bin=ratio_bin, size=size, kind=kind, options=options
    )
    bins = bin_of(size)
    fields = _fields(design)
    kind = design.facts["kind"]
    questions = ask(
        random.Random(seed + 1),
        name=f"document-{seed}",
        fields=fields,
        facts=design.facts,
        asked_facts=design.asked_facts,
        tags=(kind, *bins),
    )
    return Document(
        seed=seed,
        image=paint(design.plan),
        kind=kind,
        area_bin=bins[0],
        ratio_bin=bins[1],
        fields=fields,
        questions=questions,
        glyphs=make_glyphs(design.plan),
        facts=design.facts,
    )


def draw_design(
    seed: int,
    *,
    area_bin: str | None = None,
    ratio_bin: str | None = None,
    size: Size | None = None,
    kind: str | None = None,
    options: Options | None = None,
) -> tuple[Design, Size]:
    """Decides everything about a document without painting it."""
    rng = random.Random(seed)
    options = options or Options()
    drawn = (rng.choice("ABCDEFG"), rng.choice(("BH", "AH", "NM", "AW", "BW")), rng.choice(KINDS))
    if size is None:
        size = draw_size(rng, area_bin or drawn[0], ratio_bin or drawn[1])
    kind = kind or drawn[2]
    if kind not in KINDS:
        raise MresError(f"documents: no kind {kind!r}; have {', '.join(KINDS)}.")
    return _Designer(rng, size, kind, options).run(), size


def _fields(design: Design) -> tuple[Field, ...]:
    fields = []
    for i, key in enumerate(design.keys):
        mine = [run for run in design.plan.runs if run.field == i]
        keys = [run.boxes for run in mine if run.part == KEY]
        values = [run for run in mine if run.part == VALUE]
        fields.append(
            Field(
                key=key,
                value="".join(run.text for run in values),
                key_box=_around(keys) if keys else None,
                value_box=_around([run.boxes for run in values]),
                text_height=values[0].face.cap_height,
            )
        )
    return tuple(fields)


def _around(boxes: Sequence) -> Box:
    boxes = [union(b) for b in boxes]
    return Box(
        min(b.top for b in boxes),
        min(b.left for b in boxes),
        max(b.bottom for b in boxes),
        max(b.right for b in boxes),
    )


class _Designer:
    """Draws the choices of one document and fits them together."""

    def __init__(self, rng: random.Random, size: Size, kind: str, options: Options):
        self.rng, self.size, self.kind, self.options = rng, size, kind, options
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
        most = min(MOST_FIELDS[self.area_bin], options.max_fields)
        self.num_fields = rng.randint(min(2, most), most)
        self.wants_bare = self.area_bin == "A" or (kind == "sign" and rng.random() < 0.12)
        self.texts = rng.getrandbits(64)  # seed of keys and values, the same in every attempt

    def run(self) -> Design:
        low = min(8, self.cap_height)
        heights = dict.fromkeys((self.cap_height, (self.cap_height + low) // 2, low))
        ornaments = [(self.wants_logo, True), (False, True), (False, False)]
        if not self.wants_bare:
            for cap_height in heights:
                for logo, framed in dict.fromkeys(ornaments):
                    if design := self.attempt(cap_height, logo, framed):
                        return design
        for cap_height in range(self.cap_height, low - 1, -1):
            if design := self.attempt_bare(cap_height):
                return design
        raise MresError(
            f"documents: no text of {low} px fits {self.size.width} x {self.size.height} px."
        )

    # Parts --------------------------------------------------------------------------------------

    def start(self, cap_height: int, framed: bool) -> tuple[kinds.Draft, Box]:
        """Lays the ground, and a sheet of paper on a photo; returns what is free."""
        plan = Plan(size=self.size, ground=self.ground)
        ground, rect = self.ground, Box(0, 0, *self.size)
        short = min(self.size)
        has_card = framed and self.wants_card
        if has_card:
            ground = Ground(
                style="plain",
                colour=None,
                base=kinds.PAPER,
                other=kinds.PAPER,
                ink=(20, 22, 28),
                seed=0,
            )
        accent = kinds.accent_on(self.rng, ground)
        draft = kinds.Draft(
            rng=self.rng,
            plan=plan,
            ground=ground,
            accent=accent,
            type_=self.type_of(cap_height, ground),
            family=self.family,
        )
        if has_card:
            rect = kinds.shrink(rect, max(7, short // 11))
            shadow = max(2, short // 90)
            draft.fill(Box(*(side + shadow for side in rect)), (0, 0, 0), radius=shadow, share=0.35)
            draft.fill(rect, kinds.PAPER)
        if framed and self.kind == "sign" and short >= 40:
            inset = max(2, short // 30)
            width = max(1, short // 90)
            rect = kinds.shrink(rect, inset)
            draft.outline(rect, width, ground.ink, 0.85)
            rect = kinds.shrink(rect, width)
        return draft, kinds.shrink(rect, max(1, short // (16 if framed and short >= 48 else 24)))

    def type_of(self, cap_height: int, ground: Ground) -> layout.Type:
        value_face = face(self.family, self.bold, cap_height)
        return layout.Type(
            key_face=face(self.family, False, cap_height) if self.bold else value_face,
            value_face=value_face,
            key_colour=ground.ink,
            value_colour=ground.ink,
        )

    def add_logo(self, draft: kinds.Draft, rect: Box) -> tuple[Box, dict[str, str]] | None:
        """Puts a shape on one side; returns the rest of the rectangle."""
        short = min(self.size)
        sides = {"AH": "top bottom", "BH": "top bottom", "AW": "left right", "BW": "left right"}
        side = self.rng.choice(sides.get(self.ratio_bin, "left right top bottom").split())
        length = min(round(short * self.rng.uniform(0.27, 0.42)), *rect.size)
        if length < 0.25 * short:
            return None
        names = [n for n in LOGO_COLOURS if n != self.ground.colour and self.logo_shade(draft, n)]
        name = self.rng.choice(names)
        shape = self.rng.choice(SHAPES)
        gap = max(4, short // 20)
        top, left, bottom, right = rect
        middle_y, middle_x = (top + bottom - length) // 2, (left + right - length) // 2
        place, rest = {
            "left": ((middle_y, left), Box(top, left + length + gap, bottom, right)),
            "right": ((middle_y, right - length), Box(top, left, bottom, right - length - gap)),
            "top": ((top, middle_x), Box(top + length + gap, left, bottom, right)),
            "bottom": ((bottom - length, middle_x), Box(top, left, bottom - length - gap, right)),
        }[side]
        box = Box(*place, place[0] + length, place[1] + length)
        colour = self.logo_shade(draft, name)
        assert colour is not None
        draft.plan.things.append(Mark(box=box, shape=shape, colour=colour))
        return rest, {"logo": shape, "logo side": side, "logo colour": name}

    def logo_shade(self, draft: kinds.Draft, name: str):
        ground = draft.ground
        for shade in LOGO_COLOURS[name]:
            if min(contrast(shade, ground.base), contrast(shade, ground.other)) > 2.4:
                return shade
        return None

    # Attempts -----------------------------------------------------------------------------------

    def attempt(self, cap_height: int, logo: bool, framed: bool) -> Design | None:
        draft, rect = self.start(cap_height, framed)
        facts: dict[str, str] = {}
        if logo:
            if (found := self.add_logo(draft, rect)) is None:
                return None
            rect, facts = found
        if framed:
            rect = kinds.FRAMES[self.kind](draft, rect)
        if min(rect.size) < cap_height:
            return None
        flat = rect.size.height < draft.line
        if flat:
            draft.type_ = dataclasses.replace(draft.type_, flat=True)
        for count in range(self.num_fields, 0, -1):
            keys, pairs = self.draw_pairs(draft, rect, count, flat)
            if len(keys) == count and (columns := self.place(draft, rect, pairs, framed)):
                facts["columns"] = {1: "one", 2: "two"}.get(columns, "many")
                return self.finish(draft, keys, facts)
        return None

    def draw_pairs(self, draft: kinds.Draft, rect: Box, count: int, flat: bool):
        """Draws keys that fit the width and values for them."""
        rng = random.Random(self.texts)
        type_, width = draft.type_, rect.size.width - 2
        upper = flat or rng.random() < 0.3
        colon = self.kind in ("invoice", "screen") and rng.random() < 0.5
        pool = list(KEYS_OF_KIND[self.kind])
        rng.shuffle(pool)

        def printed(key: str) -> str:
            text = key.upper() if upper else key.capitalize()
            return text + ":" if colon else text

        keys = [key for key in pool if type_.key_face.width(printed(key)) <= width][:count]
        max_chars = min(self.options.max_chars, width // type_.value_face.glyph("0").advance)
        if max_chars < 3:
            return (), ()
        values: list[str] = []
        for key in keys:
            value = draw_value(rng, VALUE_FORMATS[key], max_chars, flat)
            while value in values:
                value = draw_value(rng, VALUE_FORMATS[key], max_chars, flat)
            values.append(value)
        pairs = [layout.Pair(key=printed(k), value=v) for k, v in zip(keys, values, strict=True)]
        return tuple(keys), pairs

    def place(
        self, draft: kinds.Draft, rect: Box, pairs: Sequence[layout.Pair], framed: bool
    ) -> int:
        """Writes the pairs in one of the arrangements that fit; returns its columns, 0 if none."""
        found: dict[int, list[layout.Arrangement]] = {}
        line = draft.line
        for columns in dict.fromkeys((1, 2, 3, len(pairs))):
            if columns > len(pairs):
                continue
            for style in (*STYLES[self.kind], "stacked"):
                gutter = line // 3 if self.kind == "screen" and framed else 0
                if columns > 1 and self.kind in ("invoice", "sign"):
                    gutter = line
                arrangement = layout.arrange(
                    pairs,
                    rect,
                    draft.type_,
                    style=style,
                    columns=columns,
                    pad=line // 3 if framed else 1,
                    gutter=gutter,
                )
                if arrangement:
                    found.setdefault(columns, []).append(arrangement)
        if not found:
            return 0
        few = [columns for columns in found if columns <= 2]
        columns = self.rng.choice(few or list(found))
        arrangement = self.rng.choice(found[columns])
        if framed:
            kinds.DRESSES[self.kind](draft, arrangement)
        align = "centre" if self.kind == "sign" else "left"
        draft.plan.runs += layout.write_pairs(pairs, arrangement, draft.type_, align=align)
        return columns

    def attempt_bare(self, cap_height: int) -> Design | None:
        framed = self.area_bin != "A"
        draft, rect = self.start(cap_height, framed)
        rng = random.Random(self.texts)
        value_face = draft.type_.value_face
        limit = 3 if self.area_bin == "A" else min(5, self.options.max_chars)
        across = min(limit, (rect.size.width + 1) // value_face.glyph("0").advance)
        down = min(limit, rect.size.height // (cap_height + max(2, cap_height // 4)))
        upright = across < 2 <= down
        most = down if upright else across
        write = layout.write_upright if upright else layout.write_bare
        for length in range(most, 0, -1):
            for _ in range(4):  # W may be too wide where 1 is not
                most_chars = rng.randint(min(2, length), length)
                value = draw_value(rng, BARE_FORMATS, most_chars, True)
                if runs := write(value, rect, value_face, draft.ground.ink):
                    draft.plan.runs += runs
                    return self.finish(draft, ("",), {})
        return None

    def finish(self, draft: kinds.Draft, keys: tuple[str, ...], facts: dict[str, str]) -> Design:
        facts |= {"kind": self.kind, "ground": self.ground.style}
        if self.ground.colour:
            facts["colour"] = self.ground.colour
        return Design(
            plan=draft.plan, keys=keys, facts=facts, asked_facts=self.asked(facts, len(keys))
        )

    def asked(self, facts: dict[str, str], num_fields: int) -> list[str]:
        """Facts that a picture of a quarter of the side still shows."""
        short, asked = min(self.size), []
        if "colour" in facts:
            asked.append("colour")
        if short >= 64 and facts["ground"] in ("plain", "striped", "checked", "photo"):
            asked.append("ground")
        if "logo" in facts:
            asked += ["logo", "logo side", "logo colour"]
        if num_fields >= 3 and facts.get("columns") in ("one", "two"):
            asked.append("columns")
        if short >= 96 and num_fields >= 2:
            asked.append("kind")
        return asked

"""Large pictures with small boards on them: screens with windows, scenes with signs.

A board has its name in large letters and its value in small ones. So a glance at the whole picture
shows where a value stands, and only a close look what it is: what a zoom is for.
"""

import random

from mres_jax.data.documents.bins import bin_of
from mres_jax.data.documents.compose import COLOUR_NAMES, Design
from mres_jax.data.documents.design import fields_of
from mres_jax.data.documents.document import Document
from mres_jax.data.documents.draft import PAPER
from mres_jax.data.documents.fonts import face
from mres_jax.data.documents.grounds import COLOURS, Colour, draw_ground, ink_on, mix
from mres_jax.data.documents.questions import ask
from mres_jax.data.documents.render import KEY, VALUE, Fill, Plan, Run
from mres_jax.data.documents.vocabulary import KEYS, VALUE_FORMATS, draw_value
from mres_jax.errors import MresError
from mres_jax.geometry import Box, Size

BOARD_KINDS = ("desktop", "scene")
GROUNDS = {"desktop": ("plain", "striped", "checked", "shaded"), "scene": ("photo", "rough")}
SIZES = (Size(270, 480), Size(540, 960))  # an eighth of 4K's and 8K's sides
NAME_HEIGHTS, VALUE_HEIGHTS = (14, 18), (9, 11)  # px of a capital
PX_A_BOARD = 26_000  # of the picture, at the densest
MOST_BOARDS = 10
TRIES = 60  # places tried for a board
GAP = 5  # px between boards, and to the edge


def make_board_picture(seed: int, *, kind: str, size: Size | None = None) -> Document:
    """Draws a screen with windows or a scene with signs; the same arguments give the same bytes.

    Args:
      seed: any integer >= 0.
      kind: `desktop` or `scene`.
      size: of the picture, inside the bins of area; drawn where it is None.

    Raises:
      MresError: an unknown kind, or a size on which no board finds room.
    """
    if kind not in BOARD_KINDS:
        raise MresError(f"documents: no kind {kind!r}; have {', '.join(BOARD_KINDS)}.")
    rng = random.Random(f"{kind}-{seed}")
    size = size or _draw_size(rng)
    ground = draw_ground(rng, rng.choice(GROUNDS[kind]), rng.choice(COLOUR_NAMES))
    plan, keys, taken = Plan(size=size, ground=ground), [], []
    most = max(2, min(MOST_BOARDS, size.area // PX_A_BOARD))
    for key in rng.sample(KEYS, rng.randint(2, most)):
        board = _Board(rng, kind, key)
        if (box := _free_place(rng, board.size, size, taken)) is not None:
            board.draw(plan, box, field=len(keys))
            taken.append(box)
            keys.append(key)
    if not keys:
        raise MresError(
            f"documents: no board finds room on {size.width} x {size.height} px. Choose a larger "
            "size."
        )
    facts = {"kind": kind, "ground": ground.style}
    fields = fields_of(Design(plan=plan, keys=tuple(keys), facts=facts, asked_facts=[]))
    bins = bin_of(size)
    return Document(
        seed=seed,
        plan=plan,
        kind=kind,
        area_bin=bins[0],
        ratio_bin=bins[1],
        fields=fields,
        questions=ask(
            random.Random(seed + 1),
            name=f"{kind}-{seed}",
            size=size,
            fields=fields,
            facts=facts,
            asked_facts=[],
            tags=(kind, *bins),
        ),
        facts=facts,
    )


class _Board:
    """A window or a sign with one value: its looks are drawn first, then where it stands."""

    def __init__(self, rng: random.Random, kind: str, key: str):
        self.kind, self.pad = kind, rng.randint(4, 8)
        family = rng.choice(("mono", "sans"))
        self.name_face = face(family, True, rng.randint(*NAME_HEIGHTS))
        self.value_face = face(family, False, rng.randint(*VALUE_HEIGHTS))
        self.name = rng.choice((key.capitalize(), key.upper()))
        self.value = draw_value(rng, VALUE_FORMATS[key], 8, False)
        self.colour: Colour = rng.choice(COLOURS[rng.choice(COLOUR_NAMES)])
        self.paper: Colour = PAPER if kind == "desktop" else self.colour
        self.lead = rng.randint(4, 10)
        widest = max(self.name_face.width(self.name), self.value_face.width(self.value))
        self.head = self.name_face.line + self.pad
        height = self.head + self.lead + self.value_face.line + self.pad
        self.size = Size(height, widest + 2 * self.pad + rng.randint(0, 24))

    def draw(self, plan: Plan, box: Box, *, field: int) -> None:
        """Adds it to a plan."""
        frame = mix(self.colour, ink_on(self.colour), 0.35)
        plan.things.append(Fill(box=box, colour=frame, radius=3))
        inner = Box(box.top + 1, box.left + 1, box.bottom - 1, box.right - 1)
        plan.things.append(Fill(box=inner, colour=self.paper, radius=2))
        if self.kind == "desktop":
            bar = inner._replace(bottom=box.top + self.head)
            plan.things.append(Fill(box=bar, colour=self.colour))
        left, top = box.left + self.pad, box.top + self.pad // 2
        name_ink, value_ink = ink_on(self.colour), ink_on(self.paper)
        baseline = top + self.name_face.ascent
        below = box.top + self.head + self.lead + self.value_face.ascent
        for text, line, font, ink, part in (
            (self.name, baseline, self.name_face, name_ink, KEY),
            (self.value, below, self.value_face, value_ink, VALUE),
        ):
            run = Run(
                text=text, left=left, baseline=line, face=font, colour=ink, field=field, part=part
            )
            plan.runs.append(run)


def _draw_size(rng: random.Random) -> Size:
    """One of `SIZES` half of the time, else any between them."""
    if rng.random() < 0.5:
        return rng.choice(SIZES)
    width = rng.randint(320, 960)
    return Size(max(200, min(540, round(width / rng.uniform(1.2, 2.2)))), width)


def _free_place(rng: random.Random, board: Size, size: Size, taken: list[Box]) -> Box | None:
    """A place for a board that touches none, or None where none was found."""
    room = Size(size.height - board.height - GAP, size.width - board.width - GAP)
    if min(room) < GAP:
        return None
    for _ in range(TRIES):
        top, left = rng.randint(GAP, room.height), rng.randint(GAP, room.width)
        box = Box(top, left, top + board.height, left + board.width)
        if not any(_touch(box, other) for other in taken):
            return box
    return None


def _touch(a: Box, b: Box) -> bool:
    down = a.top - GAP < b.bottom and b.top - GAP < a.bottom
    return down and a.left - GAP < b.right and b.left - GAP < a.right

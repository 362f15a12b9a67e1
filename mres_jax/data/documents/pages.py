"""Dense pages of key-value pairs: a training aid, not part of the 35 cells.

Half of the patches of a page hold a character, against a tenth in a document, so a tower learns to
read from pages several times faster per patch. The picture is as large as its text.
"""

import random
from collections.abc import Sequence

from mres_jax.data.documents.bins import bin_of
from mres_jax.data.documents.design import COLOUR_NAMES, Design, fields_of
from mres_jax.data.documents.document import Document
from mres_jax.data.documents.fonts import Face, face
from mres_jax.data.documents.grounds import draw_ground
from mres_jax.data.documents.questions import ask
from mres_jax.data.documents.render import KEY, VALUE, Plan, Run
from mres_jax.data.documents.types import Options
from mres_jax.data.documents.vocabulary import KEYS, VALUE_FORMATS, draw_value
from mres_jax.geometry import Size

KIND = "page"


def make_page(seed: int, *, max_pairs: int = 16, options: Options | None = None) -> Document:
    """Draws one page of 1 to `max_pairs` pairs, few more often than many, in one or two columns.

    `options` may name fonts, heights, grounds and the longest value, as for `make_document`.
    """
    rng, options = random.Random(seed), options or Options()
    families = options.families
    family = rng.choices(list(families), list(families.values()))[0]
    height = rng.randint(*options.cap_heights)
    key_face, value_face = (face(family, rng.random() < 0.35, height) for _ in range(2))
    most = min(max_pairs, len(KEYS))
    keys = rng.sample(KEYS, int((most + 1) ** rng.random()))
    values = [draw_value(rng, VALUE_FORMATS[key], options.max_chars, False) for key in keys]
    shown = [_printed(rng, key) for key in keys]
    ground = draw_ground(rng, rng.choice(options.grounds), rng.choice(COLOUR_NAMES))
    facts = {"kind": KIND, "ground": ground.style}
    if ground.colour:
        facts["colour"] = ground.colour
    runs, size = _write(rng, shown, values, key_face, value_face, ground.ink)
    plan = Plan(size=size, ground=ground, runs=runs)
    design = Design(plan=plan, keys=tuple(keys), facts=facts, asked_facts=[])
    fields, bins = fields_of(design), bin_of(size)
    return Document(
        seed=seed,
        plan=plan,
        kind=KIND,
        area_bin=bins[0],
        ratio_bin=bins[1],
        fields=fields,
        questions=ask(
            random.Random(seed + 1),
            name=f"page-{seed}",
            size=size,
            fields=fields,
            facts=design.facts,
            asked_facts=[],
            tags=(KIND, *bins),
        ),
        facts=design.facts,
    )


def _printed(rng: random.Random, key: str) -> str:
    text = rng.choice((key.capitalize(), key.upper()))
    return text + rng.choice(("", ":"))


def _write(
    rng: random.Random,
    keys: Sequence[str],
    values: Sequence[str],
    key_face: Face,
    value_face: Face,
    ink: tuple[int, int, int],
) -> tuple[list[Run], Size]:
    """Text of all pairs, and the size of the page around it, px."""
    space, stacked = key_face.glyph("0").advance, rng.random() < 0.25
    key_width = max(key_face.width(key) for key in keys) + space
    tab = 0 if stacked else rng.choice((key_width, 0))  # a common tab stop, or right behind the key
    cells = []
    for key, value in zip(keys, values, strict=True):
        left = 0 if stacked else (tab or key_face.width(key) + space)
        width = max(key_face.width(key), left + value_face.width(value))
        cells.append((key, value, left, width))
    columns = rng.choice((1, 2)) if len(cells) > 3 else 1
    cell_width = max(cell[3] for cell in cells) + 2 * space
    lead = key_face.line + rng.randint(1, 5)
    cell_height = lead * (2 if stacked else 1) + (3 if stacked else 0)
    margin = rng.randint(2, 9)
    runs: list[Run] = []
    for i, (key, value, left, _) in enumerate(cells):
        x = margin + i % columns * cell_width
        y = margin + i // columns * cell_height + key_face.ascent
        common = {"colour": ink, "field": i}
        runs.append(Run(text=key, left=x, baseline=y, face=key_face, part=KEY, **common))
        y += lead if stacked else 0
        runs.append(
            Run(text=value, left=x + left, baseline=y, face=value_face, part=VALUE, **common)
        )
    rows = -(-len(cells) // columns)
    size = Size(2 * margin + rows * cell_height, 2 * margin + columns * cell_width)
    return runs, size

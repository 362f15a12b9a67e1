"""Draws one document from one seed: size and kind here, the rest in `compose`."""

import random
from collections.abc import Sequence

import numpy as np

from mres_jax.data.documents.bins import AREA_BINS, RATIO_BINS, bin_of, draw_size
from mres_jax.data.documents.compose import COLOUR_NAMES as COLOUR_NAMES, Composer, Design
from mres_jax.data.documents.document import Document
from mres_jax.data.documents.questions import ask
from mres_jax.data.documents.render import KEY, VALUE, Mark, union
from mres_jax.data.documents.types import Field, Options
from mres_jax.data.documents.vocabulary import KINDS
from mres_jax.errors import MresError
from mres_jax.geometry import Box, Size


def make_document(
    seed: int,
    *,
    area_bin: str | None = None,
    ratio_bin: str | None = None,
    size: Size | None = None,
    kind: str | None = None,
    options: Options | None = None,
    values: Sequence[str] = (),
) -> Document:
    """Draws one document; the same arguments give the same bytes.

    Args:
      seed: any integer >= 0.
      area_bin: to draw the size from; drawn evenly where it is None.
      ratio_bin: likewise.
      size: an exact size instead, at least 11 px per side and inside the area bins.
      kind: one of `KINDS`; drawn evenly where it is None.
      options: what may be drawn; None takes the full range.
      values: stand in the first fields instead of drawn ones; where they find no room at any height
        of text, a document without them is drawn.

    Raises:
      MresError: an unknown bin or kind, or a size outside the bins.
    """
    design, size = draw_design(
        seed,
        area_bin=area_bin,
        ratio_bin=ratio_bin,
        size=size,
        kind=kind,
        options=options,
        values=values,
    )
    bins = bin_of(size)
    fields = fields_of(design)
    kind = design.facts["kind"]
    questions = ask(
        random.Random(seed + 1),
        name=f"document-{seed}",
        size=size,
        fields=fields,
        facts=design.facts,
        asked_facts=design.asked_facts,
        tags=(kind, *bins),
    )
    return Document(
        seed=seed,
        plan=design.plan,
        kind=kind,
        area_bin=bins[0],
        ratio_bin=bins[1],
        fields=fields,
        questions=questions,
        facts=design.facts,
        logo_box=_logo_box(design),
    )


def draw_design(
    seed: int,
    *,
    area_bin: str | None = None,
    ratio_bin: str | None = None,
    size: Size | None = None,
    kind: str | None = None,
    options: Options | None = None,
    values: Sequence[str] = (),
) -> tuple[Design, Size]:
    """Decides everything about a document without painting it."""
    rng = random.Random(seed)
    options = options or Options()
    drawn = tuple(rng.choice(list(names)) for names in (AREA_BINS, RATIO_BINS, KINDS))
    if size is None:
        size = draw_size(rng, area_bin or drawn[0], ratio_bin or drawn[1])
    kind = kind or drawn[2]
    if kind not in KINDS:
        raise MresError(f"documents: no kind {kind!r}; have {', '.join(KINDS)}.")
    return Composer(rng, size, kind, options, values=values).run(), size


def fields_of(design: Design) -> tuple[Field, ...]:
    """Keys and values of a design with the boxes that its painted runs fill."""
    fields = []
    for i, key in enumerate(design.keys):
        mine = [run for run in design.plan.runs if run.field == i]
        keys = [run.boxes for run in mine if run.part == KEY]
        values = [run for run in mine if run.part == VALUE]
        field = Field(
            key=key,
            value="".join(run.text for run in values),
            key_box=_around(keys) if keys else None,
            value_box=_around([run.boxes for run in values]),
            text_height=values[0].face.cap_height,
        )
        fields.append(field)
    return tuple(fields)


def _logo_box(design: Design) -> Box | None:
    """Where there is a logo, no other mark is drawn."""
    if "logo" not in design.facts:
        return None
    (box,) = (thing.box for thing in design.plan.things if isinstance(thing, Mark))
    return box


def _around(boxes: Sequence[np.ndarray]) -> Box:
    return union(np.concatenate(boxes))

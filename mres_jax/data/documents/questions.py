"""Questions about a drawn document: to read (`rc`), to see (`sc`), to point (`point`)."""

import random
from collections.abc import Mapping, Sequence

from mres_jax.coordinates import from_picture
from mres_jax.data.documents import vocabulary
from mres_jax.data.documents.types import Field, Question
from mres_jax.geometry import Box, Size, View


def ask(
    rng: random.Random,
    *,
    name: str,
    size: Size,
    fields: Sequence[Field],
    facts: Mapping[str, str],
    asked_facts: Sequence[str],
    tags: tuple[str, ...],
) -> tuple[Question, ...]:
    """Returns one `rc` and one `point` question per field and one `sc` question per asked fact.

    `size` is the picture's.
    """
    return (
        *(_read(rng, f"{name}-rc{i}", f, tags) for i, f in enumerate(fields)),
        *(_see(rng, f"{name}-sc{i}", t, facts[t], tags) for i, t in enumerate(asked_facts)),
        *(_point(rng, f"{name}-point{i}", f, size, tags) for i, f in enumerate(fields) if f.key),
    )


def _read(rng: random.Random, name: str, field: Field, tags: tuple[str, ...]) -> Question:
    templates = vocabulary.RC_TEMPLATES if field.key else vocabulary.BARE_TEMPLATES
    return Question(
        id=name,
        text=rng.choice(templates).format(key=field.key),
        answer=field.value,
        type="rc",
        scorer="exact",
        box=field.value_box,
        text_height=field.text_height,
        tags=(field.key or "bare", *tags),
    )


def _see(rng: random.Random, name: str, topic: str, answer: str, tags: tuple[str, ...]) -> Question:
    return Question(
        id=name,
        text=rng.choice(vocabulary.SC_TEMPLATES[topic]),
        answer=answer,
        type="sc",
        scorer="exact",
        box=None,
        text_height=0,
        tags=(topic, *tags),
    )


def _point(
    rng: random.Random, name: str, field: Field, size: Size, tags: tuple[str, ...]
) -> Question:
    scorer = "point" if rng.random() < 0.7 else "box"
    templates = vocabulary.POINT_TEMPLATES if scorer == "point" else vocabulary.BOX_TEMPLATES
    box = field.value_box
    return Question(
        id=name,
        text=rng.choice(templates).format(key=field.key),
        answer=place_in(View(item=0, crop=Box(0, 0, *size), size=size), box, scorer=scorer),
        type="point",
        scorer=scorer,
        box=box,
        text_height=field.text_height,
        tags=(field.key, *tags),
    )


def place_in(view: View, box: Box, *, scorer: str, step: int = 1) -> str:
    """Returns how a place is answered by one who sees a view, in thousandths of it.

    Args:
      view: what is looked at.
      box: the place, px of the picture.
      scorer: `point` for its centre, `[x, y]`; `box` for `[left, top, right, bottom]`.
      step: thousandths that are told apart; a place is called after the middle of its strip.
    """
    corners = [(box.top, box.left), (box.bottom, box.right)]
    if scorer == "point":
        corners = [((box.top + box.bottom) / 2, (box.left + box.right) / 2)]
    places = [from_picture(y, x, view=view, coord_frame="relative_1000") for y, x in corners]
    numbers = [round(number) for place in places for number in place]
    if step > 1:
        numbers = [min(number, 999) // step * step + step // 2 for number in numbers]
    return f"[{', '.join(map(str, numbers))}]"

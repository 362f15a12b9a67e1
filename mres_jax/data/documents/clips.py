"""Clips in which one or two frames carry the text that is asked for; the rest repeats or distracts.

Ours, for readers and allocators of a small scale: what a clip of a lecture or a street is to a
question about one sign.
"""

import random
from typing import NamedTuple

from mres_jax.data.documents.design import make_document
from mres_jax.data.documents.document import Document
from mres_jax.data.documents.grounds import draw_ground
from mres_jax.data.documents.render import Plan
from mres_jax.data.documents.sets import item_seed
from mres_jax.data.documents.types import Options, Question
from mres_jax.errors import MresError
from mres_jax.geometry import Size

FRAME = Size(128, 160)  # px: 80 visual tokens of mres-tiny
OPTIONS = Options(cap_heights=(10, 12), max_fields=3, logo=0.0)
DISTRACTING = 0.5  # share of the other frames that carry text nobody asks for
TRIES = 1_000


class DrawnClip(NamedTuple):
    """Frames, and what can be asked about them.

    Attributes:
      frames: one document each; the same one where a frame repeats another.
      questions: to be read in the telling frames, about values with a name.
      telling: numbers of the frames that answer them, one or two in a row.
    """

    frames: tuple[Document, ...]
    questions: tuple[Question, ...]
    telling: tuple[int, ...]


def draw_clip(seed: int, num_frames: int) -> DrawnClip:
    """Draws one; the same arguments give the same clip."""
    rng = random.Random(seed)
    asked = _draw_asked(rng.getrandbits(48))
    start, count = rng.randrange(num_frames), rng.choice((1, 2))
    telling = tuple(range(start, min(start + count, num_frames)))
    taken, still = _keys(asked), _draw_still(rng)
    frames = []
    for i in range(num_frames):
        if i in telling:
            frames.append(asked)
        elif rng.random() < DISTRACTING:
            frames.append(_draw_distractor(rng, taken))
        else:
            frames.append(still)
    return DrawnClip(tuple(frames), tuple(_named(asked)), telling)


def _named(document: Document) -> list[Question]:
    return [q for q in document.questions if q.type == "rc" and q.tags[0] != "bare"]


def _keys(document: Document) -> set[str]:
    return {field.key for field in document.fields}


def _draw_asked(seed: int) -> Document:
    for attempt in range(TRIES):
        document = make_document(item_seed(seed, attempt), size=FRAME, options=OPTIONS)
        if _named(document):
            return document
    raise MresError(f"clips: no document with a named value in {TRIES} from seed {seed}.")


def _draw_distractor(rng: random.Random, taken: set[str]) -> Document:
    """A document without the names that are asked for."""
    for _ in range(TRIES):
        document = make_document(rng.getrandbits(48), size=FRAME, options=OPTIONS)
        if not _keys(document) & taken:
            return document
    raise MresError(f"clips: {TRIES} documents in a row had one of {', '.join(sorted(taken))}.")


def _draw_still(rng: random.Random) -> Document:
    """A photograph without text."""
    ground = draw_ground(rng, "photo", "white")
    return Document(
        seed=ground.seed,
        plan=Plan(size=FRAME, ground=ground),
        kind="still",
        area_bin="C",
        ratio_bin="NM",
        fields=(),
        questions=(),
        facts={"ground": "photo"},
    )

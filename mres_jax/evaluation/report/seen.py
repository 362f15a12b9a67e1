"""The items that flipped, with the pictures as each arm saw them."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mres_jax.config import from_json
from mres_jax.data.views import render_view
from mres_jax.errors import MresError
from mres_jax.evaluation.arms.points import Pooled
from mres_jax.evaluation.arms.questions import AskedQuestion
from mres_jax.evaluation.arms.samples import Sample
from mres_jax.evaluation.arms.tasks import find_questions
from mres_jax.evaluation.pages import cut_detail
from mres_jax.evaluation.report.compare import Comparison, Pair
from mres_jax.geometry import View
from mres_jax.protocols import Clip, Item

MOST_VIEWS = 4  # of an answer that are drawn
LARGEST = 640  # px a side; larger views are drawn smaller, and say so


class Seen(NamedTuple):
    """One answer with what was looked at.

    Attributes:
      sample: the answer.
      policy: its arm's.
      pictures: of its views, `uint8 [h w 3]`, with the factor that each is drawn smaller by.
      detail: the part that shows the answer's box; None where there is none.
      hidden: views that are not drawn.
    """

    sample: Sample
    policy: str
    pictures: list[tuple[np.ndarray, int]]
    detail: np.ndarray | None
    hidden: int


class Flip(NamedTuple):
    """One question that one arm of two got right."""

    pair: Pair
    first: Seen
    second: Seen


def show_flips(comparison: Comparison, count: int) -> tuple[list[Flip], str]:
    """Returns some of the questions that flipped, and why pictures are missing where they are.

    Args:
      comparison: of two arms, over all types.
      count: at most so many, half won and half lost as far as there are.
    """
    chosen = _choose(*comparison.flips, count)
    questions: dict[tuple[int, str], AskedQuestion] = {}
    missing = ""
    for result in comparison.first.results:
        ids = [pair.first.id for pair in chosen if pair.seed == result.seed]
        try:
            task = from_json(json.dumps(result.summary["made"]["task"]))
            found = find_questions(task, result.seed, ids) if ids else {}
        except MresError as error:
            found, missing = {}, f"pictures are missing: {error}"
        questions |= {(result.seed, name): question for name, question in found.items()}
    flips = []
    for pair in chosen:
        question = questions.get((pair.seed, pair.first.id))
        try:
            items = question.open(None) if question else []
        except MresError as error:
            items, missing = [], f"pictures are missing: {error}"
        seen = (
            _see(sample, pooled, items, question)
            for sample, pooled in ((pair.first, comparison.first), (pair.second, comparison.second))
        )
        flips.append(Flip(pair, *seen))
    return flips, missing


def _choose(won: Sequence[Pair], lost: Sequence[Pair], count: int) -> list[Pair]:
    half = max(count // 2, count - len(lost))
    first = list(won[:half])
    return first + list(lost[: count - len(first)])


def _see(
    sample: Sample, pooled: Pooled, items: Sequence[Item], question: AskedQuestion | None
) -> Seen:
    facts = pooled.results[0].identity["model"]["processor"]
    drawn = [view for view in sample.views if view.item < len(items)][:MOST_VIEWS]
    whole = [(view, _render(items[view.item], view, facts)) for view in drawn]
    box = question.box if question else None
    details = [
        cut_detail(pixels, view, box)
        for view, pixels in whole
        if box is not None and pixels is not None and view.item == 0 and view.window is None
    ]
    return Seen(
        sample=sample,
        policy=pooled.arm.policy,
        pictures=[_smaller(pixels) for _, pixels in whole if pixels is not None],
        detail=details[0] if details else None,
        hidden=len(sample.views) - len(whole),
    )


def _render(item: Item, view: View, facts: dict[str, Any]) -> np.ndarray | None:
    """What the encoder got; of a clip the first frame of the view, where it is at hand."""
    if not isinstance(item, Clip):
        picture = item
    elif view.frames and view.frames[0] < len(item.frames):
        picture = item.frames[view.frames[0]]
    else:
        return None
    red, green, blue = facts["background"]
    try:
        return render_view(
            picture,
            view,
            background=(red, green, blue),
            pad_first=facts["pad_first"],
            resample=facts.get("resample", "bicubic"),  # absent from older runs
        )
    except MresError:
        return None  # another picture lies there now


def _smaller(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    factor = -(-max(pixels.shape[:2]) // LARGEST)
    if factor == 1:
        return pixels, 1
    height, width = pixels.shape[:2]
    size = max(width // factor, 1), max(height // factor, 1)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)), factor

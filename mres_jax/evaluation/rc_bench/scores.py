"""What each answer is worth, by the rule of its item."""

from collections.abc import Sequence
from typing import NamedTuple

from mres_jax.evaluation.rc_bench.items import Item
from mres_jax.scoring import anls, exact_match, unit_exact_match

THRESHOLD = 0.5  # of ANLS; the paper names none, and this is what the harnesses use


class Scored(NamedTuple):
    """One item, its prediction and what that is worth, 0 to 1."""

    item: Item
    prediction: str
    score: float


def score_item(item: Item, prediction: str, *, threshold: float = THRESHOLD) -> float:
    """Returns what a prediction is worth, 0 to 1.

    Short answers must match, numbers with units must match once their spellings are brought
    together, long answers get their ANLS. Nothing is looked for inside a longer prediction.
    """
    if item.metric == "anls":
        return anls(prediction, item.answers, threshold=threshold)
    return {"exact": exact_match, "unit": unit_exact_match}[item.metric](prediction, item.answers)


def score_items(
    items: Sequence[Item], predictions: Sequence[str], *, threshold: float = THRESHOLD
) -> list[Scored]:
    """Scores the prediction of each item."""
    return [
        Scored(item, text, score_item(item, text, threshold=threshold))
        for item, text in zip(items, predictions, strict=True)
    ]

"""Scores of answers: text, numbers with units, boxes and points, and intervals of means.

Plain functions of strings and numbers. Every rule of normalisation is written where it is used.
"""

import math
import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from mres_jax.geometry import Box

# Spellings of one unit. Only spellings are joined: 1 km is not 1000 m here.
_UNITS = {
    "%": ("percent", "pct", "per cent"),
    "$": ("usd", "us$", "dollar", "dollars"),
    "€": ("eur", "euro", "euros"),
    "£": ("gbp", "pound", "pounds"),
    "kg": ("kgs", "kilogram", "kilograms", "kilo", "kilos"),
    "g": ("gr", "gram", "grams"),
    "lb": ("lbs",),
    "km": ("kms", "kilometer", "kilometers", "kilometre", "kilometres"),
    "m": ("meter", "meters", "metre", "metres"),
    "cm": ("centimeter", "centimeters", "centimetre", "centimetres"),
    "mm": ("millimeter", "millimeters", "millimetre", "millimetres"),
    "l": ("liter", "liters", "litre", "litres", "ltr"),
    "ml": ("milliliter", "milliliters", "millilitre", "millilitres"),
    "h": ("hr", "hrs", "hour", "hours"),
    "min": ("mins", "minute", "minutes"),
    "s": ("sec", "secs", "second", "seconds"),
    "pcs": ("pc", "piece", "pieces"),
    "°c": ("degc", "c", "celsius", "degrees celsius"),
}
_QUOTES = " \"'`\u201c\u201d\u2018\u2019"
_CANONICAL = {name: unit for unit, names in _UNITS.items() for name in (unit, *names)}
_NUMBER = re.compile(
    r"(?P<before>[^\d+.-]*)(?P<number>[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?)(?P<after>\D*)"
)


class Interval(NamedTuple):
    """A mean between 0 and 1 with its confidence interval."""

    mean: float
    low: float
    high: float


def normalize_answer(text: str) -> str:
    """Returns an answer as it is compared.

    Unicode is brought to NFKC, letters to lower case, runs of white space to one blank; blanks
    and quotes at both ends and full stops at the last go. Nothing inside is touched: `1,000`
    stays so.

    Example:
      >>> normalize_answer('  "Invoice  No. 7".\\n')
      'invoice no. 7'
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return text.lstrip(_QUOTES).rstrip(_QUOTES + ".")


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Returns 1.0 when the prediction is one of the answers after `normalize_answer`, else 0.0."""
    given = normalize_answer(prediction)
    return float(any(given == normalize_answer(answer) for answer in answers))


def unit_exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Exact match where `12.50 USD`, `$12.5` and `12.5 dollars` are one answer.

    Both sides are read as one number with at most one unit; numbers are compared as decimals
    (thousands commas removed, trailing zeros equal), units by a table of spellings. A side that
    is no such quantity is compared as text.

    Reference:
      RC-Bench, section "Scoring" of the NativeRes-LLaVA article (arXiv:2506.12776): equivalent
      spellings are normalised, then exact match. The list of spellings is ours.
    """
    given = _quantity(prediction)
    if given is None:
        return exact_match(prediction, answers)
    return float(any(given == _quantity(answer) for answer in answers))


def _quantity(text: str) -> tuple[Decimal, str] | None:
    match = _NUMBER.fullmatch(normalize_answer(text))
    if match is None or not any(char.isdigit() for char in match["number"]):
        return None
    before, after = match["before"].strip(), match["after"].strip().removesuffix(".")
    if before and after:
        return None
    number = Decimal(match["number"].replace(",", "").rstrip("."))
    unit = before or after
    return number, _CANONICAL.get(unit, unit)


def edit_distance(a: str, b: str) -> int:
    """Returns the least number of insertions, deletions and substitutions from `a` to `b`.

    Example:
      >>> edit_distance("kitten", "sitting")
      3
    """
    row = list(range(len(b) + 1))
    for i, char in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char != other))
    return row[-1]


def anls(prediction: str, answers: Sequence[str], *, threshold: float = 0.5) -> float:
    """Returns the normalised Levenshtein similarity to the nearest answer, 0 below `threshold`.

    Reference:
      Biten et al., 2019, "Scene Text Visual Question Answering", arXiv:1905.13648, equation 1.
      Texts are lower-cased and white space is collapsed first, as is usual; nothing else. A
      similarity of exactly `threshold` counts, as in the evaluation harnesses.
    """
    best = max((_similarity(prediction, answer) for answer in answers), default=0.0)
    return best if best >= threshold else 0.0


def _similarity(a: str, b: str) -> float:
    a, b = " ".join(a.lower().split()), " ".join(b.lower().split())
    longest = max(len(a), len(b))
    return 1.0 - edit_distance(a, b) / longest if longest else 1.0


def box_iou(a: Box, b: Box) -> float:
    """Returns intersection over union of two half-open boxes; 0 where either is empty.

    Example:
      >>> box_iou(Box(0, 0, 10, 10), Box(0, 5, 10, 15))
      0.3333333333333333
    """
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    width = min(a.right, b.right) - max(a.left, b.left)
    if height <= 0 or width <= 0:
        return 0.0
    overlap = height * width
    return overlap / (a.size.area + b.size.area - overlap)


def point_in_box(y: float, x: float, box: Box) -> float:
    """Returns 1.0 when a point (pixels) lies in a half-open box, else 0.0."""
    return float(box.top <= y < box.bottom and box.left <= x < box.right)


def wilson_interval(successes: float, total: int, *, z: float = 1.959964) -> Interval:
    """Returns a share with its Wilson score interval; the default `z` is 95 %.

    With no trials the interval is all of [0, 1].

    Reference:
      Wilson, 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if total < 0 or not 0 <= successes <= total:
        raise ValueError(f"wilson_interval: {successes} successes of {total} trials.")
    if total == 0:
        return Interval(math.nan, 0.0, 1.0)
    share, weight = successes / total, z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))

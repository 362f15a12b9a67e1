"""Scores of answers: text, numbers with units, boxes and points, and intervals of means.

Plain functions of strings and numbers. Every rule of normalisation is written where it is used.
"""

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from mres_jax.coordinates import frame_of, read_places, to_picture
from mres_jax.geometry import Box, Size, View
from mres_jax.quantities import Quantity, read_quantity

_QUOTES = " \"'`\u201c\u201d\u2018\u2019"


class Interval(NamedTuple):
    """A mean with its confidence interval: of a share, or of the difference of two."""

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

    Both sides are read as amounts, see `quantities.read_quantity`: numbers with units in many
    spellings, of which none is converted. Where one side is no amount, both are text. `5 pounds` is
    `5 lb`, and `£5` where the other side says that it is money; `5 lb` is not `£5`.

    Reference:
      RC-Bench, section "Scoring" of the NativeRes-LLaVA article (arXiv:2506.12776): equivalent
      spellings are normalised, then exact match. The list of spellings is ours.
    """
    given = read_quantity(prediction)

    def same(answer: str) -> bool:
        quantity = read_quantity(answer)
        if given is None or quantity is None:
            return exact_match(prediction, [answer]) == 1.0
        return (
            given == quantity
            or (_is_sterling(quantity) and _in_sterling(prediction) == quantity)
            or (_is_sterling(given) and _in_sterling(answer) == given)
        )

    return float(any(same(answer) for answer in answers))


def _is_sterling(quantity: Quantity) -> bool:
    return all(unit == "£" for _, unit in quantity.parts)


def _in_sterling(text: str) -> Quantity | None:
    """The amount that a text is if its pounds are money."""
    return read_quantity(re.sub(r"\bpounds?\b", "gbp", text, flags=re.IGNORECASE))


def edit_distance(a: str, b: str) -> int:
    """Returns the least number of insertions, deletions and substitutions from `a` to `b`.

    A column of the table of distances is two whole numbers, a bit for each character of the longer
    text: where it rises by one from row to row, and where it falls. Each character of the shorter
    takes a few operations on them: 20,000 against 20,000 characters are a fraction of a second.

    Reference:
      Myers, 1999, "A fast bit-vector algorithm for approximate string matching"; as of whole texts:
      Hyyrö, 2003, "A bit-vector algorithm for computing Levenshtein and Damerau edit distances".

    Example:
      >>> edit_distance("kitten", "sitting")
      3
    """
    short, long = sorted((a, b), key=len)
    if not short:
        return len(long)
    places: dict[str, int] = {}  # of a character: bits of the rows that have it
    for row, char in enumerate(long):
        places[char] = places.get(char, 0) | 1 << row
    every, last = (1 << len(long)) - 1, 1 << (len(long) - 1)
    rises, falls, distance = every, 0, len(long)
    for char in short:
        same = places.get(char, 0)
        level = ((((same & rises) + rises) ^ rises) | same | falls) & every  # along the diagonal
        more, less = falls | (every ^ (level | rises)), level & rises  # than a column before
        distance += bool(more & last) - bool(less & last)
        more = more << 1 | 1  # the first row of all rises with each column
        rises, falls = (less << 1 | ~(level | more)) & every, more & level & every
    return distance


def anls(prediction: str, answers: Sequence[str], *, threshold: float = 0.5) -> float:
    """Returns the normalised Levenshtein similarity to the nearest answer, 0 below `threshold`.

    Reference:
      Biten et al., 2019, "Scene Text Visual Question Answering", arXiv:1905.13648, equation 1.
      Texts are lower-cased and white space is collapsed first, as is usual; nothing else. A
      similarity of exactly `threshold` counts, as in the evaluation harnesses.
    """
    best = max((_similarity(prediction, answer, threshold) for answer in answers), default=0.0)
    return best if best >= threshold else 0.0


def _similarity(a: str, b: str, threshold: float) -> float:
    """At least `threshold`, or any number below it; lengths alone tell most of the latter."""
    a, b = " ".join(a.lower().split()), " ".join(b.lower().split())
    shortest, longest = sorted((len(a), len(b)))
    if not longest:
        return 1.0
    most = 1.0 - (longest - shortest) / longest
    return 1.0 - edit_distance(a, b) / longest if most >= threshold else most


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


def relative_box(box: Box, size: Size) -> tuple[int, int, int, int]:
    """Returns a box as models write it: (left, top, right, bottom) in thousandths of the picture.

    The edges are half-open like those of `box`, and rounded, a half to even. Within a picture of
    at most 1000 px a side no two edges become one.

    Example:
      >>> relative_box(Box(10, 40, 20, 100), Size(100, 200))
      (200, 100, 500, 200)
    """
    across, down = 1000 / size.width, 1000 / size.height
    edges = (box.left * across, box.top * down, box.right * across, box.bottom * down)
    left, top, right, bottom = map(round, edges)
    return left, top, right, bottom


def point_match(prediction: str, box: Box, *, view: View, coord_frame: str) -> float:
    """Returns 1.0 when the place that an answer names lies in a box of the picture, else 0.0.

    Two numbers are x and y; four are left, top, right, bottom, of which the centre counts. An
    answer that names no place or several is wrong; how it may write one: `coordinates.read_places`,
    or any text with two or four numbers in it.
    """
    numbers = _place(prediction)
    if not numbers:
        return 0.0
    x, y = (sum(numbers[i::2]) / len(numbers[i::2]) for i in (0, 1))
    frame = frame_of(numbers, coord_frame)
    return point_in_box(*to_picture(x, y, view=view, coord_frame=frame), box)


def box_match(
    prediction: str, box: Box, *, view: View, coord_frame: str, threshold: float = 0.5
) -> float:
    """Returns 1.0 when the box that an answer names overlaps a box of the picture enough, else 0.0.

    The answer is four numbers, left, top, right, bottom, brought to whole pixels of the picture;
    enough is a `box_iou` of at least `threshold`. It is read as by `point_match`.
    """
    numbers = _place(prediction)
    if len(numbers) != 4:
        return 0.0
    frame = frame_of(numbers, coord_frame)
    corners = [
        to_picture(x, y, view=view, coord_frame=frame) for x, y in (numbers[:2], numbers[2:])
    ]
    (top, left), (bottom, right) = ((round(y), round(x)) for y, x in corners)
    return float(box_iou(Box(top, left, bottom, right), box) >= threshold)


_SAID = re.compile(r"\b(?:answer|option|choice)s?\b\s*(?:is\b)?\s*:?[\s(*_\"']*", re.I)
_LIST = re.compile(r"[\s(]*[A-Za-z][\s).]*(?:(?:,|;|and|&|/)[\s(]*[A-Za-z][\s).]*)*", re.I)
_LEAD = re.compile(r"\s*\(?([A-Za-z])[).:,]")
_ALONE = re.compile(r"(?<![\w'])[A-Z](?![\w'])")
_FIRST = re.compile(r"(?:[A-Z](?:, ?[A-Z])*,? and )?[A-Za-z](?![\w'])")
_OR = re.compile(r"[A-Za-z]\)?,? or ")
_CLAUSE = re.compile(r"[.,;:!?](?:\s|$)|\n")
# `a dog`, `A dog`, `I see`: words and no letters, unless they cannot be.
_WORD = re.compile(
    r"(?:[ai]\s+(?=\w)|[AI]\s+(?=[a-z]))(?!(?:and|as|because|but|for|is|or|since)\b)"
)


def choice_letters(text: str, options: Sequence[str] = ()) -> frozenset[str]:
    """Returns the options that an answer names, as capital letters.

    In this order: one letter of an option and nothing else (`B`, `(b)`); the text of an option;
    nothing but letters (`(b) and C`); what is said last after `answer is`, the text of an option or
    letters; a letter in front (`B. a red door`); the only capital letter that stands by itself,
    where options are given. Anything else names none: of several letters none is guessed, and an
    article is no letter (`the answer is a dog`).

    Args:
      text: the answer.
      options: texts of the options, in order, with or without their letters; where given, only
        their letters count.

    Example:
      >>> sorted(choice_letters("(b) and C")), sorted(choice_letters("a red door"))
      (['B', 'C'], [])
    """
    known = frozenset(chr(ord("A") + i) for i in range(len(options) or 26))
    texts = _option_texts(options)
    if found := _plain_choice(text, texts, known):
        return found & known
    for rest in reversed([text[match.end() :] for match in _SAID.finditer(text)]):
        clause = _CLAUSE.split(rest)[0]
        if found := _plain_choice(rest, texts, known) or _plain_choice(clause, texts, known):
            return found & known
        if _OR.match(rest):
            return frozenset()
        if (first := _FIRST.match(rest)) and not _WORD.match(rest):
            return _letters(first[0]) & known
    if lead := _LEAD.match(text):
        return _letters(lead[1]) & known
    alone = (m[0] for m in _ALONE.finditer(text) if not _WORD.match(text, m.start()))
    letters = frozenset(alone) & known if options else frozenset()
    return letters if len(letters) == 1 else frozenset()


def _plain_choice(text: str, texts: Sequence[set[str]], known: frozenset[str]) -> frozenset[str]:
    """Options that a text names and says nothing else: a letter, their text, letters."""
    letters = _letters(text) if _LIST.fullmatch(text) else frozenset()
    if len(letters) == 1 and letters <= known:
        return letters
    given = normalize_answer(text)
    same = frozenset(chr(ord("A") + i) for i, spelled in enumerate(texts) if given in spelled)
    return same or letters


def _option_texts(options: Sequence[str]) -> list[set[str]]:
    """Each option as it is compared; without its letter too, if every one has its own in front."""
    heads = [re.match(r"\(?([A-Za-z])[).:]\s+", option) for option in options]
    are_labels = all(head and head[1].upper() == chr(ord("A") + i) for i, head in enumerate(heads))
    ends = [head.end() if are_labels and head else 0 for head in heads]
    return [
        {normalize_answer(option), normalize_answer(option[end:])} - {""}
        for option, end in zip(options, ends, strict=True)
    ]


def _letters(text: str) -> frozenset[str]:
    """The letters of a text that stand by themselves, as capitals."""
    return frozenset(x.upper() for x in re.findall(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])", text))


SCORERS = ("exact", "unit", "anls", "point", "box", "choice")


def grade(
    scorer: str,
    prediction: str,
    answers: Sequence[str],
    *,
    options: Sequence[str] = (),
    box: Box | None = None,
    views: Sequence[View] = (),
    coord_frame: str = "relative_1000",
) -> float:
    """Returns 1.0 or 0.0 by the scorer that a question names.

    Args:
      scorer: `exact`, `unit`, `anls` (at least 0.5), `point` (inside `box`), `box` (overlap of at
        least 0.5), `choice` (the letter or the text of an option).
      prediction: the answer given.
      answers: those that are right.
      options: of a `choice`.
      box: of `point` and `box`, px of the picture.
      views: what was looked at; coordinates are those of the only one.
      coord_frame: as in `Answer`.

    Raises:
      ValueError: an unknown scorer; a place without its box, or in more than one view.
    """
    texts = {"exact": exact_match, "unit": unit_exact_match, "anls": anls}
    if scorer in texts:
        return float(texts[scorer](prediction, answers) > 0)
    if scorer == "choice":
        given = choice_letters(prediction, options)
        return float(bool(given) and given in [choice_letters(a, options) for a in answers])
    places = {"point": point_match, "box": box_match}
    if scorer not in places or box is None or len(views) != 1:
        raise ValueError(
            f"grade: scorer {scorer!r} (have {', '.join(SCORERS)}) with "
            f"{'no box' if box is None else 'a box'} and {len(views)} views."
        )
    return places[scorer](prediction, box, view=views[0], coord_frame=coord_frame)


def _place(text: str) -> list[float]:
    """The numbers of the only place that a text names; none where it names another number."""
    places = read_places(text)
    if places:
        return places[0] if len(places) == 1 else []
    numbers = [float(number) for number in re.findall(r"-?\d{1,9}(?:\.\d+)?", text)]
    return numbers if len(numbers) in (2, 4) else []


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


def paired_interval(first: float, second: float, total: int, *, z: float = 1.959964) -> Interval:
    """Returns how much more often the first of two was right, with an interval (default 95 %).

    With no pairs the interval is all of [-1, 1].

    Args:
      first: pairs in which only the first is right; a score that is higher by x counts x pairs,
        which gives an interval that is rather too wide.
      second: pairs in which only the second is right, likewise.
      total: pairs, those included in which both or neither is right.
      z: of the interval.

    Reference:
      Agresti and Min, 2005, "Simple improved confidence intervals for comparing matched
      proportions": Wald's interval with half a pair added to each of the four cells. Its middle
      is drawn towards 0; the mean is the plain difference.

    Example:
      >>> [round(x, 3) for x in paired_interval(30, 10, 100)]
      [0.2, 0.079, 0.313]
    """
    if first < 0 or second < 0 or first + second > total:
        raise ValueError(f"paired_interval: {first} and {second} of {total} pairs.")
    if total == 0:
        return Interval(math.nan, -1.0, 1.0)
    more, less, pairs = first + 0.5, second + 0.5, total + 2
    middle = (more - less) / pairs
    half = z * math.sqrt(more + less - (more - less) ** 2 / pairs) / pairs
    return Interval((first - second) / total, max(-1.0, middle - half), min(1.0, middle + half))

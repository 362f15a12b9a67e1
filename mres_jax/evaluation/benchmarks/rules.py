"""How public benchmarks score one answer, where `scoring` has no rule of that kind."""

import math
from collections.abc import Sequence

from mres_jax.evaluation.benchmarks.vqa_words import normalize_vqa

TOLERANCE = 0.05  # of ChartQA
AGREEING = 3  # people that must have said so for a whole point


def relaxed_match(prediction: str, answer: str) -> float:
    """Returns 1.0 where a number is within 5 % of the right one, or a text is the same, else 0.0.

    Numbers are plain, `12.5` or `40%` (0.4), without commas and units. Where either is none, or
    the right one is 0, both are texts, compared but for case.

    Reference:
      Masry et al., 2022, arXiv:2203.10244, section 5.1, after Methani et al., 2020, PlotQA.

    Example:
      >>> relaxed_match("105", "100"), relaxed_match("106", "100"), relaxed_match("Red", "red")
      (1.0, 0.0, 1.0)
    """
    given, right = _number(prediction), _number(answer)
    if given is None or not right:
        return float(prediction.lower() == answer.lower())
    return float(abs(given - right) / abs(right) <= TOLERANCE)


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Returns the share of a point for an answer that some of several people gave, 0 to 1.

    Each person is left out in turn, and the answer is worth a third of a point for each of the
    others who gave it, one at most; the mean counts. Texts are compared as `normalize_vqa` makes
    them.

    Reference:
      Antol et al., 2015, "VQA: Visual Question Answering", arXiv:1505.00468, section 5, as the
      challenge computes it; TextVQA does likewise.

    Example:
      >>> round(vqa_accuracy("stop", ["Stop"] * 2 + ["no"] * 8), 3)
      0.6
    """
    given = normalize_vqa(prediction)
    same = [normalize_vqa(answer) == given for answer in answers]
    points = [min(1.0, (sum(same) - one) / AGREEING) for one in same]
    return math.fsum(points) / len(points)


def contains_answer(prediction: str, answers: Sequence[str]) -> float:
    """Returns 1.0 where any of the answers stands in the prediction, but for case, else 0.0.

    Letters, digits and signs of full width, and the wide blank, are those of ASCII; a new line is
    a blank.

    Reference:
      Liu et al., 2023, arXiv:2305.07895, section 2; full width as in lmms-eval (tasks/ocrbench).

    Example:
      >>> contains_answer("It says CENTRE.", ["centre"]), contains_answer("cent", ["centre"])
      (1.0, 0.0)
    """
    return _any_in(prediction, answers, _plain)


def contains_formula(prediction: str, answers: Sequence[str]) -> float:
    """Returns 1.0 where any formula stands in the prediction but for white space, else 0.0.

    Case counts. The rule of OCRBench for handwritten formulas.
    """
    return _any_in(
        prediction, answers, lambda text: text.strip().replace("\n", " ").replace(" ", "")
    )


def _any_in(prediction: str, answers: Sequence[str], form) -> float:
    given = form(prediction)
    return float(any(form(answer) in given for answer in answers))


_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}


def _plain(text: str) -> str:
    return text.translate(_NARROW).lower().strip().replace("\n", " ")

"""Answers that are one number."""

import math
import re

_NUMBER = re.compile(
    r"(?:(?<!\w)[-+])?(?:\d{1,3}(?:,\d{3})+|\d{1,15})?(?:\.\d{1,15})?(?:[eE][-+]?\d{1,3})?%?"
)


def parse_number(text: str) -> float | None:
    """Returns the last number of an answer, or None. A per cent sign divides by 100.

    Example:
      >>> parse_number("about 1,250.5 kg"), parse_number("12 %"), parse_number("none")
      (1250.5, 12.0, None)
    """
    found = [m.group() for m in _NUMBER.finditer(text) if any(c.isdigit() for c in m.group())]
    if not found:
        return None
    number = float(found[-1].replace(",", "").rstrip("%"))
    return number / 100 if found[-1].endswith("%") else number


def number_match(prediction: str, answer: str, *, tolerance: float = 1e-2) -> float:
    """Returns 1.0 when two numbers differ by at most `tolerance`, absolute or relative, else 0.0.

    Reference:
      Liao et al., 2026, "ResAdapt", arXiv:2603.28610: tolerance 1e-2; that it holds absolutely or
      relatively is from the released code.
    """
    given, expected = parse_number(prediction), parse_number(answer)
    if given is None or expected is None:
        return 0.0
    return float(math.isclose(given, expected, rel_tol=tolerance, abs_tol=tolerance))


def number_closeness(prediction: str, answer: str) -> float:
    """Returns 1 less the relative error of a number, not below 0; for regression.

    Where the answer is 0, only 0 is close.
    """
    given, expected = parse_number(prediction), parse_number(answer)
    if given is None or expected is None:
        return 0.0
    if expected == 0:
        return float(given == 0)
    return max(0.0, 1.0 - abs(given - expected) / abs(expected))

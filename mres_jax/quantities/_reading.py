"""Text -> amount: one number with its unit, a sum of them, a range or a product."""

import re
import unicodedata
from fractions import Fraction
from typing import Literal, NamedTuple

from mres_jax.quantities._numbers import NUMBER, POWER, read_number
from mres_jax.quantities._units import CURRENCIES, DOLLARS, unit_of

MAX_CHARS = 200  # a longer text is no amount

_SCALES = {
    **dict.fromkeys(("hundred",), 10**2),
    **dict.fromkeys(("thousand", "thousands", "千"), 10**3),
    **dict.fromkeys(("万", "萬"), 10**4),
    **dict.fromkeys(("lakh", "lakhs"), 10**5),
    **dict.fromkeys(("million", "millions", "mln", "mio"), 10**6),
    **dict.fromkeys(("crore", "crores"), 10**7),
    **dict.fromkeys(("亿", "億"), 10**8),
    **dict.fromkeys(("billion", "billions", "bn"), 10**9),
    **dict.fromkeys(("trillion", "trillions", "tn"), 10**12),
}
_MONEY_SCALES = {"k": 10**3, "m": 10**6, "mm": 10**6, "mn": 10**6, "b": 10**9}  # beside money only
_LETTERS = "|".join(sorted(_MONEY_SCALES, key=len, reverse=True))
_SCALED = re.compile(
    rf"(?P<scale>{'|'.join(sorted(_SCALES, key=len, reverse=True))})(?![a-z])\.? ?(?P<rest>.*)",
    re.IGNORECASE,
)
_LETTERED = re.compile(rf"(?P<scale>{_LETTERS})(?![a-z])\.? ?(?P<rest>.*)", re.IGNORECASE)
_ONE = re.compile(
    rf"(?P<sign>[+-]?) ?(?P<before>[^\d\s.+-][^\d+-]*?\.?|) ?(?P<inner>[+-]?) ?"
    rf"(?P<number>{NUMBER}){POWER}?(?P<after>(?:[^\d].*)?)",
    re.IGNORECASE,
)
_TERM = re.compile(rf"(?P<number>{NUMBER}) ?(?P<unit>[^\d\s][^\d]*?)(?:,|and|,and)?\s*(?=\d|$)")
_RANGE = re.compile(r" ?(?:-|~| to ) ?(?=[\d.$€£¥])", re.IGNORECASE)
_TIMES = re.compile(r"(?<=[\w%\"'.]) ?(?:x|\*| by ) ?(?=\d|\.\d)", re.IGNORECASE)
_MARKS = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\uff0d", "-"),
        **dict.fromkeys("\u00d7\u2715", "x"),
        **dict.fromkeys("\u2019\u2018\u2032", "'"),
        **dict.fromkeys("\u201d\u201c\u2033", '"'),
        **dict.fromkeys("\uff5e\u301c", "~"),
    }
)


class Quantity(NamedTuple):
    """An amount; two are the same when they are equal.

    Attributes:
      kind: `one`; `sum`, such as 5 ft 11 in; `range`, from the first to the second; `product`, such
        as 10 x 20 cm.
      parts: number and unit each; the unit is one of `UNITS`, or a word as written, or "".
    """

    kind: Literal["one", "sum", "range", "product"]
    parts: tuple[tuple[Fraction, str], ...]


def read_quantity(text: str) -> Quantity | None:
    """Returns the amount that a text is, or None where it is something else or more than that.

    Spellings that are one amount: `$12.50`, `12.5 USD`, `US$ 12,50`; `1.2 million`, `1,200,000`;
    `5 ft 11 in`, `5'11"`; `4-6 kg`, `4 to 6 kilograms`. Nothing is converted: 1 km is not 1000 m,
    and 61.1 is not 61.1 %.

    Example:
      >>> read_quantity("US$ 12,50") == read_quantity("12.5 dollars")
      True
      >>> read_quantity("flight 124") is None
      True
    """
    if len(text) > MAX_CHARS:
        return None
    text = _clean(text)
    range_ = _several(text, _RANGE, "range")
    return _one(text) or range_ or _several(text, _TIMES, "product") or _sum(text)


def _clean(text: str) -> str:
    text = re.sub(r"10([\u207b\u207a]?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+)", r"10^\1", text)
    text = "".join(f" {c} " if unicodedata.decomposition(c)[:2] == "<f" else c for c in text)
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/").translate(_MARKS)
    text = " ".join(text.split())
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
        text = text[1:-1].strip()
    return text.removesuffix(".").removesuffix("/-").strip()  # Rs 500/-


def _one(text: str) -> Quantity | None:
    part = _part(text)
    return None if part is None else Quantity("one", (part,))


def _part(text: str) -> tuple[Fraction, str] | None:
    """One number with at most one unit, which may be a word that is no unit we know."""
    match = _ONE.fullmatch(text)
    number = read_number(match["number"]) if match else None
    if match is None or number is None or (match["sign"] and match["inner"]):
        return None
    before = unit_of(match["before"]) if match["before"] else ""
    if before is None or (match["before"] and before not in CURRENCIES):
        return None
    found = _after(match["after"], before)
    if found is None:
        return None
    scale, unit = found
    power = Fraction(10) ** int(match["ten"] or match["e"] or 0)
    sign = -1 if "-" in (match["sign"], match["inner"]) else 1
    return sign * number * power * scale, unit


def _after(text: str, before: str) -> tuple[int, str] | None:
    """Scale and unit of what follows a number, given the money before it."""
    attached, text = text[:1] not in ("", " "), text.strip()
    scale = 1
    if match := _SCALED.fullmatch(text):
        scale, text = _SCALES[match["scale"].casefold()], match["rest"].strip()
    elif (match := _LETTERED.fullmatch(text)) and (before or unit_of(match["rest"]) in CURRENCIES):
        scale, text = _MONEY_SCALES[match["scale"].casefold()], match["rest"].strip()
    elif attached and text in ("k", "K"):  # 20k; with a blank it is kelvin
        scale, text = 1000, ""
    if not text:
        return scale, before
    unit = unit_of(text) or (text.casefold() if text.isalpha() else None)
    if unit is None or (before and unit != before and {unit, before} - DOLLARS):
        return None
    return scale, unit if before in ("", "$") else before


def _sum(text: str) -> Quantity | None:
    """Such as 1 h 30 min: every unit is one that we know. Beside hours or seconds m is minutes."""
    parts, end = [], 0
    while end < len(text):
        match = _TERM.match(text, end)
        number = read_number(match["number"]) if match else None
        unit = unit_of(match["unit"].strip()) if match else None
        if match is None or number is None or unit is None:
            return None
        parts.append((number, unit))
        end = match.end()
    units = {unit for _, unit in parts}
    if "m" in units and units & {"h", "s"} and units <= {"d", "h", "m", "s"}:  # 5h 30m
        parts = [(number, "min" if unit == "m" else unit) for number, unit in parts]
    return Quantity("sum", tuple(parts)) if len(parts) > 1 else None


def _several(
    text: str, mark: re.Pattern[str], kind: Literal["range", "product"]
) -> Quantity | None:
    """Amounts between marks; a unit that stands once, first or last, is that of all."""
    parts = [_part(each) for each in mark.split(text)]
    if len(parts) < 2 or None in parts:
        return None
    known = [part for part in parts if part is not None]
    units = {unit for _, unit in known if unit}
    if len(units) != 1 or unit_of(unit := units.pop()) is None:
        return None
    if sum(bool(unit) for _, unit in known) not in (1, len(known)):
        return None
    return Quantity(kind, tuple((number, unit) for number, _ in known))

"""Numbers as people write them: groups of digits, decimal points and commas, fractions, words."""

import re
from fractions import Fraction

_SMALL = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
WORDS = {word: i for i, word in enumerate((*_SMALL, "eleven", "twelve"))}
PLAIN = r"(?:\d(?:[\d.,]|[' ](?=\d{3}))*|\.\d+)"  # what may be a number; `read_number` tells
NUMBER = rf"(?:(?:{'|'.join(WORDS)})\b|\d+ \d+/\d+|\d+/\d+|{PLAIN})"
POWER = r"(?: ?[x*] ?10\^(?P<ten>[+-]?\d{1,2})|e(?P<e>[+-]?\d{1,2}))"

_GROUPED = (  # with the digits before the decimal mark, and behind it
    (r"(\d*)\.(\d+)", ""),
    (r"(\d+)\.?()", ""),
    (r"([1-9]\d{0,2}(?:,\d{3})+)(?:\.(\d*))?", ","),
    (r"([1-9]\d?(?:,\d{2})+,\d{3})(?:\.(\d*))?", ","),  # 12,34,567 in India
    (r"([1-9]\d{0,2}(?:[ ']\d{3})+)(?:[.,](\d+))?", " '"),
    (r"([1-9]\d{0,2}(?:\.\d{3})+),(\d+)", "."),
    (r"([1-9]\d{0,2}(?:\.\d{3}){2,})()", "."),
    (r"(\d+),(\d{1,2}|\d{4,})", ""),  # a decimal comma: three digits would be a group
    (r"(0),(\d+)", ""),
)


def read_number(text: str) -> Fraction | None:
    """Returns a number without sign and unit, or None where the text is none.

    A comma before three digits groups them, before any other number of digits it is a decimal
    comma; a point alone is a decimal point.

    Example:
      >>> [str(read_number(x)) for x in ("1,200.50", "1.200,50", "12,5", "1.200", "2 1/2", "two")]
      ['2401/2', '2401/2', '25/2', '6/5', '5/2', '2']
      >>> read_number("1,20,3") is None
      True
    """
    if text.casefold() in WORDS:
        return Fraction(WORDS[text.casefold()])
    if match := re.fullmatch(r"(?:(\d+) )?(\d+)/(\d+)", text):
        whole, above, below = (int(part or 0) for part in match.groups())
        return whole + Fraction(above, below) if below else None
    for pattern, marks in _GROUPED:
        if match := re.fullmatch(pattern, text):
            whole, part = match[1], match[2] or ""
            digits = "".join(char for char in whole if char not in marks)
            return Fraction(f"{digits or 0}.{part or 0}")
    return None

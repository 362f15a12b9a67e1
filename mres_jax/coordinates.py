"""Boxes and points in what a model says, read strictly: numbers of a place, or none."""

import re

_NUMBER = r"-?\d{1,9}(?:\.\d{1,12})?"
_NAMED = rf"(?:[xy]\d?\s*[=:]\s*)?({_NUMBER})"
_LIST = re.compile(rf"\s*{_NAMED}(?:\s*,\s*{_NAMED}){{1,3}}\s*,?\s*")
_MARKS = re.compile(
    r"<\|(?:box|point)_start\|>(.*?)<\|(?:box|point)_end\|>|<(box|point)>(.*?)</\2>"
)
_FIELD = re.compile(r'"(?:bbox(?:_2d)?|box(?:_2d)?|point(?:_2d)?|coordinates?)"\s*:\s*(\[[^\]]*\])')
_PAIR = r"[(\[]([^()\[\]]*)[)\]]"
_GROUP = re.compile(rf"{_PAIR}(?:,{_PAIR})?")  # two pairs with a bare comma are a box, as Qwen's


def read_places(text: str) -> list[list[float]]:
    """Returns the boxes and points that an answer names, as it writes them.

    Taken are, the first kind that occurs: what stands between box or point marks, JSON fields
    (`"bbox_2d": [...]`), groups of two or four numbers in brackets (`(x=3, y=4)` too), an answer
    that is nothing but two or four numbers with commas. Two are x, y, four are left, top, right,
    bottom.

    Example:
      >>> read_places('[{"bbox_2d": [10, 20, 30, 40], "label": "icon 2"}]')
      [[10.0, 20.0, 30.0, 40.0]]
    """
    marked = [first or last for first, _, last in _MARKS.findall(text)]
    if marked:
        return [numbers for part in marked if (numbers := _marked(part))]
    fields = [numbers for part in _FIELD.findall(text) if (numbers := _numbers(part[1:-1]))]
    if fields:
        return fields
    groups = [numbers for match in _GROUP.finditer(text) if (numbers := _joined(match))]
    return groups or [numbers for numbers in [_numbers(text)] if numbers]


def _marked(part: str) -> list[float]:
    """Between marks: one list, or two pairs."""
    inner = _numbers(part)
    return inner or [x for pair in re.findall(_PAIR, part)[:2] for x in _numbers(pair)]


def _joined(match: re.Match[str]) -> list[float]:
    first, second = (_numbers(part) if part else [] for part in match.groups())
    return [*first, *second] if len(first) == len(second) == 2 else first


def _numbers(part: str) -> list[float]:
    """Two or four numbers with commas between them and nothing else, or none."""
    if not _LIST.fullmatch(part):
        return []
    numbers = [float(number) for number in re.findall(_NAMED, part)]
    return numbers if len(numbers) in (2, 4) else []

"""Boxes and points in what a model says, read strictly: a place, or a reason why there is none."""

import re
from typing import NamedTuple

from mres_jax.geometry import Size, View
from mres_jax.scoring import to_picture

_NUMBER = r"-?\d{1,9}(?:\.\d{1,12})?"
_NAMED = rf"(?:[xy]\d?\s*[=:]\s*)?({_NUMBER})"
_LIST = re.compile(rf"\s*{_NAMED}(?:\s*,\s*{_NAMED}){{1,3}}\s*,?\s*")
_MARKS = re.compile(
    r"<\|(?:box|point)_start\|>(.*?)<\|(?:box|point)_end\|>|<(box|point)>(.*?)</\2>"
)
_FIELD = re.compile(r'"(?:bbox(?:_2d)?|box(?:_2d)?|point(?:_2d)?|coordinates?)"\s*:\s*(\[[^\]]*\])')
_PAIR = r"[(\[]([^()\[\]]*)[)\]]"
_GROUP = re.compile(rf"{_PAIR}(?:,{_PAIR})?")  # two pairs with a bare comma are a box, as Qwen's


class Place(NamedTuple):
    """A box, or a point where both corners are one; px of the upright picture."""

    top: float
    left: float
    bottom: float
    right: float

    @property
    def centre(self) -> tuple[float, float]:
        """(y, x), px."""
        return (self.top + self.bottom) / 2, (self.left + self.right) / 2


class Places(NamedTuple):
    """What was found in an answer.

    Attributes:
      places: the ones that can be used, in the order of the answer.
      problem: why there is none, or what is wrong with one that was left out; "" where all is well.
    """

    places: tuple[Place, ...]
    problem: str


def find_places(text: str, *, view: View, coord_frame: str, picture: Size) -> Places:
    """Returns the boxes and points that an answer names, in px of the picture.

    Taken are, the first kind that occurs: what stands between box or point marks, JSON fields
    (`"bbox_2d": [...]`), groups of two or four numbers in brackets (`(x=3, y=4)` too), an answer
    that is nothing but two or four numbers. Two are x, y, four are left, top, right, bottom. Every
    number must lie in the frame and every box must have its corners in order: nothing is clipped,
    swapped or guessed.

    Args:
      text: of the answer.
      view: what the model looked at.
      coord_frame: how it writes coordinates, see `mres_jax.scoring.COORD_FRAMES`.
      picture: size of the upright picture, px.
    """
    groups = _groups(text)
    found: list[Place] = []
    problem = "" if groups else f"no box and no point in {_short(text)}"
    for numbers in groups:
        corners = numbers if len(numbers) == 4 else [*numbers, *numbers]
        top, left = to_picture(corners[0], corners[1], view=view, coord_frame=coord_frame)
        bottom, right = to_picture(corners[2], corners[3], view=view, coord_frame=coord_frame)
        edge = 1e-6 * max(picture)  # rounding of the way there
        inside = -edge <= min(top, left, bottom, right)
        inside &= max(top, bottom) <= picture.height + edge
        inside &= max(left, right) <= picture.width + edge
        if len(numbers) == 4 and (right <= left or bottom <= top):
            problem = problem or f"the corners of {numbers} are reversed or one"
        elif not inside:
            problem = problem or f"{numbers} lies outside the picture"
        else:
            found.append(Place(top, left, bottom, right))
    return Places(tuple(found), problem)


def _groups(text: str) -> list[list[float]]:
    """Lists of two or four numbers, by the first rule that finds any."""
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


def _short(text: str) -> str:
    clean = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return repr(clean if len(clean) <= 60 else clean[:57] + "...")

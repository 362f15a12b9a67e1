"""Boxes and points in what a model says: read strictly, and brought to pixels of the picture."""

import re
from collections.abc import Sequence

from mres_jax.geometry import Size, View

_NUMBER = r"-?\d{1,9}(?:\.\d{1,12})?"
_NAMED = rf"(?:[xy]\d?\s*[=:]\s*)?({_NUMBER})"
_LIST = re.compile(rf"\s*{_NAMED}(?:\s*,\s*{_NAMED}){{1,3}}\s*,?\s*")
_MARKS = re.compile(
    r"<\|(?:box|point)_start\|>(.*?)<\|(?:box|point)_end\|>|<(box|point)>(.*?)</\2>"
)
_FIELD = re.compile(r'"(?:bbox(?:_2d)?|box(?:_2d)?|point(?:_2d)?|coordinates?)"\s*:\s*(\[[^\]]*\])')
_PAIR = r"[(\[]([^()\[\]]*)[)\]]"
_GROUP = re.compile(rf"{_PAIR}(?:,{_PAIR})?")  # two pairs with a bare comma are a box, as Qwen's


def read_places(text: str, *, several: bool = False) -> list[list[float]]:
    """Returns the boxes and points that an answer names, as it writes them.

    Taken are, the first kind that occurs: what stands between box or point marks, JSON fields
    (`"bbox_2d": [...]`), groups of two or four numbers in brackets (`(x=3, y=4)` too), an answer
    that is nothing but two or four numbers with commas. Two are x, y, four are left, top, right,
    bottom.

    Args:
      text: of the answer.
      several: whether several places were asked for. `(100, 200), (300, 400)` are then two points,
        and else the corners of one box, as `(100,200),(300,400)` always are.

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
    found = [(match, numbers) for match in _GROUP.finditer(text) if (numbers := _joined(match))]
    groups = [numbers for _, numbers in found]
    if not several and [len(numbers) for numbers in groups] == [2, 2]:
        (first, corner), (second, opposite) = found
        if re.fullmatch(r",\s*", text[first.end() : second.start()]):
            return [[*corner, *opposite]]
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


COORD_FRAMES = ("relative_1000", "relative_1", "resized_px")  # how models write places


def frame_of(numbers: Sequence[float], coord_frame: str) -> str:
    """Returns the frame that numbers of an answer are meant in: shares, where they can be no other.

    Numbers from 0 to 1 that are not all whole are shares of the sides whatever was asked for, as in
    ECP's released code (github yenncye/ECP, read at 23dfe43).

    Args:
      numbers: of one place.
      coord_frame: that the model was asked to write in.
    """
    are_shares = all(0 <= x <= 1 for x in numbers) and any(x % 1 for x in numbers)
    return "relative_1" if are_shares else coord_frame


def to_picture(x: float, y: float, *, view: View, coord_frame: str) -> tuple[float, float]:
    """Returns where a place in a view lies in the upright picture.

    Args:
      x: from the left edge of what the encoder received, its canvas included: thousandths of the
        width for `relative_1000`, shares for `relative_1`, pixels for `resized_px`.
      y: from its upper edge, likewise of the height.
      view: what was looked at.
      coord_frame: one of `COORD_FRAMES`.

    Returns:
      (y, x), pixels; outside the picture where the place is.
    """
    outer, inner, crop = view.encoded_size, view.size, view.crop
    unit, (top, left) = _frame_extent(outer, coord_frame), _origin(view)
    return (
        crop.top + (y * outer.height / unit.height - top) * crop.size.height / inner.height,
        crop.left + (x * outer.width / unit.width - left) * crop.size.width / inner.width,
    )


def from_picture(y: float, x: float, *, view: View, coord_frame: str) -> tuple[float, float]:
    """Returns where a place of the upright picture lies in a view, (x, y): undoes `to_picture`."""
    outer, inner, crop = view.encoded_size, view.size, view.crop
    unit, (top, left) = _frame_extent(outer, coord_frame), _origin(view)
    x = (x - crop.left) * inner.width / crop.size.width + left
    y = (y - crop.top) * inner.height / crop.size.height + top
    return x * unit.width / outer.width, y * unit.height / outer.height


def _origin(view: View) -> tuple[int, int]:
    """Where the upper left corner of the resized crop lies in what the encoder receives, px."""
    canvas, inner = view.canvas or view.size, view.size
    top, left = (canvas.height - inner.height) // 2, (canvas.width - inner.width) // 2
    return (top - view.window.top, left - view.window.left) if view.window else (top, left)


def _frame_extent(outer: Size, coord_frame: str) -> Size:
    """What the lower right corner is called in a frame."""
    extents = {"relative_1000": Size(1000, 1000), "relative_1": Size(1, 1), "resized_px": outer}
    if coord_frame not in extents:
        raise ValueError(f"no coordinate frame {coord_frame!r}; have {', '.join(COORD_FRAMES)}.")
    return extents[coord_frame]

"""Boxes and points in what a model says, read strictly: a place, or a reason why there is none."""

from typing import NamedTuple

from mres_jax.coordinates import frame_of, read_places, to_picture
from mres_jax.geometry import Size, View


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


def find_places(
    text: str, *, view: View, coord_frame: str, picture: Size, several: bool = False
) -> Places:
    """Returns the boxes and points that an answer names, in px of the picture.

    They are read by `mres_jax.coordinates.read_places`. Every number must lie in the frame and
    every box must have its corners in order: nothing is clipped, swapped or guessed.

    Args:
      text: of the answer.
      view: what the model looked at.
      coord_frame: how it writes coordinates, see `mres_jax.coordinates.COORD_FRAMES`.
      picture: size of the upright picture, px.
      several: whether several places were asked for, see `read_places`.
    """
    groups = read_places(text, several=several)
    found: list[Place] = []
    problem = "" if groups else f"no box and no point in {_short(text)}"
    for numbers in groups:
        corners = numbers if len(numbers) == 4 else [*numbers, *numbers]
        frame = frame_of(numbers, coord_frame)
        top, left = to_picture(corners[0], corners[1], view=view, coord_frame=frame)
        bottom, right = to_picture(corners[2], corners[3], view=view, coord_frame=frame)
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


def _short(text: str) -> str:
    clean = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return repr(clean if len(clean) <= 60 else clean[:57] + "...")

"""Windows of a picture: how large, and where when one is asked for around a place."""

import math

from mres_jax.errors import PolicyError
from mres_jax.geometry import Box, Size


def window_size(picture: Size, window: float, *, item: int = 0) -> Size:
    """Returns the extent of a window, px.

    Args:
      picture: its size, px.
      window: up to 1 a share of each side, above 1 the side of a square in px.
      item: of the picture, for errors.

    Raises:
      PolicyError: the window is larger than the picture.
    """
    if window <= 1:
        return Size(*(max(1, round(window * side)) for side in picture))
    side = round(window)
    if side > min(picture):
        raise PolicyError(
            f"policy zoom: a window of {side} x {side} px is larger than picture {item} of "
            f"{picture.width} x {picture.height} px. Use a share of the sides, such as window=0.25."
        )
    return Size(side, side)


def window_around(y: float, x: float, extent: Size, picture: Size) -> Box:
    """Returns the window with its middle next to a place, shifted so far that it stays inside.

    It keeps its size and holds every place of the picture that it is asked for.

    Reference:
      ECP's code (github yenncye/ECP, read at 23dfe43) and ReGround of ScreenSpot-Pro's, which both
      shift and never shrink.
    """
    top, left = (
        min(max(0, math.floor(at - side / 2 + 0.5)), whole - side)
        for at, side, whole in zip((y, x), extent, picture, strict=True)
    )
    return Box(top, left, top + extent.height, left + extent.width)

"""All measures look at pictures of one area, so that a number does not grow with the file."""

import math

import numpy as np
from jaxtyping import UInt8

from mres_jax.data.views import render_view
from mres_jax.geometry import Box, Size, View

SIDE = 224  # px; the area of a square of it
Image = UInt8[np.ndarray, "height width 3"]


def thumbnail(image: Image, *, side: int = SIDE) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture resized to about `side**2` pixels, its ratio kept."""
    height, width = image.shape[:2]
    scale = side / math.sqrt(height * width)
    size = Size(max(1, round(height * scale)), max(1, round(width * scale)))
    return render_view(image, View(item=0, crop=Box(0, 0, height, width), size=size))

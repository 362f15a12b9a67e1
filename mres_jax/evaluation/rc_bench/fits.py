"""Pictures made to fall into a cell: padded to its ratio, resized to its area.

Axes: h rows, w columns, 3 colour channels.
"""

import math
import random

import numpy as np
from PIL import Image

from mres_jax.evaluation.rc_bench.cuts import Cuts
from mres_jax.evaluation.rc_bench.items import Fit
from mres_jax.geometry import Box, Size

_REACH = (0.02, 0.5)  # how far beyond a cut a size is put, as a share of a bin or of an octave


def plan_fit(
    size: Size,
    cell: tuple[str, str],
    cuts: Cuts,
    rng: random.Random,
    *,
    scales: tuple[float, float],
) -> Fit | None:
    """Returns how a picture falls into a cell, or None where it cannot.

    Padding brings the ratio a little beyond the nearest cut; the area is then brought a little
    beyond the nearest cut by resizing. Neither is done where it is not needed.

    Args:
      size: of the picture, px.
      cell: area bin and ratio bin.
      cuts: of the bins.
      rng: draws how far beyond the cuts, and where in the padding the picture stands.
      scales: least and largest factor per side.
    """
    padded = _padded(size, cuts.ratio_range(cell[1]), rng)
    low, high = cuts.area_range(cell[0])
    area = padded.area
    scale = 1.0
    if not low <= area < high:
        target = _beyond(low, high, rng) if area < low else 1 / _beyond(1 / high, _upper(low), rng)
        scale = math.sqrt(target / area)
    if not scales[0] <= scale <= scales[1]:
        return None
    result = Size(*(max(1, round(side * scale)) for side in padded))
    inner = Size(*(max(1, round(side * scale)) for side in size))
    if cuts.cell(result) != cell:
        return None
    top, left = (rng.randint(0, outer - side) for outer, side in zip(result, inner, strict=True))
    return Fit(size, Box(top, left, top + inner.height, left + inner.width), result)


def _padded(size: Size, ratios: tuple[float, float], rng: random.Random) -> Size:
    low, high = ratios
    ratio = size.width / size.height
    if ratio < low or (ratio == low and low > 1):
        return Size(size.height, math.ceil(size.height * _beyond(low, high, rng)))
    if ratio > high or (ratio == high and high < 1):
        return Size(math.ceil(size.width * _beyond(1 / high, _upper(low), rng)), size.width)
    return size


def _upper(low: float) -> float:
    return 1 / low if low else math.inf


def _beyond(low: float, high: float, rng: random.Random) -> float:
    """A number a little above the lower end of a range, in logarithms; an octave if it is open."""
    width = math.log(high / low) if math.isfinite(high) else math.log(2)
    return low * math.exp(width * rng.uniform(*_REACH))


def fit_cost(fit: Fit) -> float:
    """Returns how much was done to a picture: octaves of resizing, and half of those of padding."""
    padding = fit.size.area / fit.content.size.area
    return abs(math.log2(fit.scale)) + 0.5 * math.log2(padding)


def apply_fit(pixels: np.ndarray, fit: Fit) -> np.ndarray:
    """Returns the fitted picture, `uint8 [h w 3]`; the padding has the median of the border."""
    inner = fit.content.size
    image = Image.fromarray(pixels)
    if (image.height, image.width) != inner:
        image = image.resize((inner.width, inner.height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    if inner == fit.size:
        return pixels
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = np.median(border, axis=0).astype(np.uint8)
    canvas = np.broadcast_to(colour, (*fit.size, 3)).copy()
    top, left, bottom, right = fit.content
    canvas[top:bottom, left:right] = pixels
    return canvas

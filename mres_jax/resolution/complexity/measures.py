"""Simple measures of complexity beside the main one, and all of them by name."""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from PIL import Image as Pillow

from mres_jax.errors import MresError, suggest
from mres_jax.resolution.complexity.mdl import mdl_complexity
from mres_jax.resolution.complexity.thumbnail import SIDE, Image, thumbnail

_LUMA = np.array([0.299, 0.587, 0.114])


def mean_gradient(image: Image, *, side: int = SIDE) -> float:
    """Returns the mean length of Sobel's gradient of the luma, 0 flat to about 1,440.

    Reference:
      Yu and Winkler, 2013, "Image complexity and spatial information", QoMEX, measure SI-mean.
    """
    luma = _luma(image, side)
    if min(luma.shape) < 3:
        return 0.0
    across = luma[:, 2:] - luma[:, :-2]
    down = luma[2:] - luma[:-2]
    dx = across[:-2] + 2 * across[1:-1] + across[2:]
    dy = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return float(np.hypot(dx, dy).mean())


def histogram_entropy(image: Image, *, side: int = SIDE) -> float:
    """Returns the entropy of the 256 levels of the luma, bits: 0 flat to 8.

    Reference:
      Shannon, 1948, "A mathematical theory of communication", section 6, over grey levels. It knows
      nothing of where a level stands, so noise is as complex as can be.
    """
    levels = np.bincount(_luma(image, side).round().astype(np.int64).ravel(), minlength=256)
    shares = levels[levels > 0] / levels.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def compressed_share(image: Image, *, side: int = SIDE) -> float:
    """Returns the bytes of the picture as PNG over its bytes without compression.

    Reference:
      Donderi, 2006, "Visual complexity: a review", Psychological Bulletin 132(1): size of the
      compressed file as complexity.
    """
    pixels, file = thumbnail(image, side=side), io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG", compress_level=6)
    return len(file.getvalue()) / pixels.size


COMPLEXITIES: dict[str, Callable[[Image], float]] = {
    "mdl": mdl_complexity,
    "gradient": mean_gradient,
    "entropy": histogram_entropy,
    "compressed": compressed_share,
}


def find_complexity(name: str) -> Callable[[Image], float]:
    """Returns a measure by its name in `COMPLEXITIES`.

    Raises:
      MresError: there is none; names the nearest.
    """
    if name not in COMPLEXITIES:
        raise MresError(
            f"complexity: no measure {name!r}{suggest(name, COMPLEXITIES)}; have "
            f"{', '.join(COMPLEXITIES)}."
        )
    return COMPLEXITIES[name]


def _luma(image: Image, side: int) -> Float[np.ndarray, "h w"]:
    return thumbnail(image, side=side).astype(np.float64) @ _LUMA

"""Changes of a picture that should change no answer."""

import zlib

import numpy as np
from jaxtyping import UInt8

GAIN, OFFSET = 0.05, 6.0  # largest change of contrast (a share) and of brightness (of 255)
SHIFT = 0.01  # largest shift, a share of each side

Image = UInt8[np.ndarray, "height width 3"]


def perturb(image: Image, number: int, *, name: str, seed: int = 0) -> Image:
    """Returns a picture slightly brighter or darker, flatter or harder, and shifted; 0 is itself.

    Coarse enough to outlive shrinking, which would average noise away. Edges are repeated where the
    shift leaves nothing. Ours: which perturbations the paper takes is not known to us.

    Args:
      image: upright RGB.
      number: of the perturbation.
      name: of the row: pictures of different rows are changed differently.
      seed: changes all of them.
    """
    if number == 0:
        return image
    draw = np.random.default_rng([seed, number, zlib.crc32(name.encode())])
    gain, offset = 1 + GAIN * draw.uniform(-1, 1), OFFSET * draw.uniform(-1, 1)
    rows, columns = (
        np.clip(np.arange(side) + round(SHIFT * side * draw.uniform(-1, 1)), 0, side - 1)
        for side in image.shape[:2]
    )
    shifted = image[rows][:, columns].astype(np.float64)
    return np.clip(128 + gain * (shifted - 128) + offset, 0, 255).round().astype(np.uint8)

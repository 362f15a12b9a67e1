"""What the functions that make or take decoded pictures have in common."""

import functools

import numpy as np
from PIL import Image

from mres_jax.errors import MresError
from mres_jax.geometry import Size

Pixels = np.ndarray | Image.Image  # of `decode_image` or `decode_pillow`
_LARGE_BLOCK = 31 * 2**20  # bytes; glibc's thresholds follow blocks of less than 32 MiB


def check_pixels(image: Pixels, *, where: str) -> Size:
    """Returns the size of a picture that may still be Pillow's.

    Raises:
      MresError: it is neither a picture in an array nor a Pillow image of mode RGB.
    """
    if not isinstance(image, Image.Image):
        check_image(image, where=where)
        return Size(*image.shape[:2])
    if image.mode != "RGB" or not min(image.size):
        raise MresError(
            f"{where}: a Pillow image must be RGB, got {image.mode} of {image.width} x "
            f"{image.height} px. Use decode_pillow."
        )
    return Size(image.height, image.width)


def check_image(image: np.ndarray, *, where: str) -> None:
    """Raises `MresError` unless `image` is `uint8 [height width 3]` with at least one pixel."""
    if not isinstance(image, np.ndarray):
        raise MresError(
            f"{where}: a picture must be an array, got {type(image).__name__}. Use decode_image."
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise MresError(
            f"{where}: a picture must be uint8 [height, width, 3], got {image.dtype} "
            f"{list(image.shape)}. Use decode_image."
        )


@functools.cache
def keep_memory() -> None:
    """Lets glibc keep what pictures free, up to 62 MiB, rather than ask the system again.

    It hands blocks back that are larger than any freed before, and each picture then pays some 300
    page faults, 7 % of its time. Other allocators do not mind.
    """
    np.empty(_LARGE_BLOCK, np.uint8)  # never touched, so it takes no memory

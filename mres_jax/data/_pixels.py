"""What every function that takes a decoded picture asks of it."""

import numpy as np

from mres_jax.errors import MresError


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

"""The small picture of a dual pathway, made of the large one.

Axes: H, W of a view; h, w of what its patches show; p patches; r values of a patch row.
"""

import numpy as np

from mres_jax.data.patches import patch_rows
from mres_jax.data.spec import ProcessorSpec
from mres_jax.geometry import Grid


def low_resolution_rows(pixels: np.ndarray, grid: Grid, spec: ProcessorSpec) -> np.ndarray:
    """Returns the patch rows of a view that its canvas shows at full size, `float32 [p r]`.

    They are normalised already: rounding them to `uint8` would move the features of a released
    model by more than its arithmetic does.

    Args:
      pixels: the view, `uint8 [H W 3]`.
      grid: patches of the view.
      spec: patch size, mean and std.

    Reference:
      luogen1996/LLaVA-HR, the forward pass of its dual tower: the normalised picture, resized
      linearly with corners aligned, in float32.
    """
    size = grid.h * spec.patch_size, grid.w * spec.patch_size
    mean, std = (np.asarray(each, np.float32) for each in (spec.mean, spec.std))
    small = resize_linear_corners(pixels.astype(np.float32), *size)
    normalised = (small / np.float32(255) - mean) / std
    return patch_rows(normalised, patch_size=spec.patch_size, merge_size=spec.merge_size)


def resize_linear_corners(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns `float32 [h w 3]`: linear between samples, corners onto corners, no smoothing."""
    for axis, extent in enumerate((height, width)):
        last = image.shape[axis] - 1
        places = np.arange(extent) * (last / max(extent - 1, 1))
        below = np.minimum(places.astype(int), max(last - 1, 0))
        share = (places - below).astype(np.float32)
        share = share.reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        above = np.minimum(below + 1, last)
        image = image.take(below, axis) * (1 - share) + image.take(above, axis) * share
    return image

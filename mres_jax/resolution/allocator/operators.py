"""What is done with the scales of a clip before they become sizes: selection. numpy.

Axes: t frames of one clip.
"""

import numpy as np
from jaxtyping import Float

from mres_jax.errors import PolicyError


def select_top(scales: Float[np.ndarray, " t"], count: int) -> Float[np.ndarray, " t"]:
    """Returns the scales with all but the `count` largest at 0; of equal ones the first are kept.

    Raises:
      PolicyError: fewer than one frame is to be kept.
    """
    if count < 1:
        raise PolicyError(f"allocator: top={count} must keep at least 1 frame.")
    kept = np.zeros(len(scales), bool)
    kept[np.argsort(-scales, kind="stable")[:count]] = True
    return np.where(kept, scales, 0.0)


def select_above(scales: Float[np.ndarray, " t"], threshold: float) -> Float[np.ndarray, " t"]:
    """Returns the scales with those below `threshold` at 0; the largest is always kept."""
    return np.where((scales >= threshold) | (scales == scales.max()), scales, 0.0)

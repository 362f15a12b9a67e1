"""What is done with the scales of a clip before they become sizes: pairs, selection. numpy.

Axes: t frames of one clip.
"""

import numpy as np
from jaxtyping import Float

from mres_jax.errors import PolicyError


def pair_scales(scales: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """Returns the scales with both frames of each pair at the mean of the two.

    Backbones that merge two frames into one patch need them at one size. A last frame without a
    partner keeps its scale.

    Reference:
      The released code of ResAdapt (arXiv:2603.28610) averages so for Qwen2.5-VL and Qwen3-VL.
    """
    whole = len(scales) // 2 * 2
    means = scales[:whole].reshape(-1, 2).mean(axis=1)
    return np.concatenate([np.repeat(means, 2), scales[whole:]])


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

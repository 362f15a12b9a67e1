"""Matrices that resize one axis, as torch computes them; numpy in float64, rounded at the end.

Axes: o samples after, i samples before.
"""

import functools

import numpy as np


def resize_matrix(num_out: int, num_in: int, rule: str) -> np.ndarray:
    """Returns `float32 [o i]`: each row holds the weights of one sample after the resize.

    Args:
      num_out: samples after.
      num_in: samples before.
      rule: `bicubic_antialias` (Keys' kernel with a = -0.5, widened where the axis shrinks),
        `bicubic` (a = -0.75, four samples, edges repeated), `linear_antialias` (linear, likewise
        widened) or `linear_corners` (linear, the first and last samples stay where they are).

    Raises:
      ValueError: unknown rule, or no samples.

    Example:
      >>> resize_matrix(3, 2, "linear_corners").tolist()
      [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]

    Reference:
      `torch.nn.functional.interpolate` with `antialias` or `align_corners`; Keys, 1981, "Cubic
      convolution interpolation for digital image processing", eq. 15.
    """
    if rule not in _RULES or min(num_out, num_in) < 1:
        raise ValueError(
            f"resize_matrix: {num_in} to {num_out} samples by rule {rule!r}; have "
            f"{', '.join(_RULES)}, and at least one sample."
        )
    return _matrix(num_out, num_in, rule)


@functools.lru_cache(maxsize=512)
def _matrix(num_out: int, num_in: int, rule: str) -> np.ndarray:
    matrix = _RULES[rule](num_out, num_in).astype(np.float32)
    matrix.flags.writeable = False  # shared by all that ask for it
    return matrix


def _bicubic_antialias(num_out: int, num_in: int) -> np.ndarray:
    return _normed(_keys(_widened_distances(num_out, num_in), -0.5))


def _linear_antialias(num_out: int, num_in: int) -> np.ndarray:
    return _normed(np.maximum(1 - np.abs(_widened_distances(num_out, num_in)), 0))


def _widened_distances(num_out: int, num_in: int) -> np.ndarray:
    """From each sample after to each before, in the wider of both steps."""
    step = num_in / num_out
    centres = step * (np.arange(num_out) + 0.5)
    return (np.arange(num_in)[None] + 0.5 - centres[:, None]) / max(step, 1.0)


def _normed(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(axis=1, keepdims=True)


def _bicubic(num_out: int, num_in: int) -> np.ndarray:
    places = num_in / num_out * (np.arange(num_out) + 0.5) - 0.5
    matrix = np.zeros((num_out, num_in))
    for offset in range(-1, 3):
        samples = np.floor(places).astype(int) + offset
        weights = _keys(places - samples, -0.75)
        np.add.at(matrix, (np.arange(num_out), samples.clip(0, num_in - 1)), weights)
    return matrix


def _linear_corners(num_out: int, num_in: int) -> np.ndarray:
    places = np.arange(num_out) * ((num_in - 1) / max(num_out - 1, 1))
    return np.maximum(1 - np.abs(places[:, None] - np.arange(num_in)[None]), 0)


def _keys(distances: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic kernel."""
    x = np.abs(distances)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_RULES = {
    "bicubic_antialias": _bicubic_antialias,
    "bicubic": _bicubic,
    "linear_corners": _linear_corners,
    "linear_antialias": _linear_antialias,
}

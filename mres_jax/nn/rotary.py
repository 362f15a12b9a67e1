"""Rotary positions: two axes for patches, one or three (M-RoPE) for the decoder.

Angles are float32; both halves of a head share them, so `[.. k/2]` is all that is kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Rotary(NamedTuple):
    """Cosine and sine of the angles, `[t k/2]`, float32."""

    cos: Float[Array, "t a"]
    sin: Float[Array, "t a"]


def vision_rotary(
    positions: Int[Array, "p 2"], *, head_dim: int, theta: float = 10_000.0
) -> Rotary:
    """Angles of patches: half of the frequencies turns with the row, half with the column.

    Reference:
      Wang et al., 2024, "Qwen2-VL", arXiv:2409.12191, section 2.1 (2D-RoPE).
    """
    if head_dim % 4:
        raise ValueError(f"vision_rotary: head_dim={head_dim} is not a multiple of 4.")
    frequencies = _frequencies(head_dim // 2, theta)
    angles = positions.astype(jnp.float32)[:, :, None] * frequencies[None, None]
    return _rotary(angles.reshape(positions.shape[0], -1))


def decoder_rotary(
    positions: Int[Array, "3 t"],
    *,
    head_dim: int,
    theta: float,
    mrope_section: Sequence[int] | None = None,
    interleaved: bool = False,
) -> Rotary:
    """Angles of decoder positions (t, h, w).

    Args:
      positions: three rows; equal rows make M-RoPE the same as plain rotary.
      head_dim: head width.
      theta: base of the frequencies.
      mrope_section: how many frequencies turn with t, h and w; None takes row t alone.
      interleaved: frequencies go to t, h and w in turn as long as h and w have some left, instead
        of one axis after the other: each then has low and high ones.

    Reference:
      Wang et al., 2024, "Qwen2-VL", arXiv:2409.12191, section 2.1 (M-RoPE); Bai et al., 2025,
      "Qwen3-VL Technical Report", arXiv:2511.21631, section 2 (interleaved).
    """
    frequencies = _frequencies(head_dim, theta)
    if mrope_section is None:
        axes = np.zeros(head_dim // 2, np.int32)
    elif sum(mrope_section) == head_dim // 2 and len(mrope_section) == 3:
        axes = _interleaved(mrope_section) if interleaved else np.repeat(range(3), mrope_section)
    else:
        raise ValueError(
            f"decoder_rotary: mrope_section={list(mrope_section)} must be three counts that sum "
            f"to head_dim / 2 = {head_dim // 2}."
        )
    return _rotary(positions.astype(jnp.float32)[axes].T * frequencies[None])


def _interleaved(section: Sequence[int]) -> np.ndarray:
    """Axis of each frequency: t, h, w, t, h, w ..., and t where h or w have none left.

    Example:
      >>> _interleaved((3, 2, 1)).tolist()
      [0, 1, 2, 0, 1, 0]
    """
    axes = np.zeros(sum(section), np.int32)
    for axis in (1, 2):
        axes[axis : 3 * section[axis] : 3] = axis
    return axes


def apply_rotary(x: Float[Array, "t h k"], rotary: Rotary) -> Float[Array, "t h k"]:
    """Turns each pair (j, j + k/2) of every head, in float32."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = rotary.cos[:, None, :], rotary.sin[:, None, :]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def _frequencies(size: int, theta: float) -> Float[Array, " f"]:
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    return jnp.asarray(1.0 / np.float32(theta) ** exponents)


def _rotary(angles: Float[Array, "t a"]) -> Rotary:
    return Rotary(jnp.cos(angles), jnp.sin(angles))

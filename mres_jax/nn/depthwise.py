"""Each channel of a map convolved with a square of its own.

Axes: n maps, y rows, x columns, z channels; b rows and a columns with zeros around them; k places
of the square, row by row.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Map = Float[Array, "n y x z"]


@jax.custom_vjp
def depthwise(x: Map, kernel: Float[Array, "k z"]) -> Map:
    """Returns the convolution with zeros around the map, in the map's type.

    On CPUs it is a sum of shifted maps, in float32: there XLA runs a convolution of one channel at
    a time, 7 to 50 times as slow (experiments/benchmarks/depthwise.py). Elsewhere it is XLA's.

    Args:
      x: maps.
      kernel: of an odd number of places a side.
    """
    return jax.lax.platform_dependent(x, kernel, cpu=_shifted, default=convolved)


def _forward(x: Map, kernel: Array) -> tuple[Map, tuple[Map, Array]]:
    return depthwise(x, kernel), (x, kernel)


def _backward(saved: tuple[Map, Array], g: Map) -> tuple[Map, Array]:
    return jax.lax.platform_dependent(*saved, g, cpu=_shifted_back, default=_convolved_back)


depthwise.defvjp(_forward, _backward)


def convolved(x: Map, kernel: Float[Array, "k z"]) -> Map:
    """Returns the same by XLA's own convolution, on any device."""
    width = _width(kernel)
    return jax.lax.conv_general_dilated(
        x,
        kernel.reshape(width, width, 1, -1),
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _convolved_back(x: Map, kernel: Array, g: Map) -> tuple[Map, Array]:
    return jax.vjp(convolved, x, kernel)[1](g)


def _shifted(x: Map, kernel: Array) -> Map:
    width, (rows, columns) = _width(kernel), x.shape[1:3]
    wide = _padded(x, width)
    total = jnp.zeros(x.shape, jnp.float32)
    for place, weights in enumerate(kernel.astype(jnp.float32)):
        i, j = divmod(place, width)
        total += wide[:, i : i + rows, j : j + columns] * weights[None, None, None]
    return total.astype(x.dtype)


def _shifted_back(x: Map, kernel: Array, g: Map) -> tuple[Map, Array]:
    width = _width(kernel)
    wide, told = _padded(x, width), g.astype(jnp.float32)

    def weigh(place: Array, total: Float[Array, "k z"]) -> Float[Array, "k z"]:
        zero = jnp.zeros((), place.dtype)
        seen = jax.lax.dynamic_slice(wide, (zero, place // width, place % width, zero), g.shape)
        return total.at[place].set((seen * told).sum((0, 1, 2)))

    # One place at a time: 49 sums in one program read the map no faster, and compile for long.
    of_kernel = jax.lax.fori_loop(0, len(kernel), weigh, jnp.zeros(kernel.shape, jnp.float32))
    return _shifted(g, kernel[::-1]), of_kernel.astype(kernel.dtype)


def _padded(x: Map, width: int) -> Float[Array, "n b a z"]:
    side = width // 2
    return jnp.pad(x.astype(jnp.float32), ((0, 0), (side, side), (side, side), (0, 0)))


def _width(kernel: Array) -> int:
    return round(len(kernel) ** 0.5)

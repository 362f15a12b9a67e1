"""Visual tokens into the text sequence, in static shapes.

Axes: t decoder positions, v packed visual tokens, e text width.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def scatter_visual(
    text: Float[Array, "t e"], visual: Float[Array, "v e"], visual_index: Int[Array, " t"]
) -> Float[Array, "t e"]:
    """Puts `visual[visual_index[i]]` at each position whose index is not negative.

    It is written as a gather: every position knows its visual token, so no shape depends on how
    many there are, and what stands nowhere gets a gradient of exactly zero.
    """
    if visual.shape[0] == 0:
        return text
    gathered = visual[jnp.maximum(visual_index, 0)].astype(text.dtype)
    return jnp.where((visual_index >= 0)[:, None], gathered, text)

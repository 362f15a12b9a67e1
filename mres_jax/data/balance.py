"""Packs of about equal attention side by side, so that ranks which compute a step wait less.

Buffers of a rung are of one length, and so is what a model does to them, but for attention: it
skips what is padding or belongs to another example, so it costs what the pairs of a pack are.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mres_jax.data.packing import Sizes
from mres_jax.data.types import Kind, Rung


def attention_pairs(sizes: Sizes) -> Int[np.ndarray, " examples"]:
    """Returns the pairs of patches and of tokens of each example that look at each other.

    Views of one example are taken as equal, and a causal pair as a whole one.
    """
    patches, tokens, views = np.asarray(sizes, np.int64).reshape(-1, 3).T
    return patches**2 // np.maximum(views, 1) + tokens**2


def balanced_order(
    kinds: Sequence[Kind] | Sequence[Rung],
    pairs: Sequence[int] | np.ndarray,
    window: int,
) -> list[int]:
    """Returns the packs in an order in which neighbours are of a kind and have about equal pairs.

    Each window of so many packs is sorted by kind and pairs, up and down in turn, so that any run
    of packs is even, wherever steps begin and however many packs they take. No pack leaves its
    window.

    Args:
      kinds: of the packs, or their rungs where all are of pictures, in the order that was drawn.
      pairs: likewise, attention pairs.
      window: packs; 0 leaves the order as it is.
    """
    if not window:
        return list(range(len(kinds)))
    order: list[int] = []
    for number, first in enumerate(range(0, len(kinds), window)):
        places = range(first, min(first + window, len(kinds)))
        ordered = sorted(places, key=lambda place: (kinds[place], pairs[place]))
        order += ordered if number % 2 == 0 else ordered[::-1]
    return order

"""Static lengths derived from the data: how many text positions go with how many patches."""

import math
from collections.abc import Sequence

import numpy as np

from mres_jax.data.packing import Sizes
from mres_jax.data.types import Rung
from mres_jax.errors import PackingError


def fit_ladder(
    sizes: Sizes,
    patch_rungs: Sequence[int] = (1_024, 4_096, 16_384),
    *,
    multiple: int = 128,
) -> tuple[Rung, ...]:
    """Returns rungs whose token lengths follow the data's mean of tokens per patch.

    Static maxima of views and examples are twice what an average pack holds, and never less than
    the largest example needs; the top rung's token length neither.

    Args:
      sizes: of the data, or a fair sample of it.
      patch_rungs: patches per rung.
      multiple: token lengths are a multiple of this.

    Raises:
      PackingError: the data has no patches to derive a ratio from.
    """
    table = np.asarray(sizes, np.int64).reshape(-1, 3)
    patches, tokens, views = (int(n) for n in table.sum(0))
    if not patches:
        raise PackingError(
            f"pack: {len(table)} examples have no patches, so there is no ratio of tokens to "
            "patches. Give the rungs."
        )
    most_tokens, most_views = int(table[:, 1].max()), int(table[:, 2].max())
    top = max(patch_rungs)
    rungs = []
    for rung in sorted(patch_rungs):
        share = rung / patches
        floor = most_tokens if rung == top else 1
        rungs.append(
            Rung(
                max_patches=rung,
                max_tokens=_up(max(share * tokens, floor), multiple),
                max_views=_up(max(2 * share * views, most_views), 8),
                max_examples=_up(2 * share * len(table), 8),
            )
        )
    return tuple(rungs)


def _up(value: float, multiple: int) -> int:
    return max(1, math.ceil(value / multiple)) * multiple

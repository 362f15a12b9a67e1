"""Model FLOPs of training on a pack.

Model FLOPs are those that the mathematics needs: padding, and what is computed again to save
memory, are work of ours and not counted.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from mres_jax.data.packing import example_slices
from mres_jax.data.types import Pack
from mres_jax.geometry import Grid
from mres_jax.inference.cost import encoder_flops, text_flops

PARTS = ("vision", "text")


class Passes(NamedTuple):
    """How often each part's products are computed in a step, in units of its forward pass."""

    vision: float
    text: float


def passes(params: Any, frozen: Any) -> Passes:
    """Returns 3 and 3 where all is trained, less where parts are frozen.

    One is the forward pass, one the gradient of activations, which a part needs where it or
    something before it is trained, and one the gradient of its trained kernels, by their share of
    its parameters. The projector, a few per cent of the tower, is counted with it.

    Args:
      params: of a learner, trained.
      frozen: the rest.
    """
    trained, still = _sizes(params), _sizes(frozen)
    vision, text = (trained[part] / max(trained[part] + still[part], 1) for part in PARTS)
    return Passes(1 + float(vision > 0) + vision, 1 + float(any(trained.values())) + text)


def flops_counter(config: Any, factors: Passes) -> Callable[[Pack], float]:
    """Returns the function that counts the model FLOPs of training on a pack.

    Args:
      config: of an assembled model.
      factors: see `passes`.
    """

    def count(pack: Pack) -> float:
        grids = [Grid(*row) for row in np.asarray(pack.grid_thw).tolist() if row[0]]
        segment_ids = np.asarray(pack.segment_ids)
        lengths = [part.stop - part.start for part in example_slices(segment_ids)]
        scored = int(np.asarray(pack.loss_mask).sum())
        text = text_flops(config.text_config, lengths, scored)
        vision = encoder_flops(config, grids, moving=moving_patches(pack))
        return factors.vision * vision + factors.text * text

    return count


def moving_patches(pack: Pack) -> int:
    """Returns how many patches of a pack are of clips."""
    if pack.still is None:
        return 0
    return int((np.asarray(pack.patch_segment_ids > 0) & ~np.asarray(pack.still)).sum())


def _sizes(state: Any) -> Mapping[str, int]:
    """Parameters of the model by part; heads are none."""
    sizes: dict[str, int] = {part: 0 for part in PARTS}
    for path, variable in nnx.to_flat_state(state):
        if path[0] == "model":
            part = str(path[1])
            sizes[part] = sizes.get(part, 0) + int(np.prod(variable.shape))
    return sizes

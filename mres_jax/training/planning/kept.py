"""What the backward pass keeps of the forward pass, counted on shapes."""

import math
from typing import Any

import jax
import numpy as np
from flax import nnx

from mres_jax.data.types import Pack
from mres_jax.training.learner import Share
from mres_jax.training.setup import Setup


def kept_bytes(setup: Setup, pack: Pack) -> int:
    """Returns the bytes of everything that one pack's forward pass hands to its backward pass.

    Parameters and the pack itself are not counted: they are there anyhow.
    """
    state = setup.state
    share = Share(np.float32(1), np.float32(1))

    def forward(params: Any, frozen: Any, pack: Pack) -> Any:
        def loss(params: Any) -> Any:
            return nnx.merge(setup.graphdef, params, frozen).loss(pack, share)[0]

        return jax.vjp(loss, params)[1]

    there = {(x.shape, x.dtype) for x in jax.tree.leaves((state.params, state.frozen, pack))}
    kept = jax.eval_shape(forward, state.params, state.frozen, pack)
    leaves = [x for x in jax.tree.leaves(kept) if (x.shape, x.dtype) not in there]
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)

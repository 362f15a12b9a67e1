"""Equal layers with their parameters on one leading axis, run by a scan: one compile, any depth."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
from flax import nnx

Remat = Literal["none", "dots", "full"]
Block = TypeVar("Block", bound=nnx.Module)


def stack_layers(make: Callable[[nnx.Rngs], Block], num_layers: int, rngs: nnx.Rngs) -> Block:
    """Returns one module whose parameters carry a leading axis of `num_layers`."""

    @nnx.split_rngs(splits=num_layers)
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(rngs: nnx.Rngs) -> Block:
        return make(rngs)

    return create(rngs)


def scan_layers(
    layers: nnx.Module,
    step: Callable[[Any, Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any = None,
    *,
    remat: Remat = "none",
) -> tuple[Any, Any]:
    """Runs `step(layer, carry, x) -> (carry, y)` through a stack made by `stack_layers`.

    Args:
      layers: the stacked module.
      step: applies one layer.
      carry: what flows from layer to layer.
      xs: what each layer gets of its own, leading axis of layers.
      remat: what the backward pass recomputes: `none` keeps all, `dots` keeps the results of
        matrix products without a batch axis, `full` keeps the carry only.

    Returns:
      The last carry, and the `y` of all layers stacked.
    """
    graphdef, state = nnx.split(layers)

    def body(carry, inputs):
        layer_state, x = inputs
        return step(nnx.merge(graphdef, layer_state), carry, x)

    if remat == "dots":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        body = jax.checkpoint(body, policy=policy, prevent_cse=False)
    elif remat == "full":
        body = jax.checkpoint(body, prevent_cse=False)
    return jax.lax.scan(body, carry, (state, xs))

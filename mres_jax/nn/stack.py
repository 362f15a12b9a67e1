"""Equal layers with their parameters on one leading axis, run by a scan: one compile, any depth."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mres_jax.nn import sharding

Remat = Literal["none", "dots", "full"]
Block = TypeVar("Block", bound=nnx.Module)


def stack_layers(make: Callable[[nnx.Rngs], Block], num_layers: int, rngs: nnx.Rngs) -> Block:
    """Returns one module whose parameters carry a leading axis of `num_layers`."""

    @nnx.split_rngs(splits=num_layers)
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(rngs: nnx.Rngs) -> Block:
        return make(rngs)

    return create(rngs)


def slice_layers(layers: Block, start: int, stop: int) -> Block:
    """Returns the layers from `start` to before `stop` of a stack, as a stack."""
    graphdef, state = nnx.split(layers)
    return nnx.merge(graphdef, jax.tree.map(lambda x: x[start:stop], state))


def unstack_layers(layers: nnx.Module) -> nnx.Module:
    """Returns the layers of a stack one by one, an `nnx.List`, for `scan_layers`.

    XLA on the CPU copies each layer's weights out of the stack before it uses them; where a layer
    sees few tokens, that takes longer than the layer. On one CPU device the weights are shared with
    the stack, so they must not outlive it; elsewhere they are copied.
    """
    graphdef, state = nnx.split(layers)
    stacked, treedef = jax.tree.flatten(state)
    rows = zip(*(_rows(x) for x in stacked), strict=True)
    return nnx.List([nnx.merge(graphdef, jax.tree.unflatten(treedef, row)) for row in rows])


def _rows(x: jax.Array) -> list[jax.Array]:
    if len(x.devices()) > 1 or next(iter(x.devices())).platform != "cpu":
        return list(x)
    return [jax.device_put(row, x.sharding, may_alias=True) for row in np.asarray(x)]


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
      layers: the stacked module, or an `nnx.List` of layers, which are compiled one by one.
      step: applies one layer.
      carry: what flows from layer to layer.
      xs: what each layer gets of its own, leading axis of layers; beside an `nnx.List` its leaves
        may be lists, by layer.
      remat: what the backward pass recomputes: `none` keeps all, `dots` keeps the results of
        matrix products without a batch axis, `full` keeps the carry only.

    Returns:
      The last carry, and the `y` of all layers stacked.
    """
    if isinstance(layers, nnx.List):
        return _unrolled(layers, step, carry, xs)
    graphdef, state = nnx.split(layers)

    def body(carry, inputs):
        layer_state, x = inputs
        layer = sharding.gather(nnx.merge(graphdef, layer_state))
        return step(layer, sharding.constrain_rows(carry), x)

    if remat == "dots":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        body = jax.checkpoint(body, policy=policy, prevent_cse=False)
    elif remat == "full":
        body = jax.checkpoint(body, prevent_cse=False)
    return jax.lax.scan(body, carry, (state, xs))


def _unrolled(layers: Any, step: Callable[[Any, Any, Any], Any], carry: Any, xs: Any):
    ys = []
    for index, layer in enumerate(layers):
        own = jax.tree.map(lambda x, i=index: x[i], xs, is_leaf=lambda x: isinstance(x, list))
        carry, y = step(layer, carry, own)
        ys.append(y)
    return carry, jax.tree.map(lambda *y: jnp.stack(y), *ys)

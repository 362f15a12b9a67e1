"""What the implementations share of differentiation.

Axes: t rows, h query heads, g key/value heads, k head width.
"""

import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mres_kernels._typing import Array, Float, Float32
from mres_kernels.varlen_attention.plan import Plan

LOG2_E = math.log2(math.e)
SAVED = "varlen_attention"  # what the backward needs, for `jax.checkpoint` policies

# Of q, k, v, plan: the output and the logarithms to base 2 of the denominators.
Forward: TypeAlias = Callable[..., tuple[Array, Array]]
# Of q, k, v, plan, output, logarithms and the gradients of both: the gradients of q, k and v.
Backward: TypeAlias = Callable[..., tuple[Array, Array, Array]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def attend(
    forward: Forward,
    backward: Backward,
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
) -> tuple[Float[Array, "t h k"], Float32[Array, "h t"]]:
    """`forward(q, k, v, plan)`, whose gradients are those that `backward` gives."""
    return _attend_fwd(forward, backward, q, k, v, plan)[0]


def _attend_fwd(forward, backward, q, k, v, plan):
    del backward
    out, lse = (checkpoint_name(x, SAVED) for x in forward(q, k, v, plan))
    return (out, lse), (q, k, v, plan, out, lse)


def _attend_bwd(forward, backward, saved, gradients):
    del forward
    return *backward(*saved, *gradients), None  # the plan is integers


attend.defvjp(_attend_fwd, _attend_bwd)


def row_products(
    out: Float[Array, "t h k"], d_out: Float[Array, "t h k"], d_lse: Float32[Array, "h t"]
) -> Float32[Array, "h t"]:
    """What the gradient of a row's weights is measured from: it sums to zero, weighted."""
    products = jnp.einsum("thk,thk->ht", out, d_out, preferred_element_type=jnp.float32)
    return products - d_lse * LOG2_E

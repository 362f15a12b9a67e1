"""Matrix products as a CPU does them best.

Axes: d contracted width, n rows.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def dot_general_float32_sums(
    x: Array,
    kernel: Array,
    dimension_numbers: Any,
    precision: lax.PrecisionLike = None,
    out_sharding: Any = None,
) -> Array:
    """`lax.dot_general` that asks for float32 sums and rounds them itself, for one matrix.

    The values are those of any bfloat16 product. XLA on the CPU uses bfloat16 instructions only
    when asked so, and only for two rows or more: else it turns each kernel to float32 first, at
    half the rate, and for one row at a tenth of it. It has no gradient of its own: a float32
    cotangent would meet a bfloat16 kernel.

    Args:
      x: `[... d]`.
      kernel: `[d n]` or `[n d]`.
      dimension_numbers: as of `lax.dot_general`, without batch axes.
      precision: likewise.
      out_sharding: likewise.
    """
    rows = x.shape[:-1]
    alone = math.prod(rows) == 1
    x = x.reshape(-1, x.shape[-1])
    if alone:
        x = jnp.concatenate([x, jnp.zeros_like(x)])
    (_, over), batch = dimension_numbers
    sums = jax.lax.dot_general(
        x,
        kernel,
        (((1,), over), batch),
        precision=precision,
        preferred_element_type=jnp.float32,
        out_sharding=out_sharding,
    )
    return sums[: math.prod(rows)].astype(x.dtype).reshape(*rows, -1)

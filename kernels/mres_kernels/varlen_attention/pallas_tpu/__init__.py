"""Pallas kernels for TPU: exact work on packs, forward and backward.

A flat list of tiles is prefetched and its length is the grid, so a tile that nobody sees costs
nothing. Scores are kept keys first: the head width then is the streamed axis of the products with
values and of most of the backward's, and costs 80 where it is 80, not 128. Several heads share a
step. Tiles that all rows see whole need no mask. One fixed order of sums: no atomics, the same
bits every time.
"""

import functools

from mres_kernels._typing import Array, Float, Float32
from mres_kernels.varlen_attention._vjp import attend
from mres_kernels.varlen_attention.pallas_tpu._backward import backward
from mres_kernels.varlen_attention.pallas_tpu._common import Interpret, check
from mres_kernels.varlen_attention.pallas_tpu._forward import forward
from mres_kernels.varlen_attention.pallas_tpu._sizes import (
    Tiles as Tiles,
    choose,
    share_heads as share_heads,
)
from mres_kernels.varlen_attention.plan import Plan


def varlen_attention(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    *,
    scale: float,
    tiles: Tiles | None = None,
    backward_tiles: Tiles | None = None,
    interpret: Interpret = False,
) -> tuple[Float[Array, "t h k"], Float32[Array, "h t"]]:
    """See `api.varlen_attention`; logarithms to base 2.

    Finite contents of other segments change no bit; a NaN can reach other rows of its tile.

    Raises:
      NotImplementedError: a length, head size or dtype that the kernels do not take.
    """
    check(q, k, v)
    options = {"scale": scale, "interpret": interpret}
    return attend(
        functools.partial(forward, tiles=tiles or choose("forward", q), **options),
        functools.partial(backward, tiles=backward_tiles or choose("backward", q), **options),
        q,
        k,
        v,
        plan,
    )

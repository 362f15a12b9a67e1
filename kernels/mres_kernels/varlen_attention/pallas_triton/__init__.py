"""Pallas kernels through Triton, for NVIDIA GPUs from sm_80 on: exact work on packs.

A program makes one tile of results of one head and walks the run of tiles of the other side that
its rows see, from the first row seen: masked tiles at the two ends, tiles without a mask between.
Forward, `d_q`, and `d_k` with `d_v` are a kernel each; each result has one writer and one order of
sums, so the same bits come every time. jax has deprecated this back end in 0.11.
"""

import functools

from mres_kernels._typing import Array, Float, Float32
from mres_kernels.varlen_attention._vjp import attend
from mres_kernels.varlen_attention.pallas_triton._backward import backward
from mres_kernels.varlen_attention.pallas_triton._common import check
from mres_kernels.varlen_attention.pallas_triton._forward import forward
from mres_kernels.varlen_attention.pallas_triton._sizes import Tiles as Tiles, choose as choose
from mres_kernels.varlen_attention.plan import Plan


def varlen_attention(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    *,
    scale: float,
    tiles: Tiles | None = None,
    d_q_tiles: Tiles | None = None,
    d_kv_tiles: Tiles | None = None,
    interpret: bool = False,
) -> tuple[Float[Array, "t h k"], Float32[Array, "h t"]]:
    """See `api.varlen_attention`; logarithms to base 2.

    Finite contents of other segments change no bit; a NaN can reach other rows of its tile.

    Raises:
      NotImplementedError: a dtype or scale that the kernels do not take.
    """
    check(q, k, v, scale)
    options = {"scale": scale, "interpret": interpret}
    return attend(
        functools.partial(forward, tiles=tiles or choose("forward", q), **options),
        functools.partial(
            backward,
            d_q_tiles=d_q_tiles or choose("d_q", q),
            d_kv_tiles=d_kv_tiles or choose("d_kv", q),
            **options,
        ),
        q,
        k,
        v,
        plan,
    )

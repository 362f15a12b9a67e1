"""Pallas kernels on Mosaic for Hopper GPUs (sm_90): exact work on packs.

A block makes a tile of results of one head and walks the run of tiles of the other side that its
rows see, from the first row seen: masked tiles at the two ends, tiles without a mask between. One
warpgroup fetches tiles with the copy engine into a ring in shared memory; the others multiply them
as they come. Forward, `d_q`, and `d_k` with `d_v` are a kernel each; each result has one writer
and one order of sums, so the same bits come every time.

Reference:
  Shah et al., 2024, "FlashAttention-3", arXiv:2407.08608: warpgroups that fetch and that compute.
"""

import functools
from typing import Any

import jax.numpy as jnp

from mres_kernels._typing import Array, Float, Float32
from mres_kernels.varlen_attention._vjp import attend
from mres_kernels.varlen_attention.pallas_gpu._backward import backward
from mres_kernels.varlen_attention.pallas_gpu._common import check
from mres_kernels.varlen_attention.pallas_gpu._forward import forward
from mres_kernels.varlen_attention.pallas_gpu._sizes import Tiles as Tiles, choose as choose
from mres_kernels.varlen_attention.plan import Plan

WIDTH_MULTIPLE = 16  # channels; the least that tensor cores multiply


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
    interpret: Any = None,
) -> tuple[Float[Array, "t h k"], Float32[Array, "h t"]]:
    """See `api.varlen_attention`; logarithms to base 2.

    Finite contents of other segments change no bit; a NaN can reach other rows of its tile. A head
    of other than a multiple of 16 channels is copied into a padded one.

    Raises:
      NotImplementedError: a length, dtype or scale that the kernels do not take.
    """
    check(q, k, v, scale)
    width = q.shape[2]
    if width % WIDTH_MULTIPLE:
        pad = (0, 0), (0, 0), (0, -width % WIDTH_MULTIPLE)
        q, k, v = (jnp.pad(x, pad) for x in (q, k, v))
    options: dict[str, Any] = {"scale": scale, "interpret": interpret}
    results: Any = attend(
        functools.partial(forward, tiles=tiles or choose("forward", q.shape[2]), **options),
        functools.partial(
            backward,
            d_q_tiles=d_q_tiles or choose("d_q", q.shape[2]),
            d_kv_tiles=d_kv_tiles or choose("d_kv", q.shape[2]),
            **options,
        ),
        q,
        k,
        v,
        plan,
    )
    out, lse = results
    return out[..., :width], lse

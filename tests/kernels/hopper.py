"""Program of test_pallas_gpu: the Mosaic kernels, interpreted, against the reference."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import mosaic_gpu as plgpu
from mres_kernels.varlen_attention import make_plan, pallas_gpu, reference
from mres_kernels.varlen_attention.pallas_gpu import Tiles

TOLERANCE = 1e-2  # as in test_varlen_attention, for bfloat16


def check(length, lengths, heads, width, tiles, *, races=False, **options):
    """Forward and gradients, where padding is NaN and must neither be read nor stay."""
    draw = np.random.default_rng(0)
    plan = make_plan(cu_seqlens=np.cumsum([0, *lengths]).astype(np.int32), length=length, **options)
    h, g = heads
    arrays = [
        jnp.asarray(draw.standard_normal((length, n, width), np.float32)).astype(jnp.bfloat16)
        for n in (h, g, g, h)
    ]
    names = ("tiles", "d_q_tiles", "d_kv_tiles")
    sizes = {name: Tiles(*size) for name, size in zip(names, tiles, strict=True)}
    scale = width**-0.5

    @jax.jit
    def attend(q, k, v, d_out, plan):
        def call(q, k, v):
            interpret = plgpu.InterpretGPUParams(detect_races=races)
            sized = {"interpret": interpret, **sizes}
            return pallas_gpu.varlen_attention(q, k, v, plan, scale=scale, **sized)[0]

        out, pull = jax.vjp(call, q, k, v)
        return out, *pull(d_out)

    real = sum(lengths)
    got = attend(*(x.at[real:].set(np.nan) for x in arrays), plan)
    q, k, v, d_out = arrays
    want = (
        reference.varlen_attention(q, k, v, plan, scale=scale),
        *reference.gradients(q, k, v, plan, d_out, scale=scale),
    )
    for name, x, y in zip(("out", "d_q", "d_k", "d_v"), got, want, strict=True):
        error = np.abs(np.asarray(x, np.float64) - y).max() / max(np.abs(y).max(), 1)
        assert error <= TOLERANCE, f"{lengths}, {name}: {error:.1e}"
        assert not np.any(x[real:]), f"{lengths}, {name}: padding is not zero"


if __name__ == "__main__":
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    pair, one = (2, 64, 2), (1, 64, 2)
    check(256, (256,), (1, 1), 16, ((2, 128, 2), pair, pair))
    check(256, (60, 190), (2, 1), 72, (pair, one, (2, 64, 3)), causal=True)
    check(128, (60,), (1, 1), 144, (pair, one, one), races=True)
    print("done")

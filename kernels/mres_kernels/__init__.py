"""Kernels of `mres_jax` that stand alone: they need jax and numpy, nothing of the library."""

from mres_kernels.decode_attention import (
    decode_attention as decode_attention,
    extend_cache as extend_cache,
)
from mres_kernels.varlen_attention import (
    Plan as Plan,
    make_plan as make_plan,
    varlen_attention as varlen_attention,
)

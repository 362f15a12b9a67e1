"""Array functions without parameters; the only room that calls `mres_kernels`."""

from mres_kernels.varlen_attention import (
    ROW_MULTIPLE as ROW_MULTIPLE,
    Plan as Plan,
    make_plan as make_plan,
)

from mres_jax.ops.dot import dot_general_float32_sums as dot_general_float32_sums
from mres_jax.ops.position_table import (
    bicubic_weights as bicubic_weights,
    resize_position_table as resize_position_table,
)
from mres_jax.ops.scatter import scatter_visual as scatter_visual
from mres_jax.ops.sharded import (
    PACKS as PACKS,
    decode_attention as decode_attention,
    extend_cache as extend_cache,
    fill_cache as fill_cache,
    head_axes as head_axes,
    lookup as lookup,
    rows_axis as rows_axis,
    varlen_attention as varlen_attention,
)

"""`varlen_attention`: the one entry to all implementations."""

import math

from jaxtyping import Array, Float

from mres_kernels._dispatch import dispatch
from mres_kernels.varlen_attention import xla
from mres_kernels.varlen_attention.plan import Plan

IMPLEMENTATIONS = {"xla": xla.varlen_attention}  # in order of preference
MAX_HEAD_DIM = 256


def varlen_attention(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    *,
    scale: float | None = None,
    implementation: str | None = None,
) -> Float[Array, "t h k"]:
    """Softmax attention of each row over its own interval of keys.

    Softmax and sums are float32 whatever the inputs are. Rows with an empty interval (padding)
    give zeros, and no gradient flows from or to them, whatever they hold; a row that is not
    finite reaches the rows that see it and no others.

    Args:
      q: queries; `h` is a multiple of `g`, and heads `i*h/g` to `(i+1)*h/g` share k/v head `i`.
      k: keys.
      v: values.
      plan: from `make_plan`, of the same length.
      scale: factor of the scores; `k ** -0.5` when None.
      implementation: a name of `IMPLEMENTATIONS`; the best that accepts the call when None.

    Returns:
      Attention output in `q.dtype`.

    Reference:
      Dao et al., 2022, "FlashAttention", arXiv:2205.14135, algorithms 1 and 4; the packing of
      segments is that of Dehghani et al., 2023, "NaViT", arXiv:2307.06304.
    """
    t, h, head_dim = q.shape
    if h % k.shape[1]:
        raise ValueError(
            f"varlen_attention: {h} query heads are not a multiple of {k.shape[1]} key/value heads."
        )
    if head_dim > MAX_HEAD_DIM:
        raise ValueError(f"varlen_attention: head size {head_dim} is over {MAX_HEAD_DIM}.")
    if plan.starts.shape[-1] != t:
        raise ValueError(
            f"varlen_attention: the plan has {plan.starts.shape[-1]} rows, but q has {t}."
        )
    scale = 1 / math.sqrt(head_dim) if scale is None else scale
    return dispatch("varlen_attention", IMPLEMENTATIONS, implementation, q, k, v, plan, scale=scale)

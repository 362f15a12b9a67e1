"""`varlen_attention`: the one entry to all implementations."""

import importlib
import math
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp

from mres_kernels._dispatch import dispatch
from mres_kernels._target import decline_elsewhere, decline_other_gpus
from mres_kernels._typing import Array, Float, Float32
from mres_kernels.varlen_attention import xla
from mres_kernels.varlen_attention._checks import check_arrays
from mres_kernels.varlen_attention.plan import Plan


def _pallas_tpu(*args: Any, **kwargs: Any) -> Any:
    decline_elsewhere("tpu", "pallas_tpu")
    module = importlib.import_module("mres_kernels.varlen_attention.pallas_tpu")  # 0.5 s
    return module.varlen_attention(*args, **kwargs)


def _pallas_gpu(*args: Any, **kwargs: Any) -> Any:
    decline_elsewhere("gpu", "pallas_gpu")
    decline_other_gpus("pallas_gpu", least=9.0, below=10.0)
    module = importlib.import_module("mres_kernels.varlen_attention.pallas_gpu")
    return module.varlen_attention(*args, **kwargs)


def _pallas_triton(*args: Any, **kwargs: Any) -> Any:
    decline_elsewhere("gpu", "pallas_triton")
    decline_other_gpus("pallas_triton", least=8.0)
    try:
        module = importlib.import_module("mres_kernels.varlen_attention.pallas_triton")
    except ImportError as error:
        raise NotImplementedError(
            f"pallas_triton: jax {jax.__version__} has no Triton; jax 0.11 is the last known to."
        ) from error
    return module.varlen_attention(*args, **kwargs)


# In order of preference. `xla` accepts every call, so what stands behind it is used by name only:
# the kernels for GPUs, until their numbers have been seen on one.
IMPLEMENTATIONS = {
    "pallas_tpu": _pallas_tpu,
    "xla": xla.varlen_attention,
    "pallas_triton": _pallas_triton,
    "pallas_gpu": _pallas_gpu,
}


@overload
def varlen_attention(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    *,
    scale: float | None = None,
    implementation: str | None = None,
    return_lse: Literal[False] = False,
) -> Float[Array, "t h k"]: ...


@overload
def varlen_attention(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    *,
    scale: float | None = None,
    implementation: str | None = None,
    return_lse: Literal[True],
) -> tuple[Float[Array, "t h k"], Float32[Array, "h t"]]: ...


def varlen_attention(
    q: Float[Array, "t h k"],
    k: Float[Array, "t g k"],
    v: Float[Array, "t g k"],
    plan: Plan,
    *,
    scale: float | None = None,
    implementation: str | None = None,
    return_lse: bool = False,
) -> Float[Array, "t h k"] | tuple[Float[Array, "t h k"], Float32[Array, "h t"]]:
    """Softmax attention of each row over its own interval of keys.

    Softmax and sums are float32 whatever the inputs are. Rows with an empty interval (padding)
    give zeros, and no gradient flows from or to them, whatever they hold. A row that is not finite
    reaches the rows that see it; in Pallas kernels also others of their tile.

    Args:
      q: queries; `h` is a multiple of `g`, and heads `i*h/g` to `(i+1)*h/g` share k/v head `i`.
      k: keys.
      v: values.
      plan: from `make_plan`, of the same length.
      scale: factor of the scores; `k ** -0.5` when None.
      implementation: a name of `IMPLEMENTATIONS`. When None that of the environment's
        `MRES_VARLEN_ATTENTION`, else the first that accepts the call.
      return_lse: whether to give the natural logarithms of the softmax denominators too, `-inf`
        where the interval is empty. Gradients flow through them as well: results over parts of
        the keys can be put together.

    Returns:
      Attention output in `q.dtype`; with `return_lse` a pair.

    Raises:
      ValueError: heads, head sizes, lengths or dtypes that do not go together.
      NotImplementedError: what the named implementation does not take; says what would do.
      ExceptionGroup: no implementation takes the call; says why not, one by one.

    Reference:
      Dao et al., 2022, "FlashAttention", arXiv:2205.14135, algorithms 1 and 4; the packing of
      segments is that of Dehghani et al., 2023, "NaViT", arXiv:2307.06304.
    """
    check_arrays(q, k, v, plan.starts.shape[-1])
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, lse = dispatch(
        "varlen_attention", IMPLEMENTATIONS, implementation, q, k, v, plan, scale=scale
    )
    if not return_lse:
        return out
    return out, jnp.where(plan.ends > plan.starts, lse * math.log(2), -jnp.inf)

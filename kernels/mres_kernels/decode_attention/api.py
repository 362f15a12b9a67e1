"""`decode_attention`: the one entry to all implementations."""

import importlib
from typing import Any

from mres_kernels._dispatch import dispatch
from mres_kernels._target import decline_elsewhere
from mres_kernels._typing import Array, Float, Int
from mres_kernels.decode_attention import xla
from mres_kernels.decode_attention._checks import check


def _pallas_tpu(*args: Any, **kwargs: Any) -> Any:
    decline_elsewhere("tpu", "pallas_tpu")
    module = importlib.import_module("mres_kernels.decode_attention.pallas_tpu")
    return module.decode_attention(*args, **kwargs)


# In order of preference.
IMPLEMENTATIONS = {"pallas_tpu": _pallas_tpu, "xla": xla.decode_attention}


def decode_attention(
    q: Float[Array, "m n h k"],
    new_keys: Float[Array, "m n g k"],
    new_values: Float[Array, "m n g k"],
    keys: Float[Array, "*l m g max_len k"],
    values: Float[Array, "*l m g max_len k"],
    lengths: Int[Array, " m"],
    *,
    layer: int | Int[Array, ""] | None = None,
    scale: float | None = None,
    implementation: str | None = None,
) -> Float[Array, "m n h k"]:
    """Attention of `n` new tokens per row against a ragged cache of static shape.

    New token `j` of row `i` sees the first `lengths[i]` cached positions and the new tokens up to
    itself. These are kept apart from the cache, so that writing them does not hold up reading.
    Softmax in float32.

    Args:
      q: queries; heads `i*h/g` to `(i+1)*h/g` share key/value head `i`.
      new_keys: of the new tokens.
      new_values: likewise.
      keys: the cache. What lies from `lengths[i]` on must be finite and is not seen.
      values: likewise.
      lengths: cached positions of each row, 0 to `max_len`.
      layer: the one that is read of a cache of several, from 0 on; None for a cache of one, without
        that axis. A traced one is not looked at.
      scale: factor of the scores; `k ** -0.5` when None.
      implementation: a name of `IMPLEMENTATIONS`. When None that of the environment's
        `MRES_DECODE_ATTENTION`, else the first that accepts the call.

    Returns:
      Attention output in `q.dtype`.

    Raises:
      ValueError: shapes that do not go together; no such layer.
      NotImplementedError: what the named implementation does not take; says what would do.
      ExceptionGroup: no implementation takes the call; says why not, one by one.
    """
    arrays = q, new_keys, new_values, keys, values, lengths
    check(*arrays, layer)
    options = {"layer": layer, "scale": q.shape[-1] ** -0.5 if scale is None else scale}
    return dispatch("decode_attention", IMPLEMENTATIONS, implementation, *arrays, **options)

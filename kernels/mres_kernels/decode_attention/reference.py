"""Definition of `decode_attention`, in float64. The kernels are tested against this file."""

import numpy as np


def decode_attention(
    q, new_keys, new_values, keys, values, lengths, *, layer=None, scale
) -> np.ndarray:
    """New token `j` of row `i` sees `lengths[i]` cached positions and new ones up to itself."""
    q, new_keys, new_values, keys, values = (
        np.asarray(x).astype(np.float64) for x in (q, new_keys, new_values, keys, values)
    )
    if layer is not None:
        keys, values = keys[layer], values[layer]
    out = np.zeros_like(q)
    group = q.shape[2] // keys.shape[1]
    for i, j, h in np.ndindex(q.shape[:3]):
        g = h // group
        seen_keys = np.concatenate([keys[i, g, : lengths[i]], new_keys[i, : j + 1, g]])
        seen_values = np.concatenate([values[i, g, : lengths[i]], new_values[i, : j + 1, g]])
        scores = np.einsum("k,sk->s", q[i, j, h], seen_keys) * scale
        weights = np.exp(scores - scores.max())
        out[i, j, h] = np.einsum("s,sk->k", weights / weights.sum(), seen_values)
    return out

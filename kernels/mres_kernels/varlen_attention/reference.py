"""Definition of `varlen_attention`, in float64. The kernels are tested against this file."""

import numpy as np

from mres_kernels.varlen_attention.plan import Plan


def varlen_attention(q, k, v, plan: Plan, *, scale: float) -> np.ndarray:
    """Each row's softmax-weighted mean of the values in its interval; zeros where it is empty."""
    q, k, v = (np.asarray(x).astype(np.float64) for x in (q, k, v))
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    out = np.zeros_like(q)
    for row, keys in _intervals(plan):
        weights = _weights(q[row], k[keys], scale)
        out[row] = np.einsum("hs,shk->hk", weights, v[keys])
    return out


def gradients(q, k, v, plan: Plan, d_out, *, scale: float) -> tuple[np.ndarray, ...]:
    """Gradients of `sum(d_out * varlen_attention(q, k, v))` for q, k and v."""
    q, k, v, d_out = (np.asarray(x).astype(np.float64) for x in (q, k, v, d_out))
    shape = (k.shape[0], k.shape[1], -1, k.shape[2])
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    d_q, d_k, d_v = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for row, keys in _intervals(plan):
        weights = _weights(q[row], k[keys], scale)
        d_weights = np.einsum("hk,shk->hs", d_out[row], v[keys])
        d_scores = weights * (d_weights - (weights * d_weights).sum(axis=1, keepdims=True))
        d_q[row] = scale * np.einsum("hs,shk->hk", d_scores, k[keys])
        d_k[keys] += scale * np.einsum("hs,hk->shk", d_scores, q[row])
        d_v[keys] += np.einsum("hs,hk->shk", weights, d_out[row])
    return d_q, d_k.reshape(shape).sum(axis=2), d_v.reshape(shape).sum(axis=2)


def _intervals(plan: Plan):
    for row, (start, end) in enumerate(np.stack([plan.starts, plan.ends], axis=1)):
        if end > start:
            yield row, slice(start, end)


def _weights(query, keys, scale: float) -> np.ndarray:
    scores = np.einsum("hk,shk->hs", query, keys) * scale
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)

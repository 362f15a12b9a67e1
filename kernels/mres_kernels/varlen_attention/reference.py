"""Definition of `varlen_attention`, in float64. The kernels are tested against this file."""

import numpy as np

from mres_kernels.varlen_attention.plan import Plan


def varlen_attention(q, k, v, plan: Plan, *, scale: float) -> np.ndarray:
    """Each row's softmax-weighted mean of the values in its interval; zeros where it is empty."""
    q, k, v = (np.asarray(x).astype(np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    out = np.zeros_like(q)
    intervals = np.stack([plan.starts, plan.ends], axis=1)
    for row, (start, end) in enumerate(intervals):
        for head in range(q.shape[1] if end > start else 0):
            keys, values = k[start:end, head // group], v[start:end, head // group]
            scores = keys @ q[row, head] * scale
            weights = np.exp(scores - scores.max())
            out[row, head] = weights @ values / weights.sum()
    return out

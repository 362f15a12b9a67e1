"""Answers that nobody was asked for."""

from collections.abc import Mapping, Sequence

from mres_jax.geometry import View
from mres_jax.protocols import Answer, Cost


def said(
    text: str,
    *,
    views: Sequence[View] = (),
    logprobs: Sequence[float] = (),
    entropies: Sequence[float] | None = None,
    coord_frame: str = "relative_1000",
    visual_tokens: int = 1,
    retention_ratio: float = 1.0,
    flops: float = 1.0,
    ms: Mapping[str, float] | None = None,
) -> Answer:
    """An answer as any model might have given it, with a token per log-probability."""
    return Answer(
        text=text,
        token_ids=tuple(range(len(logprobs))),
        logprobs=tuple(logprobs),
        entropies=entropies if entropies is None else tuple(entropies),
        views=views,
        coord_frame=coord_frame,
        finish_reason="stop",
        cost=Cost(
            visual_tokens=visual_tokens,
            text_tokens=5,
            new_tokens=max(1, len(logprobs)),
            retention_ratio=retention_ratio,
            flops=flops,
            ms=dict(ms or {}),
        ),
    )

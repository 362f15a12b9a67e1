"""What the rooms agree on: requests in, answers with their cost out."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mres_jax.geometry import View


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One question about some pictures.

    Attributes:
      id: name of the request; random keys are derived from it, never from a row of a batch.
      images: upright RGB pictures, `uint8 [height, width, 3]`; none for a text-only question.
      question: the user's text. Control tokens typed in it stay text.
      policy: resolution policy, for example `budget:256`; None takes the model's own.
      history: earlier turns, `(role, text)`; pictures belong to the first user turn.
    """

    id: str
    question: str
    images: Sequence[np.ndarray] = ()
    policy: str | None = None
    history: Sequence[tuple[str, str]] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn. `temperature=0` is greedy and ignores the rest."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0 keeps all
    max_new_tokens: int = 64

    def __post_init__(self):
        is_temperature = math.isfinite(self.temperature) and self.temperature >= 0
        if not is_temperature or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError(
                f"Sampling: temperature={self.temperature} must be >= 0 and finite, top_p="
                f"{self.top_p} in (0, 1], top_k={self.top_k} >= 0."
            )
        if self.max_new_tokens < 1:
            raise ValueError(f"Sampling: max_new_tokens={self.max_new_tokens} must be at least 1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What an answer cost.

    Attributes:
      visual_tokens: visual tokens that the decoder received.
      text_tokens: other prompt tokens.
      new_tokens: tokens generated.
      retention_ratio: visual tokens / visual tokens at native resolution; above 1 when enlarged.
      flops: 2 per multiply-add, of encoder, prefill and decoding for this answer alone, and of a
        policy that looks before it decides.
      ms: wall time, `{"host", "vision", "prefill", "decode"}`, of the batch it was answered in, and
        `allocator` where one looked first.
    """

    visual_tokens: int
    text_tokens: int
    new_tokens: int
    retention_ratio: float
    flops: float
    ms: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer to one request, with what was looked at and what it cost.

    Attributes:
      text: decoded answer, special tokens left out.
      token_ids: generated ids, the stop token included.
      logprobs: log-probability of each under the distribution it was drawn from.
      entropies: nats per token of that distribution, or None where a server does not tell.
      views: what the model looked at.
      coord_frame: how it writes coordinates: `relative_1000` or `resized_px`.
      finish_reason: `stop` or `length`.
    """

    text: str
    token_ids: Sequence[int]
    logprobs: Sequence[float]
    entropies: Sequence[float] | None
    views: Sequence[View]
    coord_frame: str
    finish_reason: str
    cost: Cost


@runtime_checkable
class Answerer(Protocol):
    """A local model or a remote server: whatever answers requests."""

    def answer(
        self,
        requests: Sequence[Request],
        *,
        n: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[list[Answer]]:
        """Returns `n` answers for each request."""
        ...


@runtime_checkable
class FeatureExtractor(Protocol):
    """Frozen features for an allocator: coarse frames and the question."""

    def features(self, frames: Sequence[np.ndarray], question: str) -> tuple[Any, Any]:
        """Returns frame features `[t, 64, d]` and question features `[s, d]`."""
        ...

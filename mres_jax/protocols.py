"""What the rooms agree on: requests in, answers with their cost out."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mres_jax.errors import BadVideoError
from mres_jax.geometry import ClipSize, Extent, Size, View


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """Frames of a video in order; what `mres_jax.data.video` makes of a file, a folder or arrays.

    Attributes:
      frames: upright RGB, `uint8 [height, width, 3]`, two or more, all of one size.
      times: of each frame, seconds from the start, ascending.
      frame_seconds: seconds of the video for each of these frames, on average.
      name: what errors call it.

    Raises:
      BadVideoError: fewer than two frames; frames that differ in size or are no pictures; times
        that are none.
    """

    frames: Sequence[np.ndarray]
    times: Sequence[float]
    frame_seconds: float
    name: str = "given"

    def __post_init__(self):
        check_num_frames(len(self.frames), self.name)
        for number, frame in enumerate(self.frames):
            self._check_frame(number, frame)
        times = np.asarray(self.times, np.float64)
        if times.shape != (len(self.frames),) or not np.isfinite(times).all():
            raise BadVideoError(
                f"video {self.name}: {times.size} times for {len(self.frames)} frames, or one that "
                "is no number. Give the seconds of each."
            )
        if times[0] < 0 or (np.diff(times) <= 0).any():
            raise BadVideoError(f"video {self.name}: its frames' times do not ascend from 0 on.")
        if not (math.isfinite(self.frame_seconds) and self.frame_seconds > 0):
            raise BadVideoError(
                f"video {self.name}: frame_seconds={self.frame_seconds} must be above 0."
            )

    def _check_frame(self, number: int, frame: Any) -> None:
        where = f"video {self.name}: frame {number}"
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
            raise BadVideoError(f"{where} is not uint8 [height, width, 3].")
        if frame.shape[2] != 3 or not frame.size:
            raise BadVideoError(f"{where} is {list(frame.shape)}, not [height, width, 3].")
        if frame.shape != self.frames[0].shape:
            (height, width), (h0, w0) = frame.shape[:2], self.frames[0].shape[:2]
            raise BadVideoError(
                f"{where} is {width} x {height} px, but the first one {w0} x {h0} px. Bring them "
                "to one size, or give them as pictures."
            )

    @property
    def extent(self) -> ClipSize:
        """Its size and times."""
        return ClipSize(
            Size(*self.frames[0].shape[:2]),
            tuple(float(t) for t in self.times),
            self.frame_seconds * len(self.frames),
        )


def check_num_frames(count: int, name: str) -> None:
    """Raises `BadVideoError` unless so many frames make a clip."""
    if count < 2:
        raise BadVideoError(
            f"video {name}: {count} frames, but a clip has two or more. Give one frame as a "
            "picture."
        )


Item = np.ndarray | Clip  # a picture or a clip


def extent_of(item: Item) -> Extent:
    """Returns the size of a picture, or size and times of a clip."""
    return item.extent if isinstance(item, Clip) else Size(*item.shape[:2])


def frames_of(items: Sequence[Item]) -> list[np.ndarray]:
    """Returns all pictures and frames in order, each as a picture of its own."""
    frames: list[np.ndarray] = []
    for item in items:
        frames += item.frames if isinstance(item, Clip) else [item]
    return frames


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One question about some pictures and clips.

    Attributes:
      id: name of the request; random keys are derived from it, never from a row of a batch.
      images: upright RGB pictures, `uint8 [height, width, 3]`, and clips, in the order of the
        prompt; none for a text-only question.
      question: the user's text. Control tokens typed in it stay text.
      policy: resolution policy, for example `budget:256`; None takes the model's own.
      history: earlier turns, `(role, text)`; pictures belong to the first user turn.
      turns: the whole conversation, `(role, parts)`, where pictures (their index) stand between
        texts; it takes the place of `history` and `question`, which policies still read. Empty:
        the pictures open the first user turn.
      views: what is looked at, where the caller has decided; then no policy is asked.
    """

    id: str
    question: str
    images: Sequence[Item] = ()
    policy: str | None = None
    history: Sequence[tuple[str, str]] = ()
    turns: Sequence[tuple[str, tuple[str | int, ...]]] = ()
    views: Sequence[View] = ()

    def asking(self, question: str, *, policy: str) -> "Request":
        """Returns the request with another question and policy; pictures stay where they are.

        Of several texts of the last turn one is left, where the last of them stood.
        """
        turns = list(self.turns)
        if turns and question != self.question:
            role, parts = turns[-1]
            last = max(
                (i for i, part in enumerate(parts) if isinstance(part, str)), default=len(parts)
            )
            items = [part for part in parts[:last] if not isinstance(part, str)]
            turns[-1] = (role, (*items, question, *parts[last + 1 :]))
        return dataclasses.replace(self, question=question, turns=tuple(turns), policy=policy)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn. `temperature=0` is greedy and ignores `top_p` and `top_k`."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0 keeps all
    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()  # an answer ends before the first of these texts

    def __post_init__(self):
        is_temperature = math.isfinite(self.temperature) and self.temperature >= 0
        if not is_temperature or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError(
                f"Sampling: temperature={self.temperature} must be >= 0 and finite, top_p="
                f"{self.top_p} in (0, 1], top_k={self.top_k} >= 0."
            )
        if self.max_new_tokens < 1:
            raise ValueError(f"Sampling: max_new_tokens={self.max_new_tokens} must be at least 1.")
        if not all(self.stop):
            raise ValueError("Sampling: an empty stop text would end every answer at once.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What an answer cost.

    Attributes:
      visual_tokens: visual tokens that the decoder received.
      text_tokens: other prompt tokens.
      new_tokens: tokens generated.
      retention_ratio: visual tokens / visual tokens at native resolution; above 1 when enlarged.
      flops: 2 per multiply-add, of encoder, prefill and decoding for this answer alone, and of a
        policy that looks before it decides; 0 where a server does not tell.
      ms: wall time, `{"host", "vision", "prefill", "decode"}`, of the batch it was answered in, and
        `allocator` where one looked first; `{"host", "gradient"}` of a pass that only points
        (`LocalAnswerer.point`); of a server `{"host", "server"}`, of this answer's
        request.
    """

    visual_tokens: int
    text_tokens: int
    new_tokens: int
    retention_ratio: float
    flops: float
    ms: Mapping[str, float]

    def __add__(self, other: "Cost") -> "Cost":
        """The cost of two passes over the same pictures."""
        ms = {k: self.ms.get(k, 0.0) + other.ms.get(k, 0.0) for k in {**self.ms, **other.ms}}
        return Cost(
            visual_tokens=self.visual_tokens + other.visual_tokens,
            text_tokens=self.text_tokens + other.text_tokens,
            new_tokens=self.new_tokens + other.new_tokens,
            retention_ratio=self.retention_ratio + other.retention_ratio,
            flops=self.flops + other.flops,
            ms=ms,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer to one request, with what was looked at and what it cost.

    Attributes:
      text: decoded answer, special tokens left out; cut before a stop text.
      token_ids: generated ids, the stop token included; up to the one that completes a stop text.
      logprobs: log-probability of each under the distribution it was drawn from.
      entropies: nats per token of that distribution, or None where a server does not tell.
      views: what the model looked at; of several passes, in the last.
      coord_frame: how it writes coordinates, see `mres_jax.coordinates.COORD_FRAMES`.
      finish_reason: `stop` or `length`.
      cost: of all passes.
      entropies_are_bounds: whether a server told the likeliest tokens only, so that each entropy is
        at least what stands here.
      passes: the answers of all passes in turn, where there were several; empty for one.
      note: what a reader should know of how it came about, such as a window that was not found.
    """

    text: str
    token_ids: Sequence[int]
    logprobs: Sequence[float]
    entropies: Sequence[float] | None
    views: Sequence[View]
    coord_frame: str
    finish_reason: str
    cost: Cost
    entropies_are_bounds: bool = False
    passes: Sequence["Answer"] = ()
    note: str = ""


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

"""The validation point: held-out questions under the allocator, beside one fixed scale.

Both get the same share of the native visual tokens, counted after rounding.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mres_jax.config import AllocatorRun
from mres_jax.data.rows import QuestionRow
from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import RunError
from mres_jax.geometry import View
from mres_jax.protocols import Answerer, Sampling
from mres_jax.resolution.allocator.budget import (
    Allocation,
    allocate,
    allocate_within,
    retention_tokens,
)
from mres_jax.resolution.allocator.units import unit_scales, unit_views
from mres_jax.training.allocator.prompts import Prompt
from mres_jax.training.allocator.rewarding import RewardFunction
from mres_jax.training.allocator.rollouts import to_request
from mres_jax.training.metrics import BAD_ROWS

LEAST = 1e-6  # a scale below every picture's smallest size
MOST_BYTES = 2**30  # of frames that wait to be asked about; one clip more may come on top


class Sized(NamedTuple):
    """A prompt at the sizes of one allocation."""

    prompt: Prompt
    allocation: Allocation

    @property
    def views(self) -> list[View]:
        """What is looked at."""
        return unit_views(self.prompt.units, self.allocation)


class Point(NamedTuple):
    """What a way of choosing sizes comes to over all questions.

    Attributes:
      accuracy: mean.
      retention: true visual tokens / native ones, over all questions together.
    """

    accuracy: float
    retention: float


def size_by_scales(
    prompt: Prompt, scales: np.ndarray, spec: ProcessorSpec, run: AllocatorRun
) -> Sized:
    """Returns a prompt at the scales of its frames, at the run's retention if it has one.

    Where the smallest sizes come to more than the retention allows, these are taken.
    """
    of_units = unit_scales(np.asarray(scales, np.float64), prompt.units).tolist()
    extents = prompt.unit_extents
    if run.retention is None:
        return Sized(prompt, allocate(of_units, extents, spec))
    tokens = max(retention_tokens(run.retention, extents, spec), _floor(prompt, spec))
    limit = run.network.max_scale
    return Sized(prompt, allocate_within(of_units, extents, spec, tokens=tokens, max_scale=limit))


def size_uniformly(
    prompt: Prompt, retention: float, spec: ProcessorSpec, *, max_scale: float
) -> Sized:
    """Returns a prompt with all its frames at one scale, at a share of its native visual tokens.

    What rounding leaves of the share makes some frames one step larger, so that none of it is lost.
    """
    extents = prompt.unit_extents
    tokens = max(retention_tokens(retention, extents, spec), _floor(prompt, spec))
    scales = [1.0] * len(extents)
    return Sized(prompt, allocate_within(scales, extents, spec, tokens=tokens, max_scale=max_scale))


def retention_of(sized: Sequence[Sized]) -> float:
    """Returns the share of all native visual tokens."""
    native = sum(sum(each.allocation.native_tokens) for each in sized)
    return sum(sum(each.allocation.tokens) for each in sized) / native


def validate(
    rows: Sequence[QuestionRow],
    open_row: Callable[[QuestionRow], Prompt | None],
    scales: Callable[[Prompt], np.ndarray],
    answerer: Answerer,
    spec: ProcessorSpec,
    reward: RewardFunction,
    run: AllocatorRun,
) -> dict[str, float | int]:
    """Returns accuracy and retention under the allocator and under one fixed scale.

    Pixels of a part of the rows are in memory at a time, so each row is opened twice: what the
    fixed scale may spend is known once all are answered under the allocator.

    Args:
      rows: held-out questions, answered greedily.
      open_row: returns one with its pixels; None where they cannot be read: it is left out.
      scales: the allocator's mean scale of each frame.
      answerer: the backbone.
      spec: of it.
      reward: pays an answer.
      run: the settings.

    Raises:
      RunError: none of the rows can be read.
    """
    asked = functools.partial(_ask_in_parts, open_row, answerer, reward, run)
    ours = asked(rows, lambda prompt: size_by_scales(prompt, scales(prompt), spec, run))
    if not ours.earned:
        raise RunError(f"held out: none of {len(rows)} rows can be read; {BAD_ROWS} says why.")
    share, limit = ours.point.retention, run.network.max_scale
    fixed = asked(rows, lambda prompt: size_uniformly(prompt, share, spec, max_scale=limit))
    return {
        "questions": len(ours.earned),
        "accuracy": ours.point.accuracy,
        "retention": share,
        "fixed_accuracy": fixed.point.accuracy,
        "fixed_retention": fixed.point.retention,
    }


class Asked(NamedTuple):
    """Rows that were answered.

    Attributes:
      earned: accuracy of each.
      tokens: visual tokens of all.
      native: of all at native resolution.
    """

    earned: list[float]
    tokens: int
    native: int

    @property
    def point(self) -> Point:
        """Over all of them."""
        return Point(float(np.mean(self.earned)), self.tokens / self.native)


def _ask_in_parts(
    open_row: Callable[[QuestionRow], Prompt | None],
    answerer: Answerer,
    reward: RewardFunction,
    run: AllocatorRun,
    rows: Sequence[QuestionRow],
    size: Callable[[Prompt], Sized],
) -> Asked:
    """Asks as soon as the frames that wait take `MOST_BYTES`."""
    parts, waiting, held = [], [], 0
    for place, row in enumerate(rows, 1):
        if (prompt := open_row(row)) is not None:
            waiting.append(size(prompt))
            held += sum(frame.nbytes for frame in prompt.frames)
        if waiting and (held >= MOST_BYTES or place == len(rows)):
            parts.append(_ask(waiting, answerer, reward, run))
            waiting, prompt, held = [], None, 0
    earned = [value for part in parts for value in part.earned]
    return Asked(earned, sum(part.tokens for part in parts), sum(part.native for part in parts))


def ask(
    sized: Sequence[Sized], answerer: Answerer, reward: RewardFunction, run: AllocatorRun
) -> Point:
    """Returns what greedy answers at these sizes are worth."""
    return _ask(sized, answerer, reward, run).point


def _ask(
    sized: Sequence[Sized], answerer: Answerer, reward: RewardFunction, run: AllocatorRun
) -> Asked:
    requests = [
        to_request(each.prompt, f"{each.prompt.row.id}@held_out", each.views) for each in sized
    ]
    sampling = Sampling(max_new_tokens=run.max_new_tokens)
    answers = [some[0] for some in answerer.answer(requests, sampling=sampling)]
    earned = [
        reward(answer, each.prompt.row).accuracy
        for answer, each in zip(answers, sized, strict=True)
    ]
    tokens = sum(sum(each.allocation.tokens) for each in sized)
    return Asked(earned, tokens, sum(sum(each.allocation.native_tokens) for each in sized))


def _floor(prompt: Prompt, spec: ProcessorSpec) -> int:
    """Visual tokens of the smallest sizes."""
    return sum(allocate([LEAST] * len(prompt.units), prompt.unit_extents, spec).tokens)

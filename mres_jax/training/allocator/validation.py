"""The validation point: held-out questions under the allocator, beside one fixed scale.

Both get the same share of the native visual tokens, counted after rounding.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mres_jax.config import AllocatorRun
from mres_jax.data.spec import ProcessorSpec
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

LEAST = 1e-6  # a scale below every picture's smallest size


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
    prompts: Sequence[Prompt],
    scales: Callable[[Prompt], np.ndarray],
    answerer: Answerer,
    spec: ProcessorSpec,
    reward: RewardFunction,
    run: AllocatorRun,
) -> dict[str, float | int]:
    """Returns accuracy and retention under the allocator and under one fixed scale.

    Args:
      prompts: held-out questions, answered greedily.
      scales: the allocator's mean scale of each frame.
      answerer: the backbone.
      spec: of it.
      reward: pays an answer.
      run: the settings.
    """
    ours = [size_by_scales(prompt, scales(prompt), spec, run) for prompt in prompts]
    retention = retention_of(ours)
    limit = run.network.max_scale
    fixed = [size_uniformly(prompt, retention, spec, max_scale=limit) for prompt in prompts]
    here, there = (ask(sized, answerer, reward, run) for sized in (ours, fixed))
    return {
        "questions": len(prompts),
        "accuracy": here.accuracy,
        "retention": here.retention,
        "fixed_accuracy": there.accuracy,
        "fixed_retention": there.retention,
    }


def ask(
    sized: Sequence[Sized], answerer: Answerer, reward: RewardFunction, run: AllocatorRun
) -> Point:
    """Returns what greedy answers at these sizes are worth."""
    requests = [
        to_request(each.prompt, f"{each.prompt.row.id}@held_out", each.views) for each in sized
    ]
    sampling = Sampling(max_new_tokens=run.max_new_tokens)
    answers = [some[0] for some in answerer.answer(requests, sampling=sampling)]
    earned = [
        reward(answer, each.prompt.row).accuracy
        for answer, each in zip(answers, sized, strict=True)
    ]
    return Point(float(np.mean(earned)), retention_of(sized))


def _floor(prompt: Prompt, spec: ProcessorSpec) -> int:
    """Visual tokens of the smallest sizes."""
    return sum(allocate([LEAST] * len(prompt.units), prompt.unit_extents, spec).tokens)

"""One step's questions, allocated, answered and paid.

Axes: t frames of one clip, m allocations of it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import RunError
from mres_jax.geometry import View
from mres_jax.protocols import Answer, Answerer, Request, Sampling
from mres_jax.resolution.allocator.budget import Allocation, allocate
from mres_jax.resolution.allocator.units import unit_scales, unit_views
from mres_jax.rewards import Reward
from mres_jax.training.allocator.draws import Drawn
from mres_jax.training.allocator.prompts import Prompt
from mres_jax.training.allocator.rewarding import RewardFunction


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Try:
    """One allocation of a question, and the answers under it.

    Attributes:
      scales: per side, of each frame as drawn, `[t]`.
      allocation: sizes of the units.
      request: what the backbone was asked.
      answers: N of them.
      rewards: of each.
    """

    scales: Float[np.ndarray, " t"]
    allocation: Allocation
    request: Request
    answers: list[Answer]
    rewards: list[Reward]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """One question with all its allocations.

    Attributes:
      prompt: the question.
      name: of it in this step.
      tries: M of them.
    """

    prompt: Prompt
    name: str
    tries: list[Try]

    def accuracies(self) -> Float[np.ndarray, "m n"]:
        """Of all rollouts."""
        return np.array([[r.accuracy for r in each.rewards] for each in self.tries], np.float32)

    def totals(self) -> Float[np.ndarray, "m n"]:
        """Accuracy and format of all rollouts."""
        return np.array([[r.total for r in each.rewards] for each in self.tries], np.float32)

    def rights(self) -> Bool[np.ndarray, "m n"]:
        """Which rollouts count as right."""
        return np.array([[bool(r.right) for r in each.rewards] for each in self.tries])

    def mean_scales(self) -> Float[np.ndarray, " m"]:
        """Mean over the frames of each allocation."""
        return np.array([each.scales.mean() for each in self.tries], np.float32)

    def retentions(self) -> Float[np.ndarray, " m"]:
        """True visual tokens / native ones, of each allocation."""
        return np.array([each.allocation.retention for each in self.tries], np.float32)


def plan_views(
    prompt: Prompt, scales: Float[np.ndarray, " t"], spec: ProcessorSpec
) -> tuple[Allocation, list[View]]:
    """Returns the sizes that the scales of a prompt's frames come to, and its views."""
    of_units = unit_scales(np.asarray(scales, np.float64), prompt.units)
    allocation = allocate(of_units.tolist(), prompt.unit_extents, spec)
    return allocation, unit_views(prompt.units, allocation)


def collect(
    prompts: Sequence[Prompt],
    names: Sequence[str],
    drawn: Drawn,
    answerer: Answerer,
    spec: ProcessorSpec,
    reward: RewardFunction,
    *,
    rollouts: int,
    sampling: Sampling,
    seed: int,
) -> list[Group]:
    """Returns what came of all allocations of a step.

    Args:
      prompts: of the step.
      names: of them in this step: random keys come from them.
      drawn: their allocations, frames of all prompts one behind another.
      answerer: the backbone.
      spec: of it.
      reward: pays an answer.
      rollouts: answers under each allocation.
      sampling: of them.
      seed: of the run.

    Raises:
      MresError: a question that does not fit the backbone.
      RunError: an answer with tokens that must never be drawn.
    """
    planned, first = [], 0
    for prompt, name in zip(prompts, names, strict=True):
        frames = slice(first, first + len(prompt.frames))
        first = frames.stop
        for m, scales in enumerate(drawn.scales[:, frames]):
            allocation, views = plan_views(prompt, scales, spec)
            request = to_request(prompt, f"{name}/{m}", views)
            planned.append((prompt, name, scales, allocation, request))
    requests = [request for *_, request in planned]
    answers = answerer.answer(requests, n=rollouts, sampling=sampling, seed=seed)
    groups: dict[str, Group] = {}
    for (prompt, name, scales, allocation, request), some in zip(planned, answers, strict=True):
        _check_tokens(request, some, spec)
        group = groups.setdefault(name, Group(prompt=prompt, name=name, tries=[]))
        group.tries.append(
            Try(
                scales=scales,
                allocation=allocation,
                request=request,
                answers=some,
                rewards=[reward(answer, prompt.row) for answer in some],
            )
        )
    return list(groups.values())


def to_request(prompt: Prompt, name: str, views: Sequence[View]) -> Request:
    """Returns the question as the backbone is asked it."""
    return Request(
        id=name,
        images=prompt.items,
        question=prompt.row.prompt,
        turns=prompt.turns,
        views=views,
    )


def _check_tokens(request: Request, answers: Sequence[Answer], spec: ProcessorSpec) -> None:
    reserved = set(spec.reserved_token_ids)
    for answer in answers:
        bad = [token for token in answer.token_ids if token in reserved]
        if bad:
            raise RunError(
                f"rollouts: an answer to {request.id!r} has {len(bad)} control tokens that must "
                f"never be drawn, the first {bad[0]}. Whoever answers does not mask them: its "
                "log-probabilities are of another distribution than the learner's."
            )

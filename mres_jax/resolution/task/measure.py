"""What a task says of itself under each candidate: complexity, uncertainty, scores, tokens.

Axes: n rows, r candidates.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from mres_jax.data.rows import QuestionRow, Task
from mres_jax.data.video import FrameSampling
from mres_jax.errors import MresError, RunError
from mres_jax.protocols import Answer, Answerer, Clip, Item, Request, Sampling, frames_of
from mres_jax.resolution.complexity import find_complexity
from mres_jax.resolution.task.candidates import Candidate
from mres_jax.resolution.task.perturb import perturb

BATCH = 16  # rows whose pictures are held at a time
LEAST_ROWS = 2


class NoEntropyError(RunError):
    """An answerer that tells no entropies, where they are what is measured."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredTask:
    """Measurements of one task.

    Attributes:
      name: of the task.
      ids: of its rows.
      candidates: ascending.
      complexity: of the pictures of each row, their mean.
      uncertainty: mean entropy of the answers' tokens under perturbations, nats.
      scores: 1.0 where the unperturbed answer is right; None where nobody knows what is.
      tokens: visual tokens of each row.
      num_answers: asked for in all.
      is_bound: whether entropies are lower bounds, as servers tell them.
      num_empty: answers without any token, whose entropy counts as 0.
    """

    name: str
    ids: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    complexity: Float[np.ndarray, " n"]
    uncertainty: Float[np.ndarray, "n r"]
    scores: Float[np.ndarray, "n r"] | None
    tokens: Float[np.ndarray, "n r"]
    num_answers: int
    is_bound: bool = False
    num_empty: int = 0

    @property
    def variance(self) -> Float[np.ndarray, " n"]:
        """Variance of each row's uncertainty over the candidates, nats squared."""
        return self.uncertainty.var(1)

    @property
    def best(self) -> int:
        """The candidate with the highest mean score, of equal ones the smallest.

        Raises:
          MresError: nobody knows what is right.
        """
        if self.scores is None:
            raise MresError(f"task {self.name}: its rows have no answers, so no candidate is best.")
        return int(self.scores.mean(0).argmax())

    @property
    def scores_alike(self) -> bool:
        """Whether all candidates score the same, so that scores decide nothing."""
        return self.scores is not None and not np.ptp(self.scores.mean(0))


def measure_task(
    answerer: Answerer,
    task: Task,
    candidates: Sequence[Candidate],
    *,
    perturbations: int = 3,
    complexity: str = "mdl",
    max_new_tokens: int = 16,
    seed: int = 0,
    frames: FrameSampling | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> MeasuredTask:
    """Asks every row under every candidate and perturbation, greedily.

    Args:
      answerer: a model here or a server that tells log-probabilities.
      task: its rows; at least two.
      candidates: ascending.
      perturbations: of each picture, the first of which is the picture itself.
      complexity: a name of `COMPLEXITIES`.
      max_new_tokens: of an answer.
      seed: of perturbations.
      frames: of clips that are looked at; the usual ones when None.
      report: called with rows done and rows in all.

    Raises:
      NoEntropyError: the answerer tells no entropies.
      MresError: too few rows or perturbations, an unknown measure, what the answerer refuses.
    """
    if len(task.rows) < LEAST_ROWS or perturbations < 1:
        raise MresError(
            f"task {task.name}: {len(task.rows)} rows and {perturbations} perturbations; at least "
            f"{LEAST_ROWS} rows and one perturbation are needed."
        )
    measure, sampling = find_complexity(complexity), Sampling(max_new_tokens=max_new_tokens)
    values: dict[str, list] = {"complexity": [], "uncertainty": [], "scores": [], "tokens": []}
    bounds, empty = False, 0
    for at in range(0, len(task.rows), BATCH):
        rows = task.rows[at : at + BATCH]
        seen = [row.items(frames or FrameSampling()) for row in rows]
        values["complexity"] += [_mean_complexity(measure, frames_of(items)) for items in seen]
        requests = [
            request
            for row, items in zip(rows, seen, strict=True)
            for request in _requests(row, items, candidates, perturbations, seed)
        ]
        answers = [some[0] for some in answerer.answer(requests, sampling=sampling, seed=seed)]
        bounds |= any(answer.entropies_are_bounds for answer in answers)
        shape = (len(rows), len(candidates), perturbations)
        doubts = np.array([mean_entropy(answer) for answer in answers]).reshape(shape).mean(2)
        values["uncertainty"] += list(doubts)
        empty += sum(not len(answer.entropies or ()) for answer in answers)
        plain = answers[::perturbations]
        grid = [plain[i : i + len(candidates)] for i in range(0, len(plain), len(candidates))]
        values["tokens"] += [[a.cost.visual_tokens for a in line] for line in grid]
        values["scores"] += [
            [row.grade(a) if task.is_graded else 0.0 for a in line]
            for row, line in zip(rows, grid, strict=True)
        ]
        report(min(at + BATCH, len(task.rows)), len(task.rows))
    arrays = {name: np.array(value, np.float64) for name, value in values.items()}
    scores = arrays.pop("scores")
    return MeasuredTask(
        name=task.name,
        ids=tuple(row.id for row in task.rows),
        candidates=tuple(candidates),
        scores=scores if task.is_graded else None,
        num_answers=len(task.rows) * len(candidates) * perturbations,
        is_bound=bounds,
        num_empty=empty,
        **arrays,
    )


def mean_entropy(answer: Answer) -> float:
    """Returns the mean entropy of an answer's tokens, nats; 0 for one without any.

    Raises:
      NoEntropyError: it has none.
    """
    if answer.entropies is None:
        raise NoEntropyError(
            "resolution: the answerer tells no entropies of its tokens, which are what is measured "
            "here. Use a model on this machine, or a server that sends top_logprobs."
        )
    return float(np.mean(answer.entropies)) if len(answer.entropies) else 0.0


def _mean_complexity(measure: Callable[[np.ndarray], float], images: Sequence[np.ndarray]) -> float:
    return float(np.mean([measure(image) for image in images])) if images else 0.0


def _requests(
    row: QuestionRow,
    items: Sequence[Item],
    candidates: Sequence[Candidate],
    perturbations: int,
    seed: int,
) -> list[Request]:
    """One request per candidate and perturbation, perturbations innermost."""
    changed = [
        [_perturbed(item, number, name=row.id, seed=seed) for item in items]
        for number in range(perturbations)
    ]
    return [
        Request(
            id=f"{row.id}/{candidate.policy}/{number}",
            images=changed[number],
            question=row.prompt,
            policy=candidate.policy,
        )
        for candidate in candidates
        for number in range(perturbations)
    ]


def _perturbed(item: Item, number: int, *, name: str, seed: int) -> Item:
    """A picture changed; of a clip all frames alike, so that nothing seems to move."""
    change = functools.partial(perturb, number=number, name=name, seed=seed)
    if not isinstance(item, Clip):
        return change(item)
    return dataclasses.replace(item, frames=[change(frame) for frame in item.frames])

"""Questions asked under several policies, and their tally: accuracy never without its cost."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mres_jax.data.documents import Document, Question, item_seed, make_document
from mres_jax.data.documents.bins import BINS
from mres_jax.protocols import Answer, Answerer, Request, Sampling
from mres_jax.scoring import (
    Interval,
    anls,
    box_match,
    exact_match,
    point_match,
    wilson_interval,
)


class Trial(NamedTuple):
    """One question under one policy, answered."""

    question: Question
    policy: str
    answer: Answer

    @property
    def is_right(self) -> bool:
        """Whether the question's scorer accepts the answer.

        `exact`: `scoring.exact_match`. `anls`: `scoring.anls` of at least 0.5. `point` and `box`:
        `scoring.point_match` and `box_match`; the picture was looked at in one view.
        """
        question, answer = self.question, self.answer
        if question.scorer == "exact":
            return exact_match(answer.text, [question.answer]) == 1.0
        if question.scorer == "anls":
            return anls(answer.text, [question.answer]) > 0
        match = {"point": point_match, "box": box_match}[question.scorer]
        assert question.box is not None, question.id
        (view,) = answer.views
        return match(answer.text, question.box, view=view, coord_frame=answer.coord_frame) == 1.0


class Tally(NamedTuple):
    """What one policy reached, and at what cost.

    Attributes:
      policy: its string.
      num_questions: asked.
      accuracy: share right by type of question (`rc`, `sc`), with 95 % Wilson intervals.
      visual_tokens: mean per question.
      retention_ratio: visual tokens spent / at native resolution, over all questions.
    """

    policy: str
    num_questions: int
    accuracy: dict[str, Interval]
    visual_tokens: float
    retention_ratio: float


def draw_questions(
    seed: int, num_questions: int, *, types: Sequence[str] = ("rc", "sc"), per_document: int = 2
) -> Iterator[tuple[Document, Question]]:
    """Yields questions about fresh documents, round all 35 cells of size, types in turn.

    Args:
      seed: of documents and questions.
      num_questions: how many in all.
      types: of questions; every document is asked one of each, as far as it has them.
      per_document: most questions about one document.
    """
    asked = 0
    for index in range(100 * num_questions + 100):  # a document always has one to ask
        area_bin, ratio_bin = BINS[index % len(BINS)]
        document = make_document(item_seed(seed, index), area_bin=area_bin, ratio_bin=ratio_bin)
        for question in _pick(document, types, per_document, index):
            if asked == num_questions:
                return
            asked += 1
            yield document, question


def _pick(
    document: Document, types: Sequence[str], per_document: int, index: int
) -> list[Question]:
    """One question of each type in turn; which one of a type goes round with the documents."""
    groups = [[q for q in document.questions if q.type == kind] for kind in types]
    picked = [group[index % len(group)] for group in groups if group]
    return picked[:per_document]


def run_trials(
    answerer: Answerer,
    questions: Iterable[tuple[np.ndarray, Question]],
    policies: Sequence[str],
    *,
    batch: int = 32,
    max_new_tokens: int = 32,
    seed: int = 0,
    report: Callable[[int], None] = lambda done: None,
) -> list[Trial]:
    """Returns every question answered under every policy; greedy, all policies in one batch.

    Args:
      answerer: local or remote.
      questions: picture (`uint8 [h w 3]`, upright) and question.
      policies: strings.
      batch: questions held at a time, each once per policy.
      max_new_tokens: of an answer.
      seed: of the answerer.
      report: called with the number of answers so far.
    """
    trials: list[Trial] = []
    sampling = Sampling(max_new_tokens=max_new_tokens)
    for group in _batches(questions, batch):
        asked = [(policy, image, question) for policy in policies for image, question in group]
        requests = [
            Request(id=f"{q.id}/{policy}", images=[image], question=q.text, policy=policy)
            for policy, image, q in asked
        ]
        answers = answerer.answer(requests, sampling=sampling, seed=seed)
        trials += [
            Trial(question, policy, some[0])
            for (policy, _, question), some in zip(asked, answers, strict=True)
        ]
        report(len(trials))
    return trials


def _batches(items: Iterable, size: int) -> Iterator[list]:
    group: list = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def tally(trials: Sequence[Trial]) -> list[Tally]:
    """Returns one tally per policy, in the order in which they were first asked."""
    by_policy: dict[str, list[Trial]] = {}
    for trial in trials:
        by_policy.setdefault(trial.policy, []).append(trial)
    return [_tally(policy, group) for policy, group in by_policy.items()]


def _tally(policy: str, trials: Sequence[Trial]) -> Tally:
    types = sorted({trial.question.type for trial in trials})
    by_type = {kind: [t.is_right for t in trials if t.question.type == kind] for kind in types}
    costs = [trial.answer.cost for trial in trials]
    spent = sum(cost.visual_tokens for cost in costs)
    # not a mean of ratios: small pictures, where a ratio is coarse, would outweigh large ones
    native = sum(c.visual_tokens / c.retention_ratio for c in costs if c.retention_ratio)
    return Tally(
        policy=policy,
        num_questions=len(trials),
        accuracy={kind: wilson_interval(sum(r), len(r)) for kind, r in by_type.items()},
        visual_tokens=spent / len(trials),
        retention_ratio=spent / native if native else 1.0,
    )

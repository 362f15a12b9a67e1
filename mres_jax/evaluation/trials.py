"""Questions asked under several policies, and their tally: accuracy never without its cost."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mres_jax.data.documents import Document, Question, item_seed, make_document
from mres_jax.data.documents.bins import BINS
from mres_jax.protocols import Answer, Answerer, Request, Sampling
from mres_jax.scoring import Interval, grade, wilson_interval

NO_PICTURE = "no picture"  # in the place of a policy: the question alone
COMPILING = "/jax/core/compile/"  # how names of the events of compiling begin


class Trial(NamedTuple):
    """One question under one policy, answered."""

    question: Question
    policy: str
    answer: Answer

    @property
    def is_right(self) -> bool:
        """Whether the question's scorer accepts the answer, see `scoring.grade`."""
        question, answer = self.question, self.answer
        score = grade(
            question.scorer,
            answer.text,
            [question.answer],
            box=question.box,
            views=answer.views,
            coord_frame=answer.coord_frame,
        )
        return score == 1.0

    @property
    def text_height(self) -> float:
        """Height of the capitals to be read in what the model saw, px; 0 where there are none."""
        if not self.question.text_height or not self.answer.views:
            return 0.0
        (view,) = self.answer.views
        return self.question.text_height * view.size.height / view.crop.size.height


class Tally(NamedTuple):
    """What one policy reached, and at what cost.

    Attributes:
      policy: its string.
      num_questions: asked.
      accuracy: share right by type of question (`rc`, `sc`), with 95 % Wilson intervals.
      visual_tokens: mean per question.
      retention_ratio: visual tokens spent / at native resolution, over all questions.
      flops: mean per question.
      ms: wall time per question where it was measured, 0 elsewhere.
    """

    policy: str
    num_questions: int
    accuracy: dict[str, Interval]
    visual_tokens: float
    retention_ratio: float
    flops: float
    ms: float = 0.0


def draw_questions(
    seed: int,
    num_questions: int,
    *,
    types: Sequence[str] = ("rc", "sc"),
    per_document: int = 2,
    bins: Sequence[tuple[str, str]] = BINS,
) -> Iterator[tuple[Document, Question]]:
    """Yields questions about fresh documents, round all 35 cells of size, types in turn.

    Args:
      seed: of documents and questions.
      num_questions: how many in all.
      types: of questions; every document is asked one of each, as far as it has them.
      per_document: most questions about one document.
      bins: cells, in the order in which they take turns.
    """
    asked = 0
    for index in range(100 * num_questions + 100):  # a document always has one to ask
        area_bin, ratio_bin = bins[index % len(bins)]
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
      policies: strings; `NO_PICTURE` asks without the picture.
      batch: questions held at a time, each once per policy.
      max_new_tokens: of an answer.
      seed: of the answerer.
      report: called with the number of answers so far.
    """
    trials: list[Trial] = []
    sampling = Sampling(max_new_tokens=max_new_tokens)
    for group in in_batches(questions, batch):
        asked = [(policy, image, question) for policy in policies for image, question in group]
        requests = [make_request(image, question, policy) for policy, image, question in asked]
        answers = answerer.answer(requests, sampling=sampling, seed=seed)
        trials += [
            Trial(question, policy, some[0])
            for (policy, _, question), some in zip(asked, answers, strict=True)
        ]
        report(len(trials))
    return trials


def make_request(image: np.ndarray, question: Question, policy: str) -> Request:
    """Returns a question about a picture (`uint8 [h w 3]`), or without it for `NO_PICTURE`."""
    name = f"{question.id}/{policy}"
    if policy == NO_PICTURE:
        return Request(id=name, question=question.text)
    return Request(id=name, images=[image], question=question.text, policy=policy)


def time_trials(
    answerer: Answerer,
    questions: Iterable[tuple[np.ndarray, Question]],
    policies: Sequence[str],
    *,
    batch: int = 32,
    report: Callable[[int], None] = lambda done: None,
) -> tuple[list[Trial], dict[str, float]]:
    """Returns every question answered under every policy, and ms per question by policy.

    The policies take turns, a batch each, so that a busy machine is unfair to none. A batch in
    which something was compiled is not timed; where that leaves a policy without a time, its last
    batch is asked once more.

    Args:
      answerer, questions, policies, report: as for `run_trials`.
      batch: questions asked at a time; pictures of all sizes should be in each. The next batch is
        drawn when this one has been answered.
    """
    trials: list[Trial] = []
    times: dict[str, list[float]] = {policy: [] for policy in policies}
    group: list[tuple[np.ndarray, Question]] = []
    for group in in_batches(questions, batch):
        for policy in policies:
            here, ms = _time_batch(answerer, group, policy)
            times[policy] += ms
            trials += here
            report(len(trials))
    for policy in policies:
        for _ in range(2 if group and not times[policy] else 0):
            times[policy] = times[policy] or _time_batch(answerer, group, policy)[1]
    return trials, {policy: statistics.mean(some or [0.0]) for policy, some in times.items()}


def _time_batch(
    answerer: Answerer, group: Sequence[tuple[np.ndarray, Question]], policy: str
) -> tuple[list[Trial], list[float]]:
    """Returns a batch answered, and ms per question, or no time where something was compiled."""
    with note_compiles() as compiles:
        start = time.perf_counter()
        trials = run_trials(answerer, group, [policy], batch=len(group))
        elapsed = 1e3 * (time.perf_counter() - start) / len(group)
    return trials, [] if compiles else [elapsed]


@contextlib.contextmanager
def note_compiles() -> Iterator[list[str]]:
    """Gives a list that the names of compiling events are added to."""
    events: list[str] = []

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith(COMPILING):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def in_batches(items: Iterable, size: int) -> Iterator[list]:
    """Yields lists of so many items, the last one shorter; no item is drawn before its turn."""
    group: list = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def tally(trials: Sequence[Trial], ms: Mapping[str, float] | None = None) -> list[Tally]:
    """Returns one tally per policy, in the order in which they were first asked.

    Args:
      trials: of all policies.
      ms: per question by policy, from `time_trials`.
    """
    by_policy: dict[str, list[Trial]] = {}
    for trial in trials:
        by_policy.setdefault(trial.policy, []).append(trial)
    return [
        _tally(policy, group, (ms or {}).get(policy, 0.0)) for policy, group in by_policy.items()
    ]


def _tally(policy: str, trials: Sequence[Trial], ms: float) -> Tally:
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
        retention_ratio=spent / native if native else 0.0 if policy == NO_PICTURE else 1.0,
        flops=sum(cost.flops for cost in costs) / len(trials),
        ms=ms,
    )

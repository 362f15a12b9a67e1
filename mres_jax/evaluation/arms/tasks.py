"""Tasks of an evaluation: where their questions come from, and what they are known by."""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mres_jax.config import Benchmark, Generated, QuestionFile
from mres_jax.data.documents import Document, Question
from mres_jax.data.documents.render import paint
from mres_jax.data.rows import QuestionRow
from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import MresError
from mres_jax.evaluation.arms.files import read_questions
from mres_jax.evaluation.arms.metrics import grade_row
from mres_jax.evaluation.arms.questions import AskedQuestion
from mres_jax.evaluation.arms.sets import open_benchmark
from mres_jax.evaluation.trials import draw_questions
from mres_jax.geometry import Size
from mres_jax.protocols import Item

DIGESTED = 16  # generated questions that are drawn to tell one generator from another


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalTask:
    """Questions of one task.

    Attributes:
      name: in results.
      num_questions: of `draw`.
      digest: of what makes the questions; another digest is another task.
      draw: yields them, in the same order every time.
      texts: of the questions by their ids, in order; empty where drawing them takes long.
    """

    name: str
    num_questions: int
    digest: str
    draw: Callable[[], Iterator[AskedQuestion]]
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)


def open_task(task: Any, seed: int, *, limit: int | None = None) -> EvalTask:
    """Opens a task of a run file.

    Args:
      task: `Generated`, `QuestionFile` or `Benchmark`.
      seed: of generated questions.
      limit: the first so many questions only.

    Raises:
      MresError: a source that is not there, or rows of it that cannot be used, counted by kind.
    """
    if isinstance(task, Generated):
        return _generated(task, seed, limit)
    known: Sequence[AskedQuestion]
    if isinstance(task, Benchmark):
        name, known = task.called, open_benchmark(task)
    else:
        assert isinstance(task, QuestionFile)
        name, known = task.name, read_questions(task)
    known = known[:limit]
    return EvalTask(
        name=name,
        num_questions=len(known),
        digest=_digest(known),
        draw=lambda: iter(known),
        texts={question.id: question.text for question in known},
    )


def _digest(questions: Sequence[AskedQuestion]) -> str:
    digest = hashlib.sha256()
    for question in questions:
        digest.update(json.dumps(question.facts()).encode())
    return digest.hexdigest()[:16]


def _generated(task: Generated, seed: int, limit: int | None) -> EvalTask:
    count = min(task.num_questions, limit or task.num_questions)

    def draw(num_questions: int = count) -> Iterator[AskedQuestion]:
        drawn = draw_questions(seed, num_questions, types=task.types, per_document=len(task.types))
        for number, (document, question) in enumerate(drawn):
            yield _asked(number, document, question)

    first = list(draw(min(count, DIGESTED)))
    facts = f"{seed} {' '.join(task.types)} {_digest(first)}"
    return EvalTask(
        name=task.name,
        num_questions=count,
        digest=hashlib.sha256(facts.encode()).hexdigest()[:16],
        draw=draw,
    )


def _asked(number: int, document: Document, question: Question) -> AskedQuestion:
    area_bin, ratio_bin = question.tags[-2:]
    row = QuestionRow(
        id=question.id,
        pictures=(),
        question=question.text,
        answers=(question.answer,),
        scorer=question.scorer,
        box=question.box,
    )
    return AskedQuestion(
        id=f"{number:05d}-{question.id}",
        text=question.text,
        answers=(question.answer,),
        metric=question.scorer,
        grade=functools.partial(grade_row, row),
        open=functools.partial(_paint, document),
        type=question.type,
        group=str(document.seed),
        sizes=(Size(*document.size),),
        cell=(area_bin, ratio_bin),
        text_height=float(question.text_height),
        box=question.box,
    )


def _paint(document: Document, spec: ProcessorSpec | None) -> list[Item]:
    return [paint(document.plan)]  # not `Document.image`, which is kept


def find_questions(task: Any, seed: int, ids: Sequence[str]) -> dict[str, AskedQuestion]:
    """Returns questions of a task by id, as far as they are still there.

    Raises:
      MresError: as `open_task`.
    """
    wanted, opened = set(ids), open_task(task, seed)
    found: dict[str, AskedQuestion] = {}
    for question in opened.draw():
        if question.id in wanted:
            found[question.id] = question
            if len(found) == len(wanted):
                break
    return found


def batches(task: EvalTask, size: int) -> Iterator[list[AskedQuestion]]:
    """Yields the questions of a task in whole batches; the last may be short.

    Raises:
      MresError: two questions have one id.
    """
    seen: set[str] = set()
    questions = task.draw()
    while batch := list(itertools.islice(questions, size)):
        for question in batch:
            if question.id in seen:
                raise MresError(f"task {task.name}: two questions have the id {question.id!r}.")
            seen.add(question.id)
        yield batch

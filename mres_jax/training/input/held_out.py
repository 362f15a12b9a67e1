"""What a run is tested on as it trains, and never trains on."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from mres_jax.config import Documents, Evaluate, Run
from mres_jax.data.assemble import measure
from mres_jax.data.conversations import Message, prompt_messages
from mres_jax.data.packing import check_fits
from mres_jax.data.rows.types import Fault
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import Pack
from mres_jax.errors import BadRowError, ConfigError, MresError
from mres_jax.protocols import Request, extent_of
from mres_jax.resolution.policies import check_policy, parse_policy
from mres_jax.training.input.documents import DocumentExamples
from mres_jax.training.input.rows import RowExamples
from mres_jax.training.input.sources import checked_ladder, open_sources, planner

EXAMPLES_PER_PACK = 16  # generated documents that are drawn to fill held-out packs


class Question(NamedTuple):
    """A request and what should be answered."""

    request: Request
    expected: str


class HeldOut(NamedTuple):
    """The same packs and questions whenever a run is evaluated.

    Attributes:
      packs: under the run's mixture of policies.
      questions: all under `policy`.
      policy: of the questions.
    """

    packs: list[Pack]
    questions: list[Question]
    policy: str


def open_held_out(
    run: Run,
    spec: ProcessorSpec,
    tokenizer: Tokenizer,
    *,
    max_context: int,
    log: Callable[[str], None] = lambda line: None,
) -> HeldOut:
    """Reads held-out packs and questions; they do not depend on the seed of the run.

    Args:
      run: with `evaluate`.
      spec, tokenizer: of the model.
      max_context: tokens of a question and its answer together; longer ones are not asked.
      log: takes a line.

    Raises:
      ConfigError: a policy that the model cannot take, or nothing to ask.
    """
    evaluate = run.evaluate
    assert evaluate is not None
    policy = evaluate.policy or max(run.policies, key=run.policies.__getitem__)
    check_policy(parse_policy(policy), spec)
    held = dataclasses.replace(run, data=_parts(run, evaluate), evaluate=None, seed=0)
    kept = "all" if evaluate.data else "held_out"
    packs: list[Pack] = []
    if evaluate.num_packs:
        sources = open_sources(held, spec, tokenizer, kept=kept, seed="held-out", log=log)
        epoch = planner(held, sources, spec, checked_ladder(run.ladder))(0)
        packs = [epoch[place].pack for place in range(min(evaluate.num_packs, len(epoch)))]
    asked = dataclasses.replace(held, policies={policy: 1.0})
    sources = open_sources(asked, spec, tokenizer, kept=kept, seed="held-out questions")
    fits = _Fits(run, spec, tokenizer, policy, max_context - evaluate.max_new_tokens)
    found = _in_turn([_questions(source, policy) for source in sources])
    questions = list(itertools.islice(filter(fits, found), evaluate.num_questions))
    if evaluate.num_questions and not questions:
        raise ConfigError(
            f"run: evaluate: nothing to ask under {policy}: no held-out example has a question "
            "that fits the ladder. Set evaluate.num_questions=0, or hold out more rows."
        )
    return HeldOut(packs, questions, policy)


def _parts(run: Run, evaluate: Evaluate) -> tuple:
    """The data sets to look at, none larger than needed."""
    parts = []
    for part in evaluate.data or run.data:
        if isinstance(part, Documents):
            need = max(EXAMPLES_PER_PACK * evaluate.num_packs, 2 * evaluate.num_questions)
            parts.append(dataclasses.replace(part, examples=min(part.examples, need)))
        elif evaluate.data or part.held_out:
            parts.append(dataclasses.replace(part, weight=1.0))
    return tuple(parts)


def _questions(source: DocumentExamples | RowExamples, policy: str) -> Iterator[Question]:
    """The first question of each example."""
    asked = _about_documents if isinstance(source, DocumentExamples) else _about_rows
    return asked(source, policy)  # pyright: ignore[reportArgumentType]


def _about_documents(source: DocumentExamples, policy: str) -> Iterator[Question]:
    views_of = parse_policy(policy)
    for number in range(source.data.examples):
        drawn = source.conversation(0, number)
        sizes = [document.size for document in drawn.documents]
        if tuple(views_of(sizes, "", source.spec)) != drawn.views:
            continue  # nothing of it is legible under this policy
        types = {q.text: q.type for document in drawn.documents for q in document.questions}
        if types[_text(drawn.messages[0])] == "point":
            continue
        images = [document.image for document in drawn.documents]
        question = _question(f"document {number}", drawn.messages, images, policy)
        if question is not None:
            yield question


def _about_rows(source: RowExamples, policy: str) -> Iterator[Question]:
    for i in source.taken.tolist():
        try:
            row, messages = source.rows.row(i), source.rows.messages(i)
            question = _question(row.id, messages, source.rows.images(i), policy)
        except (BadRowError, Fault):
            continue
        if question is not None:
            yield question


def _question(
    name: str, messages: Sequence[Message], images: Sequence, policy: str
) -> Question | None:
    """The first turn; None where its pictures do not open it, it has no text or no answer."""
    history = [("system", _text(m)) for m in messages[:1] if m.role == "system"]
    user, answer = messages[len(history)], messages[len(history) + 1]
    pictures = tuple(range(len(user.items)))
    if user.parts != (*pictures, _text(user)) or not _text(user).strip():
        return None
    if answer.role != "assistant":
        return None
    request = Request(
        id=name,
        question=_text(user),
        images=images[: len(pictures)],
        policy=policy,
        history=history,
    )
    return Question(request, _text(answer).strip())


def _text(message: Message) -> str:
    return "".join(part for part in message.parts if isinstance(part, str))


def _in_turn(sources: Sequence[Iterator[Question]]) -> Iterator[Question]:
    for questions in itertools.zip_longest(*sources):
        yield from (question for question in questions if question is not None)


class _Fits:
    """Whether a question can be answered in the packs of a run."""

    def __init__(
        self,
        run: Run,
        spec: ProcessorSpec,
        tokenizer: Tokenizer,
        policy: str,
        max_tokens: int,
    ):
        self.rung, self.max_tokens = checked_ladder(run.ladder)[-1], max_tokens
        self.spec, self.tokenizer, self.policy = spec, tokenizer, parse_policy(policy)

    def __call__(self, question: Question) -> bool:
        request = question.request
        sizes = [extent_of(item) for item in request.images]
        messages = prompt_messages(request.question, num_images=len(sizes), history=request.history)
        try:
            views = self.policy(sizes, request.question, self.spec)
            size = measure(views, messages, self.spec, self.tokenizer, generation_prompt=True)
            check_fits([size], self.rung)
        except MresError:
            return False
        return size.num_tokens <= self.max_tokens

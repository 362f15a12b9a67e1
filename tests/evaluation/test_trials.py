"""Tallies by hand, and questions that are fresh for every seed."""

import dataclasses
import itertools
import time

import jax
import numpy as np
import pytest

from mres_jax.data.documents import Question
from mres_jax.evaluation.calibration import lowest_logprob, measure_domain
from mres_jax.evaluation.trials import (
    NO_PICTURE,
    Trial,
    draw_questions,
    note_compiles,
    run_trials,
    tally,
    time_trials,
)
from mres_jax.geometry import Box, Size, View
from mres_jax.protocols import Answer
from mres_jax.testing import said


def make_question(name: str, kind: str = "rc", answer: str = "7") -> Question:
    return Question(
        id=name,
        text="What is the total?",
        answer=answer,
        type=kind,  # type: ignore[arg-type]
        scorer="exact",
        box=None,
        text_height=0,
        tags=("total",),
    )


def make_answer(text: str, tokens: int = 10, ratio: float = 1.0) -> Answer:
    return said(text, visual_tokens=tokens, retention_ratio=ratio)


class Echo:
    """Answers every request with its policy, and remembers what it was asked."""

    def __init__(self):
        self.batches, self.policies, self.pictures = [], set(), {}

    def answer(self, requests, *, n=1, sampling=None, seed=0):
        self.batches.append([request.id for request in requests])
        self.policies |= {request.policy for request in requests}
        self.pictures |= {request.id: len(request.images) for request in requests}
        return [[make_answer(request.policy or "")] for request in requests]


def test_a_tally_counts_each_type_apart_and_weighs_retention_by_tokens():
    trials = [
        Trial(make_question("a"), "native", make_answer("7", tokens=100, ratio=1.0)),
        Trial(make_question("b"), "native", make_answer("8", tokens=100, ratio=1.0)),
        Trial(make_question("c", "sc"), "native", make_answer("7", tokens=400, ratio=1.0)),
        Trial(make_question("a"), "scale:0.5", make_answer("7", tokens=30, ratio=0.3)),
        Trial(make_question("c", "sc"), "scale:0.5", make_answer("", tokens=80, ratio=0.2)),
    ]
    native, half = tally(trials)
    assert (native.policy, native.num_questions) == ("native", 3)
    assert native.accuracy["rc"].mean == 0.5
    assert native.accuracy["sc"].mean == 1.0
    assert native.visual_tokens == 200
    assert (half.accuracy["rc"].mean, half.accuracy["sc"].mean) == (1.0, 0.0)
    assert half.retention_ratio == pytest.approx(110 / 500)  # not the mean of 0.3 and 0.2


@pytest.mark.parametrize(
    ("scorer", "answer", "given", "right"),
    [
        ("exact", "invoice", "invoices", False),
        ("anls", "invoice", "invoices", True),
        ("anls", "invoice", "table", False),
        ("point", "[100, 200, 300, 400]", "(200, 300)", True),
        ("point", "[100, 200, 300, 400]", "(40, 30)", False),  # pixels of the picture
        ("box", "[100, 200, 300, 400]", "[105, 195, 300, 400]", True),
        ("box", "[100, 200, 300, 400]", "(200, 300)", False),
    ],
)
def test_an_answer_is_judged_by_the_scorer_of_its_question(scorer, answer, given, right):
    question = dataclasses.replace(
        make_question("a", answer=answer), scorer=scorer, box=Box(20, 20, 40, 60)
    )
    view = View(item=0, crop=Box(0, 0, 100, 200), size=Size(28, 56))
    trial = Trial(question, "native", dataclasses.replace(make_answer(given), views=(view,)))
    assert trial.is_right == right


def test_every_question_meets_every_policy_once():
    echo, image = Echo(), np.zeros((8, 8, 3), np.uint8)
    questions = [(image, make_question(str(i))) for i in range(5)]
    done = []
    trials = run_trials(echo, questions, ["native", "scale:0.5"], batch=2, report=done.append)
    asked = [(trial.question.id, trial.policy) for trial in trials]
    assert sorted(asked) == sorted(itertools.product("01234", ["native", "scale:0.5"]))
    assert all(trial.answer.text == trial.policy for trial in trials)
    assert [len(batch) for batch in echo.batches] == [4, 4, 2]
    assert done[-1] == 10


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_ids_of_requests_are_their_own_and_do_not_depend_on_the_batch(batch):
    echo = Echo()
    drawn = [(document.image, question) for document, question in draw_questions(0, 12)]
    run_trials(echo, drawn, ["native", "scale:0.5"], batch=batch)
    ids = [name for batch in echo.batches for name in batch]
    expected = {f"{q.id}/{policy}" for _, q in drawn for policy in ("native", "scale:0.5")}
    assert len(ids) == len(expected) == 24
    assert set(ids) == expected


def test_a_question_without_its_picture_goes_to_the_same_answerer():
    echo, image = Echo(), np.zeros((8, 8, 3), np.uint8)
    trials = run_trials(echo, [(image, make_question("a"))], ["native", NO_PICTURE])
    assert [trial.policy for trial in trials] == ["native", NO_PICTURE]
    assert echo.pictures == {"a/native": 1, f"a/{NO_PICTURE}": 0}
    assert echo.policies == {"native", None}
    without = dataclasses.replace(trials[1].answer.cost, visual_tokens=0, retention_ratio=1.0)
    trial = trials[1]._replace(answer=dataclasses.replace(trials[1].answer, cost=without))
    assert tally([trial])[0].retention_ratio == 0.0


class Compiling(Echo):
    """Compiles something at the calls of these numbers."""

    def __init__(self, *calls: int):
        super().__init__()
        self.calls = calls

    def answer(self, requests, *, n=1, sampling=None, seed=0):
        if len(self.batches) in self.calls:
            jax.jit(lambda x: x + len(self.batches))(np.zeros(3, np.float32))
            time.sleep(0.2)
        return super().answer(requests)


def test_policies_take_turns_and_compiling_is_not_timed():
    questions = [(np.zeros((8, 8, 3), np.uint8), make_question(str(i))) for i in range(4)]
    echo = Compiling(0, 1, 3)  # native at first, scale both times
    trials, ms = time_trials(echo, questions, ["native", "scale:0.5"], batch=2)
    asked = [ids[0].split("/")[1] for ids in echo.batches]
    assert asked == ["native", "scale:0.5", "native", "scale:0.5", "scale:0.5"]  # once more
    assert len(trials) == 8
    assert max(ms.values()) < 100  # a batch that compiled takes 100 ms per question and more


def test_compiles_are_seen_and_their_absence_is_too():
    double = jax.jit(lambda x: 2 * x)
    found = []
    for _ in range(2):
        with note_compiles() as compiles:
            double(np.zeros(5, np.float32))
        found.append(bool(compiles))
    assert found == [True, False]


def test_the_height_of_text_is_measured_in_what_the_model_saw():
    question = dataclasses.replace(make_question("a"), text_height=12)
    whole = View(item=0, crop=Box(0, 0, 100, 200), size=Size(50, 300))
    seen = dataclasses.replace(make_answer("7"), views=(whole,))
    assert Trial(question, "native", seen).text_height == 6.0
    assert Trial(question, NO_PICTURE, make_answer("7")).text_height == 0.0
    assert Trial(make_question("b"), "native", seen).text_height == 0.0


def test_fresh_questions_alternate_types_and_follow_the_seed():
    def texts(seed):
        drawn = list(draw_questions(seed, 12))
        return [(q.text, q.answer) for _, q in drawn], [q.type for _, q in drawn]

    first, types = texts(1)
    assert len(first) == 12
    assert {"rc", "sc"} == set(types)
    assert texts(1)[0] == first
    assert texts(2)[0] != first


def test_one_in_a_hundred_inside_the_domain_is_below_the_limit():
    answers = [dataclasses.replace(make_answer("7"), logprobs=(-i / 50,)) for i in range(200)]
    trials = [Trial(make_question("a"), "native", answer) for answer in answers]
    limit = lowest_logprob(trials)
    assert sum(answer.logprobs[0] < limit for answer in answers) == 2


def test_a_domain_is_measured_at_native_resolution_on_fresh_documents():
    echo = Echo()
    domain = measure_domain(echo, name="tiny", num_questions=3)
    assert (domain.name, domain.min_logprob) == ("tiny", 0.0)
    assert sum(map(len, echo.batches)) == 3
    assert echo.policies == {"native"}

"""Rules of public benchmarks, on pairs judged by hand.

They were also run beside lmms-eval's own functions, see docs/guides/harnesses.md.
"""

import pytest

from mres_jax.data.rows import QuestionRow
from mres_jax.evaluation.arms.metrics import METRICS
from mres_jax.evaluation.benchmarks import (
    contains_answer,
    contains_formula,
    relaxed_match,
    vqa_accuracy,
)
from mres_jax.evaluation.benchmarks.vqa_words import normalize_vqa


@pytest.mark.parametrize(
    ("given", "right", "score"),
    [
        ("100", "100", 1.0),
        ("105", "100", 1.0),  # exactly 5 %
        ("94.9", "100", 0.0),
        ("-95", "-100", 1.0),
        ("95", "-100", 0.0),
        ("41%", "40%", 1.0),
        ("0.4", "40%", 1.0),
        ("40", "40%", 0.0),
        ("0", "0", 1.0),  # 5 % of 0 is nothing: compared as texts
        ("0.0", "0", 0.0),
        ("1,000", "1000", 0.0),  # a comma is no number here
        ("1,000", "1,000", 1.0),
        ("Green", "green", 1.0),
        ("green ", "green", 0.0),
        ("nan", "100", 0.0),
        ("", "100", 0.0),
    ],
)
def test_relaxed_accuracy_lets_numbers_be_five_percent_off(given, right, score):
    assert relaxed_match(given, right) == score


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The two dogs", "2 dogs"),
        ("an apple, a pear", "apple pear"),
        ("None", "0"),
        ("zero", "0"),
        ("ten", "10"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),  # two apostrophes missing are not known
        ("couldn'tve couldnt've", "couldn't've couldn't've"),
        ("somebody'd", "somebodyd"),  # so in the challenge's list
        ("7:30 p.m.", "7:30 pm"),
        ("3.5 kg.", "3.5 kg"),
        ("1,000", "1000"),
        ("red/blue", "red blue"),
        ("red/ blue/green", "red bluegreen"),  # at the edge of one word: it goes everywhere
        ("it's", "it 's"),
        ("new\nyork\tcity?", "new york city"),
        ("$5", "$5"),
    ],
)
def test_answers_of_people_are_compared_as_the_challenge_does(text, same):
    assert normalize_vqa(text) == same


@pytest.mark.parametrize(
    ("times", "score"),
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],
)
def test_vqa_accuracy_is_a_third_for_each_of_the_others_who_agree(times, score):
    answers = ["Nokia."] * times + ["htc"] * (10 - times)
    assert vqa_accuracy("the nokia", answers) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "given", "answers", "score"),
    [
        (contains_answer, "The sign says STOP.", ["stop"], 1.0),
        (contains_answer, "sto p", ["stop"], 0.0),
        (contains_answer, "\uff21\uff22\u3000\uff11\uff12", ["ab 12"], 1.0),
        (contains_answer, "one\ntwo", ["one two"], 1.0),
        (contains_answer, "two", ["one", "two"], 1.0),
        (contains_answer, "", ["two"], 0.0),
        (contains_formula, "x ^ { 2 }\n+ 1", ["x^{2} + 1"], 1.0),
        (contains_formula, "X^{2}", ["x^{2}"], 0.0),
    ],
)
def test_ocrbench_looks_for_a_right_answer_in_what_is_said(rule, given, answers, score):
    assert rule(given, answers) == score


def test_a_question_that_few_people_answered_has_no_vqa_accuracy():
    row = QuestionRow(id="a", pictures=(), question="q", answers=("yes",) * 3)
    assert not METRICS["vqa"].reads("yes", row)

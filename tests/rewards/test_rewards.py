"""Rewards of answers by kind: by hand, in the paper's rules and the released code's."""

import pytest
from hypothesis import given, strategies as st

from mres_jax.errors import ConfigError, MresError
from mres_jax.rewards import (
    RewardRules,
    Span,
    answer_format,
    best_span_iou,
    choice_f1,
    choice_match,
    final_answer,
    grounding,
    number_closeness,
    number_match,
    parse_number,
    parse_span,
    reward,
    rouge_l,
    rouge_mean,
    rouge_n,
    span_iou,
    word_accuracy,
)
from mres_jax.scoring import choice_letters

OPTIONS = ("A. a cat", "B. a dog", "C. both of them")
GOOD = r"<think>It barks.</think> <answer>\boxed{B}</answer>"


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("B", "B"),
        ("(b)", "B"),
        (" B. a dog", "B"),
        ("B a dog", "B"),
        ("The answer is (C).", "C"),
        ("answer: a", "A"),
        ("First I said the answer is A, but the answer is B.", "B"),
        ("A, C", "AC"),
        ("a and b", "AB"),
        ("a dog", "B"),
        ("Both of them.", "C"),
        ("a horse", ""),
        ("", ""),
        ("D", ""),  # there is no such option
        ("A Doberman, so B", ""),  # two letters that stand alone
        ("It is B or C", ""),
        ("**B**", "B"),
        ("The answer is a dog", "B"),  # an article is no letter
        ("Option: a dog, since it barks.", "B"),
        ("The answer is a Doberman", ""),
        ("A dog is shown.", ""),
        ("The answer is A because it meows", "A"),
        ("A is right", "A"),
        ("Of the options B is right", "B"),  # not the s of options
        ("The answer is A and C.", "AC"),
        ("The answer is A or B", ""),
        ("The best choice I made", ""),
    ],
)
def test_letters_of_an_answer(text, letters):
    assert choice_letters(text, OPTIONS) == frozenset(letters)


@pytest.mark.parametrize(
    ("options", "text", "letters"),
    [
        (("B", "C", "A", "D"), "A", "A"),  # letters are those of options before they are texts
        (("B", "C", "A", "D"), "The answer is A.", "A"),
        (("B", "C", "A", "D"), "A. B", "A"),
        (("A and B", "B and C", "none"), "A and B", "A"),
        (("E. coli", "Vibrio"), "E. coli", "A"),  # no option has its own letter in front
        (("A. Lincoln", "G. Washington", "B. Obama"), "B. Obama", "C"),
        (("A. Lincoln", "G. Washington", "B. Obama"), "The answer is B. Obama", "C"),
        (("3", "4"), "The answer is 4", "B"),
        (("3", "4"), "The answer is 4.5", ""),
    ],
)
def test_texts_of_options_that_look_like_letters(options, text, letters):
    assert choice_letters(text, options) == frozenset(letters)


def test_choices_by_letter_and_by_f1():
    assert choice_match("B", "B", OPTIONS) == 1.0
    assert choice_match("A, B", "B", OPTIONS) == 0.0
    assert choice_f1("A, B", "B", OPTIONS) == pytest.approx(2 / 3)
    assert choice_match("", "", OPTIONS) == 0.0  # a right answer that names nothing helps nobody


@pytest.mark.parametrize(
    ("given_", "answer", "right"),
    [
        ("3.14", "3.1416", 1.0),  # 0.0016 apart
        ("314", "316", 1.0),  # 0.63 %
        ("314", "320", 0.0),  # 1.9 %
        ("about 1,250 of them", "1250", 1.0),
        ("0.009", "0", 1.0),
        ("50%", "0.5", 1.0),
        ("none", "0", 0.0),
    ],
)
def test_numbers_within_a_hundredth(given_, answer, right):
    assert number_match(given_, answer) == right


def test_numbers_are_the_last_of_a_text():
    assert parse_number("2 and 3 make 5.") == 5
    assert parse_number("-1.5e3 m") == -1_500
    assert parse_number("5-10 or 2019-2020") == 2_020  # a dash between numbers is no sign
    assert parse_number("5, -10") == -10
    assert number_closeness("80", "100") == pytest.approx(0.8)
    assert number_closeness("300", "100") == 0.0
    assert number_closeness("0", "0") == 1.0


def test_rouge_by_hand():
    given_, answer = "the cat sat", "the cat has sat"
    assert rouge_n(given_, answer, 1) == pytest.approx(6 / 7)
    assert rouge_n(given_, answer, 2) == pytest.approx(2 / 5)  # the cat: 1 of 2 and of 3
    assert rouge_l(given_, answer) == pytest.approx(6 / 7)
    assert rouge_mean(given_, answer) == pytest.approx((6 / 7 + 2 / 5 + 6 / 7) / 3)
    assert rouge_l("sat cat the", answer) == pytest.approx(2 / 7)
    assert rouge_l("", answer) == 0.0
    assert word_accuracy("a b x", "a b c d") == pytest.approx(0.5)
    assert word_accuracy("a b c d e f g h i", "a") == 0.0


@given(a=st.text(max_size=30), b=st.text(max_size=30))
def test_overlaps_are_shares_and_a_text_is_like_itself(a, b):
    for score in (rouge_l, rouge_mean, word_accuracy):
        assert 0 <= score(a, b) <= 1
    assert rouge_l(a, b) == rouge_l(b, a)
    assert rouge_l(a, a) in (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("[12.5, 30.0]", (12.5, 30.0)),
        ("from 3s to 10s", (3.0, 10.0)),
        ("1:05 - 1:20", (65.0, 80.0)),
        ("01:00:05 to 01:00:10", (3605.0, 3610.0)),
        ("12.0 - 8.0", None),
        ("at 4 s", None),
        ("never", None),
    ],
)
def test_spans_of_an_answer(text, span):
    assert parse_span(text) == span


SPANS = st.tuples(st.floats(0, 50), st.floats(0.1, 50)).map(lambda x: Span(x[0], x[0] + x[1]))


@given(a=SPANS, b=SPANS)
def test_span_overlap_is_symmetric_and_one_with_itself(a, b):
    assert span_iou(a, b) == span_iou(b, a)
    assert 0 <= span_iou(a, b) <= 1
    assert span_iou(a, a) == 1.0


def test_grounding_by_hand():
    spans = [Span(0, 10), Span(50, 60)]
    assert best_span_iou("[52, 60]", spans) == pytest.approx(0.8)
    assert best_span_iou("somewhere", spans) == 0.0
    out = grounding([0.8, 0.7, 0.5, 0.0])
    assert out.recall == {0.3: 0.75, 0.5: 0.75, 0.7: 0.5}
    assert out.mean_iou == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (GOOD, 1.0),
        ("B", 0.0),
        (r"<answer>\boxed{B}</answer>", 0.0),
        ("<think>x</think><answer>B</answer>", 0.0),
        (GOOD + " more", 0.0),
        (r"<think>x</think><think>y</think><answer>\boxed{B}</answer>", 0.0),
        (r"<think>x<answer>\boxed{B}</answer>", -1.0),
    ],
)
def test_the_form_of_an_answer(text, form):
    assert answer_format(text, unbalanced=-1.0) == form
    assert answer_format(text) == max(form, 0.0)


def test_what_an_answer_comes_down_to():
    assert final_answer(GOOD) == "B"
    assert final_answer("<think>A?</think> It is B.") == "It is B."
    assert final_answer(r"<answer>A</answer><answer>\boxed{\frac{1}{2}}</answer>") == r"\frac{1}{2}"
    assert final_answer("plain") == "plain"


@pytest.mark.parametrize(
    ("text", "answer", "kind"),
    [
        ("<think>It could be that the answer is B", "B", "choice"),
        ("<think>There are 3 dogs, then 7", "7", "number"),
        (r"<think>A?</think><THINK>no, \boxed{B}", "B", "choice"),
    ],
)
def test_a_thought_that_was_cut_off_earns_nothing(text, answer, kind):
    assert reward(text, answer, kind).accuracy == 0.0
    assert reward(f"{text}</think> {answer}", answer, kind).accuracy == 1.0
    assert reward(f"{text} <answer>{answer}</answer>", answer, kind).accuracy == 1.0


@pytest.mark.parametrize(
    ("text", "answer", "kind", "accuracy"),
    [
        (GOOD, "B", "choice", 1.0),
        ("3.14", "3.1416", "number", 1.0),
        ("Invoice 7.", "invoice 7", "text", 1.0),
        ("invoise 7", "invoice 7", "anls", 1 - 1 / 9),
        ("a b", "a b c d", "ocr", 0.5),
        ("90", "100", "regression", 0.9),
        ("the cat sat", "the cat has sat", "free_text", 6 / 7),
        ("[0, 5]", "[0, 10]", "grounding", 0.5),
        ("[48, 60]", "[0, 10]; [50, 60]", "grounding", 10 / 12),
        ("B <> [0, 5]", "B <> [0, 10]", "grounded", 1.5),
        ("A <> [0, 10]", "B <> [0, 10]", "grounded", 1.0),
        ("nothing of the kind", "B <> [0, 10]", "grounded", 0.0),
    ],
)
def test_accuracy_by_kind(text, answer, kind, accuracy):
    assert reward(text, answer, kind, options=OPTIONS).accuracy == pytest.approx(accuracy)


def test_the_total_adds_a_fifth_of_the_form():
    assert reward(GOOD, "B", "choice").total == pytest.approx(1.2)
    assert reward("B", "B", "choice").total == pytest.approx(1.0)
    broken = r"<think>x<answer>\boxed{B}</answer>"
    assert reward(broken, "B", "choice", rules=RewardRules.code()).total == pytest.approx(0.8)


def test_a_right_letter_over_no_second_counts_in_the_released_code_only():
    text, answer = "B <> [20, 30]", "B <> [0, 10]"
    assert not reward(text, answer, "grounded").right
    assert reward(text, answer, "grounded", rules=RewardRules.code()).right


def test_the_released_code_does_not_know_kinds_that_are_spelled_with_marks():
    plain, code = RewardRules(), RewardRules.code()
    for kind in ("free_text", "free-text"):
        assert reward("the cat", "the cat sat", kind, rules=plain).accuracy == pytest.approx(0.8)
        assert reward("the cat", "the cat sat", kind, rules=code).accuracy == 0.0


def test_what_cannot_be_scored_is_said():
    with pytest.raises(MresError, match=r"no kind of question 'choise' \(did you mean choice\?\)"):
        reward("B", "B", "choise")
    with pytest.raises(MresError, match="names no span of time"):
        reward("[0, 1]", "soon", "grounding")
    with pytest.raises(ConfigError, match="choice='letters'; have letter, f1"):
        RewardRules(choice="letters")

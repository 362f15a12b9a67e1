"""Scores against values computed by hand, and the laws that they keep."""

import math

import pytest
from hypothesis import given, settings, strategies as st

from mres_jax.geometry import Box
from mres_jax.scoring import (
    anls,
    box_iou,
    edit_distance,
    exact_match,
    normalize_answer,
    point_in_box,
    unit_exact_match,
    wilson_interval,
)

WORDS = st.text(alphabet="abc ", max_size=8)


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("Yellow", "yellow", 1.0),
        (" 4711.\n", "4711", 1.0),
        ("4711", "04711", 0.0),
        ("1,000", "1000", 0.0),  # nothing inside an answer is touched
        ("\uff14\uff17", "47", 1.0),  # full-width digits
        ("\u201cpaid\u201d", "paid", 1.0),
        ("", "0", 0.0),
    ],
)
def test_exact_match_forgives_case_blanks_and_a_final_stop_only(prediction, answer, expected):
    assert exact_match(prediction, [answer]) == expected


def test_exact_match_takes_any_of_the_answers_and_none_of_none():
    assert exact_match("b", ["a", "B"]) == 1.0
    assert exact_match("b", []) == 0.0


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("12.50 USD", "$12.5", 1.0),
        ("1,200 kg", "1200 kilograms", 1.0),
        ("61.1%", "61.1 percent", 1.0),
        ("5 m", "5 minutes", 0.0),
        ("1 km", "1000 m", 0.0),  # spellings only, no conversion
        ("12,50 €", "1250 €", 0.0),  # a decimal comma is no thousands comma
        ("-3", "3", 0.0),
        ("flight 124", "flight 124", 1.0),
        ("4-6 kg", "4-6 kg", 1.0),  # no single quantity: compared as text
        (".", ".", 1.0),
    ],
)
def test_quantities_are_compared_as_number_and_unit(prediction, answer, expected):
    assert unit_exact_match(prediction, [answer]) == expected


@given(WORDS, WORDS, WORDS)
@settings(max_examples=200, deadline=None)
def test_edit_distance_is_a_metric(a, b, c):
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, b) == edit_distance(b, a)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [("abcd", "abcd", 1.0), ("abcx", "abcd", 0.75), ("abxx", "abcd", 0.5), ("axxx", "abcd", 0.0)],
)
def test_anls_is_the_similarity_and_zero_below_a_half(prediction, answer, expected):
    assert anls(prediction, ["zzzzzzzz", answer]) == expected


def test_anls_collapses_blanks_and_case():
    assert anls("12  Long\nLane", ["12 long lane"]) == 1.0


def test_boxes_overlap_by_hand():
    assert box_iou(Box(0, 0, 4, 4), Box(0, 0, 4, 4)) == 1.0
    assert box_iou(Box(0, 0, 4, 4), Box(2, 2, 6, 6)) == pytest.approx(4 / 28)
    assert box_iou(Box(0, 0, 4, 4), Box(4, 0, 8, 4)) == 0.0  # half-open: edges do not meet
    assert box_iou(Box(0, 0, 0, 0), Box(0, 0, 0, 0)) == 0.0


def test_a_point_on_the_far_edge_is_outside():
    assert point_in_box(0, 0, Box(0, 0, 4, 4)) == 1.0
    assert point_in_box(4, 0, Box(0, 0, 4, 4)) == 0.0


def test_wilson_interval_matches_published_values():
    # 81 of 263: Newcombe 1998, table I, method 3
    mean, low, high = wilson_interval(81, 263)
    assert (round(mean, 4), round(low, 4), round(high, 4)) == (0.308, 0.2553, 0.3662)
    assert wilson_interval(0, 20)[:2] == (0.0, 0.0)
    assert round(wilson_interval(0, 20).high, 4) == 0.1611


def test_wilson_interval_of_nothing_says_nothing_and_nonsense_is_refused():
    mean, low, high = wilson_interval(0, 0)
    assert math.isnan(mean)
    assert (low, high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 successes of 2 trials"):
        wilson_interval(3, 2)


@given(st.text(alphabet="aB1. '\u201c", max_size=8))
@settings(max_examples=200, deadline=None)
def test_normalisation_is_idempotent(text):
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)

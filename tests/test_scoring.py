"""Scores against values computed by hand, and the laws that they keep."""

import dataclasses
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mres_jax.coordinates import from_picture, to_picture
from mres_jax.geometry import Box, Size, View
from mres_jax.scoring import (
    anls,
    box_iou,
    box_match,
    edit_distance,
    exact_match,
    normalize_answer,
    paired_interval,
    point_in_box,
    point_match,
    relative_box,
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


def plain_distance(a: str, b: str) -> int:
    """The table of distances, row by row."""
    row = list(range(len(b) + 1))
    for i, char in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char != other))
    return row[-1]


@given(st.text(alphabet="ab\u5317\U0001f600", max_size=90), st.text(max_size=90), st.data())
@settings(max_examples=200, deadline=None)
def test_edits_are_counted_as_in_the_plain_table_of_distances(a, other, data):
    """Texts of one alphabet, of another, and one with a few edits; up to more than 64 rows."""
    edited = list(a)
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(edited)))
        edited[at : at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from(["", "a", "bb"]))
    for b in (other, "".join(edited), a[::-1]):
        assert edit_distance(a, b) == edit_distance(b, a) == plain_distance(a, b)


def test_the_longest_answers_that_are_taken_are_compared_in_no_time():
    """20,000 characters each, where the plain table took minutes."""
    start = time.process_time()
    half = "ab" * 5_000
    assert edit_distance(half + half, half + "cd" * 5_000) == 10_000
    assert anls(half + half, [half + "cd" * 5_000]) == 0.5
    assert time.process_time() - start < 20  # s; about 1 on an idle machine


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


def whole(size: Size, seen: Size, canvas: Size | None = None) -> View:
    return View(item=0, crop=Box(0, 0, *size), size=seen, canvas=canvas)


@st.composite
def boxes_in_pictures(draw):
    height, width = (draw(st.integers(2, 1000)) for _ in range(2))
    (top, bottom), (left, right) = (
        sorted(draw(st.lists(st.integers(0, side), min_size=2, max_size=2, unique=True)))
        for side in (height, width)
    )
    return Box(top, left, bottom, right), Size(height, width)


@given(boxes_in_pictures(), st.integers(1, 2000), st.integers(1, 2000))
@settings(max_examples=300, deadline=None)
def test_a_box_in_thousandths_comes_back_to_the_pixel_whatever_size_was_seen(drawn, high, wide):
    box, size = drawn
    text = str(list(relative_box(box, size)))
    view = whole(size, Size(high, wide))
    assert box_match(text, box, view=view, coord_frame="relative_1000", threshold=1.0) == 1.0


@given(st.floats(0, 80), st.floats(0, 60))
def test_both_frames_name_the_same_place_of_a_padded_crop(x, y):
    canvas = Size(60, 80)
    view = View(item=0, crop=Box(100, 200, 120, 240), size=Size(40, 80), canvas=canvas)
    pixels = to_picture(x, y, view=view, coord_frame="resized_px")
    thousandths = to_picture(x * 12.5, y * 1000 / 60, view=view, coord_frame="relative_1000")
    assert pixels == pytest.approx((100 + (y - 10) / 2, 200 + x / 2))  # 10 rows of grey above
    assert thousandths == pytest.approx(pixels)


@given(st.integers(0, 90), st.integers(0, 40), st.sampled_from([None, Size(64, 97)]))
def test_a_window_shows_the_places_of_the_whole_that_it_was_cut_from(left, top, canvas):
    uncut = View(item=0, crop=Box(5, 7, 25, 47), size=Size(41, 96), canvas=canvas)
    window = dataclasses.replace(uncut, window=Box(top, left, top + 13, left + 17))
    y, x = to_picture(3.0, 4.0, view=window, coord_frame="resized_px")
    assert (y, x) == to_picture(left + 3.0, top + 4.0, view=uncut, coord_frame="resized_px")
    assert from_picture(y, x, view=window, coord_frame="resized_px") == pytest.approx((3, 4))


def test_an_unknown_frame_is_refused():
    with pytest.raises(ValueError, match="no coordinate frame 'inches'"):
        to_picture(1, 1, view=whole(Size(8, 8), Size(8, 8)), coord_frame="inches")


@pytest.mark.parametrize(
    ("prediction", "point", "box"),
    [
        ("[100, 200, 300, 400]", 1.0, 1.0),  # left, top, right, bottom
        ("(100,200),(300,400)", 1.0, 1.0),
        ("[200, 100, 400, 300]", 0.0, 0.0),  # top and left changed places
        ("(200, 300)", 1.0, 0.0),
        ("(300, 200)", 0.0, 0.0),
        ("It is at 199.5, 300.", 1.0, 0.0),
        ("[100, 200, 300, 320]", 1.0, 1.0),  # 0.6 of the box
        ("[100, 200, 300, 290]", 0.0, 0.0),  # 0.45 of it, and its centre outside the middle
        ("[300, 400, 100, 200]", 1.0, 0.0),  # turned round: the centre is right, the box is none
        ("[100, 200, 300]", 0.0, 0.0),
        ("the total", 0.0, 0.0),
        ("", 0.0, 0.0),
        ("9" * 400, 0.0, 0.0),
        ('[{"bbox_2d": [100, 200, 300, 400], "label": "icon 2"}]', 1.0, 1.0),
        ('{"point_2d": [200, 300]}', 1.0, 0.0),
        ("Item 3: (200, 300)", 1.0, 0.0),
        ("<|box_start|>(100,200),(300,400)<|box_end|> of 7", 1.0, 1.0),
        ("(200, 300) or (900, 900)", 0.0, 0.0),  # which of the two?
    ],
)
def test_places_are_read_x_first_and_compared_in_pixels_of_the_picture(prediction, point, box):
    view, frame = whole(Size(100, 200), Size(56, 112)), "relative_1000"
    middle = Box(25, 30, 35, 50)  # around (y, x) = (30, 40), the centre of the box
    assert point_match(prediction, middle, view=view, coord_frame=frame) == point
    named = Box(20, 20, 40, 60)
    assert box_match(prediction, named, view=view, coord_frame=frame) == box


def test_pairs_with_no_difference_are_centred_on_zero_and_shrink_with_their_number():
    few, many = paired_interval(5, 5, 40), paired_interval(50, 50, 400)
    assert few.mean == many.mean == 0.0
    assert few.low == -few.high
    assert few.low < many.low < 0


def test_pairs_are_antisymmetric_and_an_empty_set_says_nothing():
    one, other = paired_interval(30, 10, 100), paired_interval(10, 30, 100)
    assert one == pytest.approx((-other.mean, -other.high, -other.low))
    assert paired_interval(0, 0, 0)[1:] == (-1.0, 1.0)
    with pytest.raises(ValueError, match="60 and 50 of 100 pairs"):
        paired_interval(60, 50, 100)


def test_paired_intervals_hold_the_true_difference_as_often_as_they_say():
    """Two answerers of 0.8 and 0.5 with dependent answers; 95 % within the noise of 2,000 draws."""
    rng = np.random.default_rng(0)
    draws = rng.multinomial(70, (0.45, 0.35, 0.05, 0.15), size=2_000)  # both, first, second, none
    held = [
        i.low <= 0.3 <= i.high for i in (paired_interval(int(d[1]), int(d[2]), 70) for d in draws)
    ]
    assert 0.94 < np.mean(held) < 0.98  # Agresti and Min's is a little wider than it says


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [  # 1 - edits / longest, by hand
        ("12 Long Lane", ["12 Long Lane"], 1.0),
        ("12 long lane", ["12 Long Lane."], 12 / 13),
        ("12 Long Land", ["12 Long Lane"], 11 / 12),
        ("Long Lane 12", ["12 Long Lane"], 6 / 12),  # three go in front, three go behind
        ("12 Lane", ["12 Long Lane"], 7 / 12),
        ("Lane", ["12 Long Lane"], 0.0),  # 4 / 12
        ("12 Long Lane, Springfield", ["12 Long Lane"], 0.0),  # 12 / 25
        ("Springfield", ["12 Long Lane", "Springfeld"], 10 / 11),
        ("paid in full on Monday", ["paid in full Monday"], 19 / 22),
        ("he was late", ["she was late"], 11 / 12),
        ("abcdefghij", ["abcdefghij klmnopqrs"], 0.5),
        ("abcdefghi", ["abcdefghij klmnopqrs"], 0.0),  # 9 / 20
        ("\u5317\u4eac\u5e02\u6d77\u6dc0\u533a", ["\u5317\u4eac\u5e02\u671d\u9633\u533a"], 4 / 6),
        ("CAF\u00c9", ["caf\u00e9"], 1.0),
        ("cafe", ["caf\u00e9"], 3 / 4),
        ("a b", ["ab"], 2 / 3),
        ("", ["a"], 0.0),
        ("", [""], 1.0),
        ("  ", [""], 1.0),
        ("anything", [], 0.0),
    ],
)
def test_anls_by_hand(prediction, answers, expected):
    assert anls(prediction, answers) == pytest.approx(expected, abs=1e-12)


def test_a_higher_threshold_gives_less_credit_and_zero_gives_all():
    assert anls("12 Long Land", ["12 Long Lane"], threshold=0.95) == 0.0
    assert anls("Lane", ["12 Long Lane"], threshold=0.0) == pytest.approx(4 / 12)


def test_a_huge_prediction_is_told_by_its_length(monkeypatch):
    monkeypatch.setattr("mres_jax.scoring.edit_distance", lambda a, b: pytest.fail("edits counted"))
    assert anls("x" * 10**7, ["12 Long Lane"]) == 0.0  # they would take minutes

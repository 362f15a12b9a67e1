"""Boards and clips: names that a glance shows, values that it does not, and exact places."""

import itertools
import json

import numpy as np
import pytest

from mres_jax import scoring
from mres_jax.data import documents
from mres_jax.data.documents import boards, draw_clip, make_board_picture
from mres_jax.data.documents.labels import PLACES, place_labels
from mres_jax.data.documents.questions import place_in
from mres_jax.data.documents.render import paint
from mres_jax.errors import MresError
from mres_jax.geometry import Box, Size, View
from mres_jax.resolution.zoom import find_places

PICTURES = [
    make_board_picture(seed, kind=kind, size=size)
    for kind in documents.BOARD_KINDS
    for size in (*boards.SIZES, None)
    for seed in range(8)
]


def test_the_same_seed_gives_the_same_picture_and_another_seed_another_one():
    one, again, other = (make_board_picture(seed, kind="scene") for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.image, again.image)
    assert one.questions == again.questions != other.questions


def test_names_are_large_and_values_small_in_every_picture():
    for picture in PICTURES:
        for field in picture.fields:
            assert field.key_box is not None
            assert field.text_height <= boards.VALUE_HEIGHTS[1] < boards.NAME_HEIGHTS[0]
            assert field.key_box.size.height >= boards.NAME_HEIGHTS[0] - 2  # lower-case letters
            assert field.value_box.top >= field.key_box.bottom


def test_boards_lie_inside_their_picture_and_do_not_touch():
    for picture in PICTURES:
        inked = [box for field in picture.fields for box in (field.key_box, field.value_box)]
        for box in inked:
            assert box is not None
            assert 0 <= box.top < box.bottom <= picture.size.height
            assert 0 <= box.left < box.right <= picture.size.width
        for a, b in itertools.combinations(inked, 2):
            assert a is not None
            assert b is not None
            apart_down = a.bottom <= b.top or b.bottom <= a.top
            assert apart_down or a.right <= b.left or b.right <= a.left


def test_ink_is_nowhere_but_in_the_boxes_of_names_and_values():
    for picture in PICTURES[::7]:
        differs = (picture.image != paint(picture.plan, text=False)).any(axis=-1)
        for field in picture.fields:
            for box in (field.key_box, field.value_box):
                assert box is not None
                part = differs[box.top : box.bottom, box.left : box.right]
                assert part.any()
                part[:] = False
        assert not differs.any()


def test_bad_requests_for_boards_name_what_is_wrong():
    with pytest.raises(MresError, match="no kind 'street'; have desktop, scene"):
        make_board_picture(0, kind="street")
    with pytest.raises(MresError, match="no board finds room on 40 x 40 px"):
        make_board_picture(0, kind="scene", size=Size(40, 40))


VIEWS = [
    View(item=0, crop=Box(0, 0, 270, 480), size=Size(96, 160)),
    View(item=0, crop=Box(40, 100, 240, 420), size=Size(208, 320)),
    View(item=0, crop=Box(0, 0, 270, 480), size=Size(144, 256), canvas=Size(256, 256)),
]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scorer", ["point", "box"])
def test_a_place_answered_in_any_view_is_found_again_in_the_picture(view, scorer):
    """To half a thousandth of what the encoder sees, in pixels of the picture."""
    for box in (Box(60, 120, 70, 180), Box(200, 300, 209, 420)):
        text = place_in(view, box, scorer=scorer)
        found = find_places(text, view=view, coord_frame="relative_1000", picture=Size(270, 480))
        assert not found.problem
        (place,) = found.places
        allowed = [
            0.5e-3 * outer * crop / inner + 1e-9
            for outer, crop, inner in zip(view.encoded_size, view.crop.size, view.size, strict=True)
        ]
        wanted = ((box.top + box.bottom) / 2, (box.left + box.right) / 2)
        for got, want, most in zip(place.centre, wanted, allowed, strict=True):
            assert abs(got - want) <= most
        if scorer == "box":
            assert abs(place.left - box.left) <= allowed[1]
            assert abs(place.bottom - box.bottom) <= allowed[0]


def test_coarse_answers_name_the_middle_of_the_strip_that_holds_the_place():
    view = View(item=0, crop=Box(0, 0, 270, 480), size=Size(96, 160))
    for box in (Box(60, 120, 70, 180), Box(0, 0, 9, 12), Box(261, 470, 270, 480)):
        (exact,), (coarse,) = (
            json.loads(f"[{place_in(view, box, scorer='point', step=step)}]") for step in (1, 50)
        )
        for number, strip in zip(exact, coarse, strict=True):
            assert strip % 50 == 25
            assert abs(number - strip) <= 25


def test_place_labels_count_equal_strips_from_the_upper_left():
    labels = place_labels(VIEWS[0], patch_size=8)
    assert labels["across"].shape == labels["down"].shape == (12, 20)
    np.testing.assert_array_equal(labels["across"][5], np.arange(1, PLACES + 1))
    assert (np.diff(labels["down"], axis=0) > 0).all()
    assert labels["down"].min() == 1
    assert labels["down"].max() == PLACES


def test_only_the_telling_frames_of_a_clip_have_what_is_asked():
    for seed, num_frames in ((0, 8), (1, 8), (2, 16), (3, 32)):
        clip = draw_clip(seed, num_frames)
        assert len(clip.frames) == num_frames
        assert len(clip.telling) in (1, 2)
        assert np.ptp(clip.telling) == len(clip.telling) - 1
        asked = {question.tags[0] for question in clip.questions}
        assert asked
        for i, frame in enumerate(clip.frames):
            keys = {field.key for field in frame.fields}
            assert (keys >= asked) if i in clip.telling else not keys & asked
        for question in clip.questions:
            values = {f.key: f.value for f in clip.frames[clip.telling[0]].fields}
            assert values[question.tags[0]] == question.answer


def test_clips_have_frames_with_and_without_text_that_nobody_asks_for():
    others = [
        frame
        for seed in range(6)
        for clip in [draw_clip(seed, 8)]
        for i, frame in enumerate(clip.frames)
        if i not in clip.telling
    ]
    silent = sum(not frame.fields for frame in others) / len(others)
    assert 0.25 < silent < 0.75  # a half, of 40
    still = next(frame for frame in others if not frame.fields)
    assert still.image.shape == (128, 160, 3)
    assert not documents.patch_labels(still, patch_size=8)["char"].any()


def test_questions_and_places_are_plain_json():
    for picture in PICTURES:
        for question in picture.questions:
            if question.type == "point":
                assert len(json.loads(question.answer)) in (2, 4)
                view = View(item=0, crop=Box(0, 0, *picture.size), size=picture.size)
                match = scoring.point_match if question.scorer == "point" else scoring.box_match
                assert question.box is not None
                assert match(question.answer, question.box, view=view, coord_frame="relative_1000")

"""Clips in prompts and packs: tokens, places, rows of two frames, and pictures beside them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mres_jax.data.assemble import assemble, measure
from mres_jax.data.conversations import Message
from mres_jax.data.packing import pack
from mres_jax.data.positions import POSITION_RULES, ClipGrids, rotary_positions
from mres_jax.data.spec import VideoSpec
from mres_jax.data.types import Rung
from mres_jax.errors import PackingError, PromptError
from mres_jax.geometry import Box, Grid, Size, View
from mres_jax.testing import tiny_clip, tiny_spec, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
VIDEO = VideoSpec(
    token_id=TOKENIZER.token_id("<|video_pad|>"),
    min_pixels=64,
    max_pixels=64 * 64,
    tokens_per_second=2.0,
)
STILLS = tiny_spec(TOKENIZER)
SPEC = dataclasses.replace(
    STILLS,
    temporal_patch_size=2,
    accepts=frozenset({"image", "frame"}),
    video=VIDEO,
    position_rule="mrope_seconds",
    template=dataclasses.replace(
        STILLS.template, clip_open="<|vision_start|>", clip_close="<|vision_end|>"
    ),
)
BLOCKS = dataclasses.replace(
    SPEC,
    position_rule="mrope_blocks",
    template=dataclasses.replace(
        STILLS.template,
        frame_open="<{seconds:.1f} seconds><|vision_start|>",
        frame_close="<|vision_end|>",
    ),
)
IMAGE = np.arange(16 * 24 * 3, dtype=np.int64).reshape(16, 24, 3).astype(np.uint8)
RUNG = Rung(max_patches=256, max_tokens=256, max_views=16, max_examples=4)
PICTURE_VIEW = View(item=1, crop=Box(0, 0, 16, 24), size=Size(8, 16), group=1)
SIZES = st.lists(st.builds(Size, *[st.sampled_from([8, 16, 24])] * 2), min_size=1, max_size=4)


def clip_views_of(clip, sizes, *, item=0):
    """Views of pairs of frames, each of a size of its own."""
    return [
        View(
            item=item,
            crop=Box(0, 0, *clip.extent.size),
            size=size,
            time=(clip.times[a] + clip.times[b]) / 2,
            frames=(a, b),
            group=item,
        )
        for size, (a, b) in zip(sizes, clip.extent.groups(2), strict=True)
    ]


def make(sizes, *, spec=SPEC, picture=True, parts=(0, "what is", 1, "the total")):
    clip = tiny_clip(3, 16, 24, frames=2 * len(sizes))
    views = [*clip_views_of(clip, sizes), *([PICTURE_VIEW] if picture else [])]
    items = [clip, IMAGE][: 1 + picture]
    messages = [Message(role="user", parts=parts if picture else (0, "what"))]
    return clip, views, messages, assemble(items, views, messages, spec, TOKENIZER)


@pytest.mark.parametrize("spec", [SPEC, BLOCKS], ids=["one run", "blocks"])
@settings(max_examples=25)
@given(sizes=SIZES)
def test_every_view_of_a_clip_has_its_places_in_order_and_measures_the_same(spec, sizes):
    _, views, messages, example = make(sizes, spec=spec)
    tokens = [size.area // 64 for size in sizes]
    assert (example.tokens == VIDEO.token_id).sum() == sum(tokens)
    assert (example.tokens == spec.image_token_id).sum() == 2
    visual = example.slots >= 0
    np.testing.assert_array_equal(example.slots[visual], np.arange(sum(tokens) + 2))
    assert example.grids == (*(Grid(1, s.height // 4, s.width // 4) for s in sizes), (1, 2, 4))
    assert example.size == measure(views, messages, spec, TOKENIZER)
    assert example.positions.shape == (3, len(example.tokens))


def test_a_clip_is_one_run_between_its_marks():
    *_, example = make([Size(8, 8)] * 2, picture=False)
    text = TOKENIZER.decode(example.tokens.tolist(), skip_special=False)
    assert "<|vision_start|><|video_pad|><|video_pad|><|vision_end|>what" in text


def test_views_in_blocks_stand_behind_the_text_of_their_time():
    *_, example = make([Size(8, 8), Size(8, 16)], spec=BLOCKS, picture=False)
    text = TOKENIZER.decode(example.tokens.tolist(), skip_special=False)
    assert (
        "<0.2 seconds><|vision_start|><|video_pad|><|vision_end|>"
        "<1.2 seconds><|vision_start|><|video_pad|><|video_pad|><|vision_end|>what"
    ) in text


def test_time_advances_by_seconds_and_views_of_any_size_count_from_one_corner():
    """Two steps of time between views of 1 x 2 and 3 x 1 visual tokens."""
    runs = [1, ClipGrids((Grid(1, 2, 4), Grid(1, 6, 2)), 2.0), 1]
    assert rotary_positions("mrope_seconds", runs, merge_size=2).tolist() == [
        [0, 1, 1, 3, 3, 3, 4],
        [0, 1, 1, 1, 2, 3, 4],
        [0, 1, 2, 1, 1, 1, 4],
    ]
    assert rotary_positions("mrope", runs, merge_size=2)[0].tolist() == [0, 1, 1, 2, 2, 2, 4]


@settings(max_examples=25)
@given(st.integers(1, 40), st.floats(0.05, 8.0), st.integers(1, 5))
def test_older_releases_go_on_behind_the_largest_position_of_a_clip(views, step, side):
    runs = [2, ClipGrids((Grid(1, 2 * side, 2 * side),) * views, step), 3]
    for rule, older in (("mrope", "mrope_v4"), ("mrope_seconds", "mrope_seconds_v4")):
        new, old = (rotary_positions(r, runs, merge_size=2) for r in (rule, older))
        np.testing.assert_array_equal(new[:, :-3], old[:, :-3])
        assert (new[:, -3] == 2 + side).all()
        assert (old[:, -3] == old[:, :-3].max() + 1).all()


@pytest.mark.parametrize("spec", [SPEC, BLOCKS], ids=["one run", "blocks"])
@pytest.mark.parametrize("seconds", [0.5, 40.0])
def test_what_is_sampled_stands_where_training_places_the_answer(spec, seconds):
    """Even behind a clip that reaches further in time than the text behind it."""
    clip = dataclasses.replace(tiny_clip(3, 16, 24, frames=8), frame_seconds=seconds)
    views = clip_views_of(clip, [Size(8, 8)] * 4)
    asked = Message(role="user", parts=(0, "what"))
    prompt = assemble([clip], views, [asked], spec, TOKENIZER, generation_prompt=True)
    answered = [asked, Message(role="assistant", parts=("the total is red",))]
    whole = assemble([clip], views, answered, spec, TOKENIZER)
    length = len(prompt.tokens)
    np.testing.assert_array_equal(whole.tokens[:length], prompt.tokens)
    expected = prompt.next_position + np.arange(len(whole.tokens) - length)
    np.testing.assert_array_equal(whole.positions[:, length:], np.tile(expected, (3, 1)))


def test_blocks_refuse_a_clip_in_one_run():
    with pytest.raises(PromptError, match="mrope_blocks takes the 2 views of a clip one by one"):
        rotary_positions("mrope_blocks", [ClipGrids((Grid(1, 2, 2),) * 2)], merge_size=2)


@pytest.mark.parametrize("rule", sorted(set(POSITION_RULES) - {"mrope_blocks"}))
def test_a_clip_of_one_view_stands_as_a_picture_does(rule):
    grid = Grid(1, 4, 6)
    clip, picture = ([2, run, 3] for run in (ClipGrids((grid,), 7.0), grid))
    np.testing.assert_array_equal(
        *(rotary_positions(rule, runs, merge_size=2) for runs in (clip, picture))
    )


def test_rows_show_both_frames_and_a_picture_only_its_own():
    clip, _, _, example = make([Size(16, 24)] * 2)
    rows = example.patches.reshape(-1, 3, 2, 4, 4)
    assert example.still is not None
    np.testing.assert_array_equal(example.still, [False] * 48 + [True] * 8)
    # The first patch of the second view: its frames are 2 and 3, and not resized.
    for frame in (0, 1):
        corner = clip.frames[2 + frame][:4, :4].transpose(2, 0, 1)
        np.testing.assert_array_equal(rows[24, :, frame], corner)
    assert not rows[48:, :, 1].any()
    assert rows[48:, :, 0].any()


def test_pictures_in_a_pack_with_clips_keep_their_rows_and_are_marked():
    *_, moving = make([Size(8, 16)] * 2, picture=False)
    message = [Message(role="user", parts=(0, "what"))]
    view = dataclasses.replace(PICTURE_VIEW, item=0)
    still = assemble([IMAGE], [view], message, SPEC, TOKENIZER)
    assert still.still is None
    packed = pack([still, moving], RUNG)
    rows = packed.patches.reshape(len(packed.patches), 3, 2, 16)
    np.testing.assert_array_equal(rows[:8, :, 0].reshape(8, 48), still.patches)
    assert not rows[:8, :, 1].any()
    np.testing.assert_array_equal(packed.patches[8:24], moving.patches)
    np.testing.assert_array_equal(packed.still, [True] * 8 + [False] * 16 + [True] * 232)
    assert pack([still], RUNG).still is None
    assert pack([still], RUNG).patches.shape == (256, 48)
    np.testing.assert_array_equal(packed.patch_segment_ids[:24], [1] * 8 + [2] * 8 + [3] * 8)


def test_rows_of_another_model_are_refused_beside_a_clip():
    *_, moving = make([Size(8, 16)], picture=False)
    other = dataclasses.replace(moving, patches=np.zeros((8, 3 * 2 * 36), np.uint8))
    with pytest.raises(PackingError, match=r"patch rows of \[96, 216\] values in one pack"):
        pack([moving, other], RUNG)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": (), "time": None}, "item 0 is a clip, but its view is of a picture"),
        ({"frames": (0,)}, "a view of clip 0 has 1 frames, but the model looks at 2 at a time"),
        ({"time": None}, "a view of clip 0 does not say its time"),
        ({"frames": (0, 9)}, r"shows frames \(0, 9\), but there are 2 from 0"),
        ({"size": Size(8, 12)}, "not whole visual tokens"),
    ],
)
def test_a_view_that_is_none_of_its_clip_is_refused(changes, message):
    clip = tiny_clip(0, 16, 24, frames=2)
    (view,) = clip_views_of(clip, [Size(8, 8)])
    messages = [Message(role="user", parts=(0, "what"))]
    with pytest.raises(PromptError, match=message):
        assemble([clip], [dataclasses.replace(view, **changes)], messages, SPEC, TOKENIZER)


def test_a_view_of_frames_is_refused_for_a_picture_and_by_a_model_of_stills():
    clip = tiny_clip(0, 16, 24, frames=2)
    (view,) = clip_views_of(clip, [Size(8, 8)])
    messages = [Message(role="user", parts=(0, "what"))]
    with pytest.raises(PromptError, match="item 0 is a picture, but its view is of a clip"):
        assemble([IMAGE], [view], messages, SPEC, TOKENIZER)
    one_frame = dataclasses.replace(STILLS, temporal_patch_size=2)
    with pytest.raises(PromptError, match="of kind frame, but the model takes image"):
        assemble([clip], [view], messages, one_frame, TOKENIZER)

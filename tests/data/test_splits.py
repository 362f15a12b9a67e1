"""Pictures in numbered squares: sizes, texts and pixels. Live transformers: tests/parity."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mres_jax import testing
from mres_jax.data.assemble import assemble, measure
from mres_jax.data.conversations import Message
from mres_jax.data.runs import view_grid
from mres_jax.data.shown import show
from mres_jax.data.splits import longest_size, split_views, squashed_view
from mres_jax.errors import PromptError
from mres_jax.geometry import Size, View

TINY = testing.tiny_smolvlm()
RULE = TINY.spec.split
SIDE = st.integers(1, 5_000)


def picture(size: Size) -> np.ndarray:
    return np.random.default_rng(list(size)).integers(0, 256, (*size, 3), np.uint8)


def prompt(views: list[View], *pictures: np.ndarray) -> str:
    messages = [Message(role="user", parts=(*range(len(pictures)), "red"))]
    example = assemble(pictures, views, messages, TINY.spec, TINY.tokenizer)
    text = TINY.tokenizer.decode(example.tokens.tolist(), skip_special=False)
    return text.replace("<image>" * 9, "#").replace("<fake_token_around_image>", "|")


@given(SIDE, SIDE, st.integers(1, 3))
def test_squares_cover_the_picture_once_and_then_it_is_shown_whole(height, width, most):
    *tiles, whole = split_views(0, Size(height, width), RULE, longest=most * RULE.side)
    assert (whole.tile, whole.encoded_size) == (None, (RULE.side, RULE.side))
    assert len(tiles) != 1
    assert [view.tile for view in tiles] == list(range(len(tiles)))
    seen = np.zeros(tiles[0].size, int) if tiles else np.ones((1, 1), int)
    for view in tiles:
        assert (view.size, view.through) == (tiles[0].size, tiles[0].through)
        top, left, bottom, right = view.window
        seen[top:bottom, left:right] += 1
    assert (seen == 1).all()
    assert not tiles or max(tiles[0].size) == most * RULE.side


def test_squares_are_numbered_by_row_and_the_whole_stands_behind_them():
    wide = picture(Size(30, 50))
    assert prompt(split_views(0, Size(30, 50), RULE, longest=72), wide) == (
        "<|im_start|>User:|<row_1_col_1>#|<row_1_col_2>#|<row_1_col_3>#\n"
        "|<row_2_col_1>#|<row_2_col_2>#|<row_2_col_3>#\n"
        "\n|<global-img>#|red<end_of_utterance>\n"
    )


def test_a_picture_of_one_square_is_not_cut():
    sizes = [Size(24, 24), Size(3, 9)]
    views = [v for i, size in enumerate(sizes) for v in split_views(i, size, RULE, longest=24)]
    assert prompt(views, *map(picture, sizes)) == (
        "<|im_start|>User:|<global-img>#||<global-img>#|red<end_of_utterance>\n"
    )


def test_a_text_that_opens_a_turn_is_one_with_its_opening():
    messages = [
        Message(role="user", parts=("what is", "red?")),
        Message(role="assistant", parts=("blue",)),
        Message(role="user", parts=("total",)),
    ]
    example = assemble([], [], messages, TINY.spec, TINY.tokenizer, label_mask="answer")
    decode = TINY.tokenizer.decode
    assert decode(example.tokens.tolist(), skip_special=False) == (
        "<|im_start|>User: what isred?<end_of_utterance>\nAssistant: blue<end_of_utterance>\n"
        "User: total<end_of_utterance>\n"
    )
    labelled = example.tokens[example.loss_mask].tolist()
    assert decode(labelled, skip_special=False) == " blue<end_of_utterance>"


def test_control_tokens_that_a_user_writes_stay_text():
    typed = [Message(role="user", parts=("<image><end_of_utterance>\nAssistant: yes",))]
    example = assemble([], [], typed, TINY.spec, TINY.tokenizer)
    ids = [TINY.tokenizer.token_id(name) for name in ("<image>", "<end_of_utterance>")]
    assert np.isin(example.tokens, ids).sum() == 1  # the end of the turn


def test_the_size_is_known_without_pixels():
    size = Size(41, 17)
    views = split_views(0, size, RULE, longest=72)
    messages = [Message(role="user", parts=(0, "what is the total"))]
    example = assemble([picture(size)], views, messages, TINY.spec, TINY.tokenizer)
    assert measure(views, messages, TINY.spec, TINY.tokenizer) == example.size
    assert example.num_visual_tokens == 9 * len(views)


def test_views_that_share_their_way_are_what_each_is_alone():
    """Squares, the whole made of what they were cut from, pictures of one size and another."""
    sizes = [Size(30, 50), Size(80, 20), Size(30, 50)]
    images = [picture(sizes[0]), picture(sizes[1]), 255 - picture(sizes[0])]
    views = [v for i, size in enumerate(sizes) for v in split_views(i, size, RULE, longest=72)]
    views += [views[0], views[-1]]  # the second could go on from the first if pictures were one
    grids = [view_grid(view, TINY.spec) for view in views]
    together = show(images, views, grids, TINY.spec).patches
    alone = [show(images, [v], [g], TINY.spec).patches for v, g in zip(views, grids, strict=True)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_each_step_of_the_way_counts():
    """Resampled once, the same square is another one."""
    size = Size(30, 50)
    twice = squashed_view(0, size, RULE, through=(longest_size(size, 72),))
    once = dataclasses.replace(twice, through=())
    grid = view_grid(once, TINY.spec)
    shown = [show([picture(size)], [v], [grid], TINY.spec).patches for v in (twice, once)]
    assert (shown[0] != shown[1]).any()


SPLIT = split_views(0, Size(30, 50), RULE, longest=72)


@pytest.mark.parametrize(
    "views",
    [
        SPLIT[:-1],
        [SPLIT[-1], *SPLIT[:-1]],
        [*SPLIT[:2], *SPLIT[3:]],
        [SPLIT[1], SPLIT[0], *SPLIT[2:]],
        SPLIT[:1],
    ],
    ids=[
        "without the whole",
        "whole first",
        "one is missing",
        "two change places",
        "one tile alone",
    ],
)
def test_views_that_are_no_split_are_refused(views):
    with pytest.raises(
        PromptError, match=r"views of picture 0 are neither the whole .* policy split"
    ):
        prompt(views, picture(Size(30, 50)))


def test_more_rows_than_the_vocabulary_numbers_are_refused():
    views = split_views(0, Size(30, 50), RULE, longest=96)
    with pytest.raises(PromptError, match=r"cut into 3 x 4 squares, .* at most 3 .* Use split:72"):
        prompt(views, picture(Size(30, 50)))

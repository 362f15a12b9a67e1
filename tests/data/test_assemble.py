"""Tokens, slots and positions of an example agree with its views, whatever the turns are."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mres_jax.data.assemble import assemble, measure
from mres_jax.data.conversations import Message, prompt_messages
from mres_jax.data.patches import patchify
from mres_jax.data.tokenizer import Tokenizer, build_tiny_tokenizer
from mres_jax.data.views import render_view
from mres_jax.errors import PromptError
from mres_jax.geometry import Box, Grid, Size, View
from mres_jax.testing import tiny_spec

TOKENIZER = Tokenizer(build_tiny_tokenizer(["What", "is", "the", "total"]))
SPEC = tiny_spec(TOKENIZER)
IMAGE = np.arange(40 * 40 * 3, dtype=np.int64).reshape(40, 40, 3).astype(np.uint8)
SIDES = st.sampled_from([8, 16, 24, 40])
VIEWS = st.builds(
    lambda item, height, width, top: View(
        item=item, crop=Box(top, 0, 40, 40), size=Size(height, width)
    ),
    st.integers(0, 2),
    SIDES,
    SIDES,
    st.integers(0, 30),
)


def whole(item, height=16, width=16, **kwargs):
    return View(item=item, crop=Box(0, 0, 40, 40), size=Size(height, width), **kwargs)


def make(views, messages, *, num_images=None, **kwargs):
    count = len({view.item for view in views}) if num_images is None else num_images
    return assemble([IMAGE] * count, views, messages, SPEC, TOKENIZER, **kwargs)


def conversation(items):
    """Two user turns; the first picture in the first, the others in the second."""
    return [
        Message(role="user", parts=(*items[:1], "What <|image_pad|>?")),
        Message(role="assistant", parts=("42",)),
        Message(role="user", parts=("is", *items[1:], "the total?")),
    ]


@given(st.lists(VIEWS, max_size=5))
def test_slots_name_each_visual_token_once_and_in_order(views):
    items = sorted({view.item for view in views})
    views = [dataclasses.replace(view, item=items.index(view.item)) for view in views]
    example = make(views, conversation(list(range(len(items)))[::-1]))
    total = sum(grid.num_visual_tokens(2) for grid in example.grids)
    visual = example.slots >= 0
    np.testing.assert_array_equal(example.slots[visual], np.arange(total))
    np.testing.assert_array_equal(visual, example.tokens == SPEC.image_token_id)
    assert len(example.patches) == 4 * total


@given(st.lists(VIEWS, max_size=5))
def test_measure_is_the_size_of_what_assemble_makes(views):
    items = sorted({view.item for view in views})
    views = [dataclasses.replace(view, item=items.index(view.item)) for view in views]
    messages = conversation(list(range(len(items))))
    for prompt in (True, False):
        example = make(views, messages, generation_prompt=prompt)
        measured = measure(views, messages, SPEC, TOKENIZER, generation_prompt=prompt)
        assert measured == example.size
        assert example.positions.shape == (3, measured.num_tokens)
        assert len(example.loss_mask) == len(example.slots) == measured.num_tokens


def test_patches_follow_the_prompt_and_the_views_of_a_picture_stay_together():
    views = [whole(1, 8, 8), whole(0, 16, 24), whole(1, 24, 8), whole(0, 8, 16)]
    messages = [Message(role="user", parts=(1, "What", 0))]
    example = make(views, messages)
    ordered = (views[0], views[2], views[1], views[3])
    assert example.views == ordered
    assert example.grids == (Grid(1, 2, 2), Grid(1, 6, 2), Grid(1, 4, 6), Grid(1, 2, 4))
    rows = [patchify(render_view(IMAGE, v), patch_size=4, merge_size=2) for v in ordered]
    np.testing.assert_array_equal(example.patches, np.concatenate([r[0] for r in rows]))
    np.testing.assert_array_equal(example.patch_positions, np.concatenate([r[1] for r in rows]))


def test_every_view_is_framed_by_the_template():
    example = make([whole(0, 8, 16), whole(0, 8, 8)], [Message(role="user", parts=(0, "is"))])
    frame = "<|vision_start|>{}<|vision_end|>"
    pads = "".join(frame.format("<|image_pad|>" * n) for n in (2, 1))
    assert TOKENIZER.decode(example.tokens.tolist(), skip_special=False) == (
        f"<|im_start|>user\n{pads}is<|im_end|>\n"
    )


def test_the_mask_marks_the_answer_and_nothing_visual():
    messages = prompt_messages("What?", num_images=1, answer="A7")
    example = make([whole(0)], messages, label_mask="answer")
    assert TOKENIZER.decode(example.tokens[example.loss_mask].tolist()) == "A7\n"
    assert not example.loss_mask[example.slots >= 0].any()


def test_text_alone_has_patches_of_no_rows():
    example = make([], prompt_messages("What?", num_images=0))
    assert example.patches.shape == (0, SPEC.patch_row_size)
    assert example.patch_positions.shape == (0, 2)
    assert example.next_position == len(example.tokens)


QUESTION = prompt_messages("What?", num_images=1)


@pytest.mark.parametrize(
    ("views", "messages", "num_images", "message"),
    [
        ([], prompt_messages("", num_images=0), 0, r"has an empty text\. Write the question"),
        ([], QUESTION, 0, r"1 picture placeholders, but 0 pictures"),
        ([whole(0), whole(1)], QUESTION, 2, r"1 picture placeholders, but 2 pictures"),
        ([], QUESTION, 1, r"picture 0 has no view"),
        ([whole(0), whole(1)], QUESTION, 1, r"there is no picture 1; have 1 from 0"),
        ([whole(1)], [Message(role="user", parts=(1, "a"))], 1, r"there is no picture 1; have 1"),
        ([whole(0, 12)], QUESTION, 1, r"picture 0 is 16 x 12 px, not whole visual tokens of 8 px"),
        ([whole(0, 0)], QUESTION, 1, r"picture 0 is 16 x 0 px, not whole visual tokens"),
        ([whole(0, time=1.0)], QUESTION, 1, r"view of kind frame, but the model takes image"),
    ],
)
def test_what_makes_no_example_is_refused(views, messages, num_images, message):
    with pytest.raises(PromptError, match=message):
        make(views, messages, num_images=num_images)


def test_labels_must_be_as_many_as_patches():
    with pytest.raises(
        PromptError, match=r"patch_labels\['ink'\] has shape \(3,\), but there are 16"
    ):
        make([whole(0)], QUESTION, patch_labels={"ink": np.zeros(3, np.int32)})

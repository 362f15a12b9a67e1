"""What a prompt says of a clip: counts in words, clocks, and what is encoded as one text."""

import dataclasses

import numpy as np
import pytest

from mres_jax import testing
from mres_jax.data.assemble import assemble, measure
from mres_jax.data.clip_texts import clip_texts, number_words
from mres_jax.data.conversations import Message
from mres_jax.data.video import clip_of
from mres_jax.geometry import Size
from mres_jax.resolution.policies import parse_policy

TINY = testing.tiny_smolvlm()
TEMPLATE = TINY.spec.template
AROUND = "<fake_token_around_image>"
SQUARE = f"{AROUND}<global-img>{'<image>' * 9}{AROUND}"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (12, "twelve"),
        (20, "twenty"),
        (64, "sixty-four"),
        (100, "one hundred"),
        (101, "one hundred and one"),
        (768, "seven hundred and sixty-eight"),
        (1_000, "one thousand"),
        (1_001, "one thousand and one"),
        (1_100, "one thousand, one hundred"),
        (21_119, "twenty-one thousand, one hundred and nineteen"),
    ],
)
def test_numbers_are_written_as_num2words_writes_them(number, words):
    """num2words 0.5.14, which agrees on 160,000 numbers below a million."""
    assert number_words(number) == words


@pytest.mark.parametrize(
    ("seconds", "length"),
    [(0.9, "0:00:00"), (30 * (1 / 10) - 1e-9, "0:00:03"), (3_725.9, "1:02:05")],
)
def test_a_clip_s_length_and_clock_count_whole_seconds(seconds, length):
    texts = clip_texts(TEMPLATE, [59.99, 60.0, 3_599.2], num_frames=3, seconds=seconds)
    assert f"three frames from a {length} [H:MM:SS] video" in texts[0]
    assert [text[:18] for text in texts[1:-1:2]] == [
        "\nFrame from 00:59:",
        "\nFrame from 01:00:",
        "\nFrame from 59:59:",
    ]


def test_a_clip_reads_as_released_and_is_encoded_with_its_neighbours():
    clip = clip_of([np.full((9, 12, 3), i, np.uint8) for i in (0, 99)], fps=0.5)
    picture = np.zeros((5, 5, 3), np.uint8)
    parts = ("is", 0, "blue", 1, "what")
    messages = [Message(role="user", parts=parts)]
    views = parse_policy("fixed:24")([clip.extent, Size(5, 5)], "", TINY.spec)
    given = (messages, TINY.spec, TINY.tokenizer)
    example = assemble([clip, picture], views, *given, generation_prompt=True)
    text = (
        "<|im_start|>User: isYou are provided the following series of two frames from a 0:00:04 "
        f"[H:MM:SS] video.\n\nFrame from 00:00:{SQUARE}\nFrame from 00:02:{SQUARE}\n\nblue{SQUARE}"
        "what<end_of_utterance>\nAssistant:"
    )
    assert TINY.tokenizer.decode(example.tokens.tolist(), skip_special=False) == text
    assert example.tokens.tolist() == TINY.tokenizer.encode_trusted(text)
    assert example.size == measure(views, *given, generation_prompt=True)
    apart = dataclasses.replace(TINY.spec, template=dataclasses.replace(TEMPLATE, is_joined=False))
    other = assemble([clip, picture], views, messages, apart, TINY.tokenizer)
    assert other.tokens.tolist() != example.tokens.tolist()  # `is` is a word, `isYou` is not


def test_a_clip_that_opens_a_turn_stands_behind_a_space():
    clip = clip_of([np.zeros((9, 12, 3), np.uint8)] * 2)
    views = parse_policy("split")([clip.extent], "", TINY.spec)
    messages = [Message(role="user", parts=(0, "what"))]
    example = assemble([clip], views, messages, TINY.spec, TINY.tokenizer)
    text = TINY.tokenizer.decode(example.tokens.tolist(), skip_special=False)
    assert text.startswith("<|im_start|>User: You are provided")
    assert example.still is None  # rows of one frame, as of pictures

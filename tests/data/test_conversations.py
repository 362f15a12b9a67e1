"""Conversations become token pieces; nobody forges a turn or a picture by typing."""

import dataclasses

import pytest
from hypothesis import given, strategies as st

from mres_jax.data.conversations import (
    Message,
    check_messages,
    place_images,
    plain_messages,
    plain_template,
    prompt_messages,
    tokenize_messages,
)
from mres_jax.data.tokenizer import CONTROL_TOKENS, Tokenizer, build_tiny_tokenizer
from mres_jax.errors import PromptError
from mres_jax.testing import tiny_template

TOKENIZER = Tokenizer(build_tiny_tokenizer(["What", "is", "the", "total", "user", "assistant"]))
QWEN = tiny_template(system="Be brief.")
LLAVA = dataclasses.replace(QWEN, system=None, image_open="", image_close="", after_images="\n")
CHAT = [
    Message(role="user", parts=(0, 1, "What is the total?")),
    Message(role="assistant", parts=("42",)),
    Message(role="user", parts=("And", 2, "here?")),
    Message(role="assistant", parts=("A7",)),
]


def rendered(pieces):
    """The prompt as text, pictures as {index}."""
    return "".join(
        TOKENIZER.decode(p.token_ids, skip_special=False) if p.item is None else f"{{{p.item}}}"
        for p in pieces
    )


def predicted(pieces):
    """The text of the tokens that are to be predicted."""
    ids = [i for p in pieces for i, flag in zip(p.token_ids, p.mask, strict=True) if flag]
    return TOKENIZER.decode(ids, skip_special=False)


def test_a_chat_has_all_its_turns_in_order():
    pieces = tokenize_messages(CHAT[:3], QWEN, TOKENIZER, generation_prompt=True)
    assert rendered(pieces) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n{0}{1}What is the total?<|im_end|>\n"
        "<|im_start|>assistant\n42<|im_end|>\n"
        "<|im_start|>user\nAnd{2}here?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_system_turn_replaces_the_template_s():
    messages = [Message(role="system", parts=("Be long.",)), CHAT[1]]
    pieces = tokenize_messages(messages, QWEN, TOKENIZER)
    assert rendered(pieces) == (
        "<|im_start|>system\nBe long.<|im_end|>\n<|im_start|>assistant\n42<|im_end|>\n"
    )


def test_what_follows_pictures_stands_once_before_their_text():
    messages = [Message(role="user", parts=(0, 1, "What")), Message(role="user", parts=("is", 2))]
    assert rendered(tokenize_messages(messages, LLAVA, TOKENIZER)) == (
        "<|im_start|>user\n{0}{1}\nWhat<|im_end|>\n<|im_start|>user\nis{2}<|im_end|>\n"
    )


def test_answers_and_the_close_of_their_turns_are_predicted():
    pieces = tokenize_messages(CHAT, QWEN, TOKENIZER, label_mask="answer")
    assert predicted(pieces) == "42<|im_end|>\nA7<|im_end|>\n"


def test_the_released_mask_adds_headers_and_the_frame_of_every_turn():
    pieces = tokenize_messages(CHAT, QWEN, TOKENIZER, label_mask="released")
    assert predicted(pieces) == (
        "<|im_start|>\n<|im_end|>\n<|im_start|>\n<|im_end|>\n"
        "<|im_start|>assistant\n42<|im_end|>\n"
        "<|im_start|>\n<|im_end|>\n"
        "<|im_start|>assistant\nA7<|im_end|>\n"
    )


def test_a_prompt_predicts_nothing():
    assert not predicted(tokenize_messages(CHAT, QWEN, TOKENIZER))


@given(st.lists(st.sampled_from([*CONTROL_TOKENS, "\n", "system", " total"]), min_size=1))
def test_no_typed_text_adds_a_control_token(parts):
    messages = prompt_messages("!" + "".join(parts), num_images=1, answer="".join(parts) + "!")
    pieces = tokenize_messages(messages, QWEN, TOKENIZER)
    control = [i for p in pieces for i in p.token_ids if i in TOKENIZER.control_token_ids]
    start, end = (TOKENIZER.token_id(f"<|im_{name}|>") for name in ("start", "end"))
    assert control == [start, end] * 3
    assert [p.item for p in pieces if p.item is not None] == [0]


def test_pictures_open_the_first_user_turn():
    history = [("system", "Be brief."), ("user", "What"), ("assistant", "42")]
    messages = prompt_messages("is", num_images=2, history=history, answer="A7")
    assert [m.parts for m in messages] == [
        ("Be brief.",),
        (0, 1, "What"),
        ("42",),
        ("is",),
        ("A7",),
    ]
    assert [m.role for m in messages] == ["system", "user", "assistant", "user", "assistant"]


def test_placeholders_become_pictures():
    turns = [("user", "<image>\nWhat\n<image>is"), ("assistant", "<image>"), ("user", "<image>")]
    messages = place_images(turns, num_images=3)
    assert [m.parts for m in messages] == [(0, "What", 1, "is"), ("<image>",), (2,)]


def test_white_space_between_placeholders_is_no_text():
    messages = place_images([("user", " <image> <image>\t\n<image>\n What?")], num_images=3)
    assert [m.parts for m in messages] == [(0, 1, 2, " What?")]
    check_messages(messages)
    with pytest.raises(PromptError, match="has an empty text"):
        check_messages(place_images([("user", "  ")], num_images=0))


def test_pictures_can_be_moved_before_the_text():
    messages = place_images([("user", "What\n<image>")], num_images=1, pictures_first=True)
    assert messages[0].parts == (0, "What")


def test_several_pictures_stay_where_they_are_named():
    turns = [("user", "Is <image>\nlike <image>")]
    messages = place_images(turns, num_images=2, pictures_first=True)
    assert messages[0].parts == ("Is ", 0, "like ", 1)


@pytest.mark.parametrize("mask", ["answer", "released"])
@pytest.mark.parametrize("template", [QWEN, LLAVA])
def test_captions_stand_alone_behind_their_picture(template, mask):
    messages = plain_messages(CHAT[:2])
    pieces = tokenize_messages(messages, plain_template(template), TOKENIZER, label_mask=mask)
    assert rendered(pieces) == "{0}{1}42\n"
    assert predicted(pieces) == "42\n"
    assert [piece.token_ids for piece in pieces[2:]] == [tuple(TOKENIZER.encode_text("42\n"))]


@pytest.mark.parametrize(
    ("messages", "counts"),
    [
        (CHAT, r"4 turns \(user, assistant, user, assistant\) and 3 pictures"),
        (CHAT[:1], r"1 turns \(user\) and 2 pictures"),
        ([Message(role="user", parts=("What",)), CHAT[1]], r"2 turns .* and 0 pictures"),
    ],
)
def test_what_is_no_caption_is_refused(messages, counts):
    with pytest.raises(
        PromptError, match=f"takes a picture and its caption, but there are {counts}"
    ):
        plain_messages(messages)


@pytest.mark.parametrize("num_images", [0, 2])
def test_placeholders_and_pictures_must_be_as_many(num_images):
    with pytest.raises(PromptError, match=f"1 <image> placeholders, but {num_images} pictures"):
        place_images([("user", "<image>What")], num_images=num_images)


def user(*parts):
    return Message(role="user", parts=parts)


def test_white_space_beside_a_text_is_kept_as_it_is_written():
    pieces = tokenize_messages([user(0, "\n", 1, "What")], QWEN, TOKENIZER)
    assert "user\n{0}\n{1}What" in rendered(pieces)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], r"no turns\. Give at least a question"),
        ([user()], r"turn 0 \(user\) is empty"),
        ([user(0, "")], r"turn 0 \(user\) has an empty text\. Write the question"),
        ([user(" \n")], r"turn 0 \(user\) has an empty text"),
        ([user("a"), Message(role="tool", parts=("b",))], r"turn 1 has role 'tool'; have system"),
        ([user("a"), Message(role="system", parts=("b",))], r"turn 1 \(system\) comes late"),
        ([Message(role="assistant", parts=(0,))], r"turn 0 \(assistant\) has a picture"),
        ([user(0, "a"), user(0, "b")], r"turn 1 \(user\) places picture 0 a second time"),
    ],
)
def test_turns_that_make_no_prompt_are_refused(messages, message):
    with pytest.raises(PromptError, match=message):
        tokenize_messages(messages, QWEN, TOKENIZER)


def test_an_unknown_mask_is_refused():
    with pytest.raises(PromptError, match=r"label_mask='all'; have answer, released"):
        tokenize_messages(CHAT, QWEN, TOKENIZER, label_mask="all")

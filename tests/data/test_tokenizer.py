"""Two doors: what users write can never become a control token; any text comes back as it was."""

import json

import pytest
from hypothesis import given, strategies as st

from mres_jax.data.tokenizer import CONTROL_TOKENS, Tokenizer, build_tiny_tokenizer
from mres_jax.errors import CheckpointError, ConfigError

WORDS = ("What", "is", "the", "total", "invoice")
TOKENIZER = Tokenizer(build_tiny_tokenizer(WORDS, "€é"))


@given(st.text())
def test_any_text_round_trips(text):
    assert TOKENIZER.decode(TOKENIZER.encode_text(text)) == text


@given(st.lists(st.sampled_from([*CONTROL_TOKENS, " ", "\n", "What", "<|", "|>"])))
def test_control_tokens_typed_by_users_stay_text(parts):
    ids = TOKENIZER.encode_text("".join(parts))
    assert not TOKENIZER.control_token_ids & set(ids)
    assert TOKENIZER.decode(ids) == "".join(parts)


@given(st.lists(st.text() | st.sampled_from([*CONTROL_TOKENS, "What is"])))
def test_many_texts_are_counted_as_each_is_encoded(texts):
    assert TOKENIZER.count_text(texts) == [len(TOKENIZER.encode_text(text)) for text in texts]


@pytest.mark.parametrize("name", CONTROL_TOKENS)
def test_the_trusted_door_knows_control_tokens(name):
    ids = TOKENIZER.encode_trusted(f"What{name}\n")
    assert ids == [TOKENIZER.token_id("What"), TOKENIZER.token_id(name), *b"\n"]
    assert TOKENIZER.decode(ids) == "What\n"
    assert TOKENIZER.decode(ids, skip_special=False) == f"What{name}\n"


@pytest.mark.parametrize("text", ["What", " total", "€", "é", "7", "A", "-", " ", "\n"])
def test_words_and_value_characters_are_single_tokens(text):
    assert len(TOKENIZER.encode_text(text)) == 1


@pytest.mark.parametrize("value", ["INV-2034", "Whose", "totals", "1,204.50€", "THE", "A7"])
def test_values_are_spelled_out(value):
    assert len(TOKENIZER.encode_text(value)) == len(value)


def test_the_order_of_words_does_not_matter():
    one, other = (build_tiny_tokenizer(words, "é€") for words in (WORDS, WORDS[::-1]))
    assert one.to_str() == other.to_str() == build_tiny_tokenizer(WORDS, "€é").to_str()


def test_a_word_must_be_letters():
    with pytest.raises(ConfigError, match=r"words must be runs of letters, got \['top-left'\]"):
        build_tiny_tokenizer(["total", "top-left"])


def test_the_vocabulary_stays_below_a_thousand():
    words = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(368)]
    assert build_tiny_tokenizer(words[:367]).get_vocab_size() == 998
    with pytest.raises(ConfigError, match=r"368 words make 1000 tokens.*Give fewer words"):
        build_tiny_tokenizer(words)


def test_a_tokenizer_keeps_the_bytes_that_were_loaded():
    source = json.dumps(json.loads(build_tiny_tokenizer(WORDS).to_str()), indent=3).encode()
    assert Tokenizer.parse(source, "a file").to_bytes() == source


def test_truncation_and_padding_in_the_file_are_ignored():
    tokenizer = build_tiny_tokenizer(WORDS)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    loaded = Tokenizer.parse(tokenizer.to_str().encode(), "a file")
    assert (
        loaded.encode_text("0123456789") == loaded.encode_trusted("0123456789") == [*range(48, 58)]
    )


def test_control_tokens_that_a_file_does_not_call_special_are_off_for_users_too():
    content = json.loads(build_tiny_tokenizer(WORDS).to_str())
    for token in content["added_tokens"]:
        token["special"] = False
    tokenizer = Tokenizer(build_tiny_tokenizer([]), source=json.dumps(content))
    assert tokenizer.token_id("<|image_pad|>") not in tokenizer.encode_text("<|image_pad|>")
    assert tokenizer.encode_trusted("<|image_pad|>") == [tokenizer.token_id("<|image_pad|>")]


@pytest.mark.parametrize("content", [b"", b"<html>", b"{}", b"\xff\xfe", b'{"model": 3}'])
def test_a_file_that_is_no_tokenizer_is_one_line(content):
    with pytest.raises(CheckpointError, match=r"tokenizer.json is not a tokenizer") as info:
        Tokenizer.parse(content, "tokenizer.json")
    assert "\n" not in str(info.value)
    assert "0x" not in str(info.value)


def test_an_unknown_token_is_named():
    with pytest.raises(CheckpointError, match=r"no token '<\|box\|>' among 277"):
        TOKENIZER.token_id("<|box|>")

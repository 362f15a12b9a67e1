"""Laws of text that grows."""

import hypothesis
import hypothesis.strategies as st
import pytest

from mres_jax.inference.text_stream import TextStream
from mres_jax.testing.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
ALPHABET = "ab \u00e9\u4f60\U0001f600\n"  # of one to four bytes, a token each


@hypothesis.given(
    text=st.text(ALPHABET, max_size=30),
    cuts=st.lists(st.integers(0, 60), max_size=8),
    stop=st.lists(st.text(ALPHABET, min_size=1, max_size=3), max_size=3),
)
def test_pieces_make_the_text_before_the_first_stop_however_tokens_come(text, cuts, stop):
    ids = TOKENIZER.encode_text(text)
    stream, pieces = TextStream(TOKENIZER, stop), []
    for cut in [*sorted(cuts), len(ids)]:
        pieces.append(stream.feed(ids[:cut]))
        assert "\ufffd" not in pieces[-1]
    pieces.append(stream.feed(ids, is_last=True))
    ends = [(text.index(each) + len(each), text.index(each)) for each in stop if each in text]
    expected = text[: min(ends)[1]] if ends else text
    assert "".join(pieces) == stream.text == expected
    assert stream.is_stopped == bool(ends)
    kept = TOKENIZER.decode(ids[: stream.num_tokens])
    if ends:
        assert any(each in kept for each in stop)
        before = TOKENIZER.decode(ids[: stream.num_tokens - 1])
        assert not any(each in before for each in stop)
    else:
        assert stream.num_tokens == len(ids)


def test_the_stop_text_that_is_complete_first_counts_however_tokens_come():
    ids = TOKENIZER.encode_text("abcd")
    for cuts in ([4], [3, 4], [1, 2, 3, 4]):
        stream = TextStream(TOKENIZER, ["bcd", "c"])
        pieces = [stream.feed(ids[:cut]) for cut in cuts]
        assert ("".join(pieces), stream.num_tokens) == ("ab", 3)


def test_what_may_become_a_stop_text_waits_and_comes_when_it_does_not():
    stream = TextStream(TOKENIZER, ["END"])
    ids = TOKENIZER.encode_text("xENzEN")
    given = [stream.feed(ids[: i + 1]) for i in range(len(ids))]
    assert given == ["x", "", "", "ENz", "", ""]
    assert stream.feed(ids, is_last=True) == "EN"


@pytest.mark.parametrize(
    ("text", "expected"), [("> red", "red"), ("red > blue", "red > blue"), (">", ">"), ("", "")]
)
def test_what_the_template_writes_before_an_answer_is_no_part_of_it(text, expected):
    stream = TextStream(TOKENIZER, opening="> ")
    ids = TOKENIZER.encode_text(text)
    pieces = [stream.feed(ids[: i + 1]) for i in range(len(ids))]
    pieces.append(stream.feed(ids, is_last=True))
    assert "".join(pieces) == stream.text == expected
    assert stream.num_tokens == len(ids)


def test_a_long_stop_text_takes_no_longer_than_a_short_one():
    """Each look was quadratic in its length: this one took minutes."""
    stream = TextStream(TOKENIZER, ["b" + "a" * 2_000_000])
    ids = TOKENIZER.encode_text("xb" + "a" * 50)
    given = [stream.feed(ids[: i + 1]) for i in range(len(ids))]
    assert given == ["x", *[""] * 51]
    assert stream.feed(ids, is_last=True) == "b" + "a" * 50


def test_bytes_that_never_become_a_character_come_at_the_end():
    ids = TOKENIZER.encode_text("a\u4f60")[:-1]
    stream = TextStream(TOKENIZER)
    assert stream.feed(ids) == "a"
    assert stream.feed(ids, is_last=True) == TOKENIZER.decode(ids)[1:] != ""


@pytest.mark.parametrize("stop", [("",), ("a", "")])
def test_an_empty_stop_text_is_refused(stop):
    from mres_jax.protocols import Sampling

    with pytest.raises(ValueError, match="would end every answer at once"):
        Sampling(stop=stop)

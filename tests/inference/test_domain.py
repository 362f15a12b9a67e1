"""When a narrow model says that it is asked for something else."""

import pytest

from mres_jax.errors import CheckpointError
from mres_jax.inference.domain import Domain, mean_logprob, unknown_words
from mres_jax.protocols import Answer
from mres_jax.testing import said
from mres_jax.testing.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()  # knows: what is the total colour red blue invoice user assistant
DOMAIN = Domain(name="tiny", knows="generated documents", min_logprob=-0.5)


def answer(*logprobs: float) -> Answer:
    return said("7", logprobs=logprobs)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("what is the total", 0.0),
        ("what is the kitten", 0.25),
        ("describe this kitten", 1.0),
        ("7 + 5 = ?", 0.0),  # no words: nothing is unknown
        ("x y z", 0.0),  # single letters are values
    ],
)
def test_words_that_must_be_spelled_out_are_unknown(text, share):
    assert unknown_words(text, TOKENIZER) == share


def test_a_sure_answer_to_a_known_question_gets_no_note():
    assert DOMAIN.note("what is the total", answer(-0.1, -0.2), TOKENIZER) is None


def test_an_unsure_answer_gets_a_note_with_both_numbers_and_real_models():
    note = DOMAIN.note("what is the total", answer(-0.1, -2.1), TOKENIZER)
    assert note is not None
    assert "-1.10 nats per token, inside its domain at full size seldom below -0.50" in note
    assert "Qwen/Qwen2-VL-7B-Instruct (8.3 B, 16.6 GB)" in note


def test_unknown_words_get_a_note_however_sure_the_answer_is():
    note = DOMAIN.note("describe this kitten", answer(0.0), TOKENIZER)
    assert note is not None
    assert "100% of the question's words are unknown to it" in note


def test_an_empty_answer_is_neither_sure_nor_unsure():
    assert mean_logprob(answer()) == 0.0


def test_facts_read_back_and_models_without_them_have_no_domain():
    assert Domain.of({"other": 1, **DOMAIN.to_facts()}) == DOMAIN
    assert Domain.of({}) is None
    with pytest.raises(CheckpointError, match="'domain' does not read"):
        Domain.of({"domain": {"nmae": "tiny"}})

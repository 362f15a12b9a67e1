"""How LLaVA's conversations are written and encoded: as one text between pictures and controls."""

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers

from mres_jax.data.conversations import (
    Message,
    lay_out,
    plain_messages,
    plain_template,
    tokenize_messages,
)
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.models._chat_template import chat_template
from mres_jax.models.llava.templates import MISTRAL, VICUNA_V1, template_for

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
TURNS = [
    Message(role="user", parts=(0, "What is it?")),
    Message(role="assistant", parts=("A cat.",)),
    Message(role="user", parts=("Sure? </s>",)),
    Message(role="assistant", parts=("Yes.",)),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Characters, with a mark for each space and one in front of all, as Llama's pieces have."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for character in "\u2581" + "".join(map(chr, range(10, 127))):
        vocabulary.setdefault(character, len(vocabulary))
    for piece in ("\u2581A", "\u2581USER", "\u2581ASSISTANT", "\u2581Yes"):
        vocabulary[piece] = len(vocabulary)
    scores = {piece: 0.0 if len(piece) > 1 else -1.0 for piece in vocabulary}
    scores |= dict.fromkeys(("<unk>", "<s>", "</s>"), -1e3)  # nothing that is typed becomes one
    pieces = list(scores.items())
    made = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    made.decoder = decoders.Replace("\u2581", " ")
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    return Tokenizer(made)


def written(messages, template=VICUNA_V1, **options) -> str:
    spans = lay_out(messages, template, **options)
    return "|".join("<image>" if span.item is not None else span.text for span in spans)


def test_a_conversation_is_that_of_the_released_code():
    assert written(TURNS) == (
        f"<s>|{SYSTEM} USER: |<image>|\nWhat is it? ASSISTANT: A cat.|</s>|"
        "USER: Sure? </s> ASSISTANT: Yes.|</s>"
    )
    assert written(TURNS[:1], generation_prompt=True) == (
        f"<s>|{SYSTEM} USER: |<image>|\nWhat is it? ASSISTANT:"
    )


def test_mistral_is_spoken_to_in_its_own_words():
    """As the template of llava-hf/llava-v1.6-mistral-7b-hf, behind the <s> of its tokenizer."""
    assert written(TURNS, MISTRAL) == (
        "<s>|[INST] |<image>|\nWhat is it? [/INST] A cat.|</s>|"
        " [INST] Sure? </s> [/INST] Yes.|</s>| "
    )
    assert written(TURNS[:1], MISTRAL, generation_prompt=True) == (
        "<s>|[INST] |<image>|\nWhat is it? [/INST]"
    )


def test_answers_and_their_ends_are_learnt_and_nothing_else(tokenizer):
    pieces = tokenize_messages(TURNS, VICUNA_V1, tokenizer, label_mask="answer")
    learnt = [
        tokenizer.decode([t for t, flag in zip(p.token_ids, p.mask, strict=True) if flag], False)
        for p in pieces
    ]
    assert [text for text in learnt if text] == [" A cat.", "</s>", " Yes.", "</s>"]


def test_neighbouring_texts_are_encoded_as_one(tokenizer):
    """Apart, each would begin with a mark of its own."""
    (*_, piece) = tokenize_messages(TURNS[:1], VICUNA_V1, tokenizer, generation_prompt=True)
    assert list(piece.token_ids) == tokenizer.encode_text("\nWhat is it? ASSISTANT:")


def test_a_control_token_that_somebody_typed_stays_text(tokenizer):
    pieces = tokenize_messages(TURNS, VICUNA_V1, tokenizer)
    ends = [p.token_ids for p in pieces if tokenizer.token_id("</s>") in p.token_ids]
    assert ends == [(2,), (2,)]


def test_a_caption_begins_with_the_first_control_token_and_its_picture(tokenizer):
    template = plain_template(VICUNA_V1)
    messages = plain_messages(TURNS[:2])
    spans = lay_out(messages, template, label_mask="answer")
    assert [(span.text, span.is_answer) for span in spans] == [
        ("<s>", False),
        ("", False),
        ("A cat.\n", True),
    ]


def test_the_vocabulary_says_which_template(tokenizer):
    template, end, pad = template_for(tokenizer.token_id)
    assert (template, end, pad) == (VICUNA_V1, 2, 0)
    assert template_for(tokenizer.token_id, "mistral") == (MISTRAL, 2, 0)


def test_the_template_is_written_for_jinja():
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Template(chat_template(VICUNA_V1, "<image>").rstrip("\n"))
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Sure?"},
    ]
    assert template.render(messages=messages, add_generation_prompt=True) == (
        f"<s>{SYSTEM} USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT:"
    )

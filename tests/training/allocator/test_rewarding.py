"""Which rows a run is refused for, since no answer to them could be paid."""

import pytest

from mres_jax.data.rows import QuestionRow
from mres_jax.errors import BadRowError
from mres_jax.rewards import RewardRules
from mres_jax.training.allocator.rewarding import check_payable

ANIMALS = ("cat", "dog", "bird", "fish")


def make(answer, kind, options=(), name="r1"):
    return QuestionRow(
        id=name, pictures=(), question="?", answers=(answer,), type=kind, options=options
    )


@pytest.mark.parametrize(
    ("answer", "kind", "options", "earned"),
    [
        ("three", "number", (), "0 of 1"),
        ("unknown", "regression", (), "0 of 1"),
        ("E", "choice", ANIMALS, "0 of 1"),
        ("a catt", "choice", ANIMALS, "0 of 1"),
        ("?!", "free_text", (), "0 of 1"),
        (r"\boxed{7}", "text", (), "0 of 1"),  # an answer comes down to what is in its box
        ("the dog <> [1, 5]", "grounded", ANIMALS, "1 of 2"),
    ],
)
def test_a_row_whose_own_answer_earns_less_than_all_is_refused(answer, kind, options, earned):
    rows = [make("yes", "text", name="r0"), make(answer, kind, options)]
    with pytest.raises(BadRowError, match=rf"row r1: its own answer .* earns {earned} as {kind}"):
        check_payable(rows, "type")
    check_payable(rows, "pay.py:mine")  # whatever it pays


def test_what_is_refused_is_said_with_its_options_its_cure_and_how_many_there_are():
    rows = [make("cat", "choice", ANIMALS), *[make("E", "choice", ANIMALS, f"e{i}") for i in "12"]]
    with pytest.raises(BadRowError) as caught:
        check_payable(rows, "type")
    assert str(caught.value) == (
        "row e1: its own answer 'E' of the options ['cat', 'dog', 'bird', 'fish'] earns 0 of 1 as "
        "choice, and no other could earn more: correct answer, options or type (2 of 3 rows)."
    )


@pytest.mark.parametrize("rules", [RewardRules(), RewardRules.code()], ids=["paper", "code"])
@pytest.mark.parametrize(
    ("answer", "kind", "options"),
    [
        ("3.5", "number", ()),
        ("0", "regression", ()),
        ("D", "choice", ANIMALS),
        ("a, c", "choice", ANIMALS),
        ("dog", "choice", ANIMALS),
        ("dog", "free_text", ()),  # the released code pays two thirds for one word
        ("dog", "free-text", ()),
        ("Invoice 7", "text", ()),
        ("Invoice 7", "anls", ()),
        ("Invoice 7", "ocr", ()),
        ("[0, 5]; [8, 9]", "grounding", ()),
        ("B <> [0, 5]; [8, 9]", "grounded", ANIMALS),
    ],
)
def test_rows_that_can_be_paid_pass(answer, kind, options, rules):
    check_payable([make(answer, kind, options)], "type", rules)

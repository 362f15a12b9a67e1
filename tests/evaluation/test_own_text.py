"""A text of the user's own: written as asked, or refused in one line that says what to change."""

import numpy as np
import pytest
from PIL import Image

from mres_jax.cli import main
from mres_jax.errors import MresError
from mres_jax.evaluation.own_text import (
    ask_text,
    check_text,
    draw_text,
    outside_of_training,
    own_rows,
)
from mres_jax.evaluation.trials import NO_PICTURE
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.testing.tiny import tiny_qwen2_vl


@pytest.mark.parametrize(
    ("text", "height", "ink"),
    [("INV 48213", 11, 11), ("x", 4, 3), ("Straße 5 Ω", 20, 20), ("W" * 70, 8, 8)],
)
def test_the_page_says_the_text_with_capitals_of_that_height(text, height, ink):
    document = draw_text(check_text(text, height), height, seed=0)
    words = text.split()
    assert [field.value for field in document.fields[: len(words)]] == words
    for field, question in zip(document.fields, document.questions, strict=False):
        assert (question.answer, question.type) == (field.value, "rc")
        assert field.key in question.text
        assert field.text_height == height
        box = field.value_box
        written = document.image[box.top : box.bottom, box.left : box.right]
        assert np.ptp(written.mean(-1)) > 60  # ink on ground
    assert abs(document.fields[0].value_box.size.height - ink) <= 1


@pytest.mark.parametrize(
    ("text", "height", "line"),
    [
        ("  ", 11, "--text is empty"),
        ("中文", 11, r"cannot draw '中' \(U\+4E2D\), '文' \(U\+6587\)\. Leave it out"),
        ("a\x1bb", 11, r"cannot draw '\\x1b' \(U\+001B\)"),
        ("A " * 9, 11, "has 9 words; give at most 8"),
        ("a\u2800b", 11, r"U\+2800"),  # known to the font, without ink
        ("A7", 3, "--height 3 px is not within 4 to 48 px"),
        ("A7", 49, "--height 49 px is not within"),
        ("A" * 30, 48, "30 characters with capitals of 48 px does not fit a page of 768 px"),
    ],
)
def test_a_text_that_cannot_be_written_is_refused_in_one_line(text, height, line):
    with pytest.raises(MresError, match=line):
        draw_text(check_text(text, height), height, seed=0)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--text", "A7", "--questions", "5"], "--questions is of the table"),
        (["--height", "11"], "give --text too"),
        (["--text", "A7", "--height", "tall"], "argument --height: invalid int value"),
        (["--text", "中"], "cannot draw '中'"),
    ],
)
def test_the_command_refuses_in_one_line(words, line, capsys, tmp_path):
    assert main(["demo", "--out", str(tmp_path / "demo"), *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert line in error[-1]
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_every_policy_is_asked_and_the_page_and_what_was_seen_are_written(tmp_path):
    made = tiny_qwen2_vl()
    answerer = LocalAnswerer(made.model, made.spec, made.tokenizer)
    result = ask_text(answerer, "A-7 53", 12, out=tmp_path)
    assert [path.name for path in result.files] == ["own.png", "own-policies.png"]
    with Image.open(tmp_path / "own.png") as page:
        assert page.size == (448, 448)
    headers, rows = own_rows(result.readings, "A-7 53")
    assert all(len(row) == len(headers) for row in rows)
    tokens = [int(row[5]) for row in rows]
    assert tokens == sorted(tokens, reverse=True)
    assert rows[-1][0] == NO_PICTURE
    (half,) = (row for row in rows if row[0] == "scale:0.5")
    native = result.readings[0].trials[0].answer.views[0]  # 448 px are more than this model takes
    assert float(half[4]) == pytest.approx(12 * native.size.height / 448 / 2, rel=0.1)


def test_what_the_model_was_never_taught_is_said():
    assert outside_of_training("A-7.5:/9 12") == ""
    assert outside_of_training("123456789") == "never taught values of 9 characters"
    assert outside_of_training("INV 48213") == ("never taught values with 'I'")

"""The validation point: what it says does not depend on how many clips are in memory."""

import gc
import weakref

import numpy as np
import pytest

from mres_jax.errors import RunError
from mres_jax.rewards import Reward
from mres_jax.training.allocator import validation
from mres_jax.training.allocator.prompts import open_prompt, open_questions
from mres_jax.training.allocator.validation import validate


@pytest.fixture
def point_of(make_run, planted, write_clips, tmp_path):
    """The validation point of four rows, and how many clips were there when each part was asked."""
    run = make_run(data=write_clips(tmp_path, sizes=((32, 32), (64, 32))), held_out=4)
    rows, spec = open_questions(run.data).held_out, planted.spec
    alive, counts = weakref.WeakSet(), []

    def open_row(row, bad):
        if row.id in bad:
            return None
        prompt = open_prompt(row, run.data, spec, wire=run.wire)
        alive.add(prompt)
        return prompt

    class Counting(type(planted.answerer)):
        def answer(self, requests, **settings):
            gc.collect()
            counts.append(len(alive))
            return super().answer(requests, **settings)

    def pay(answer, row):
        return Reward(float(answer.text) / 7, 0.0, 0.0, True)

    def make(bad=()):
        counts.clear()
        scales = lambda prompt: np.linspace(0.5, 1, len(prompt.frames))  # noqa: E731
        opener = lambda row: open_row(row, bad)  # noqa: E731
        return validate(rows, opener, scales, Counting(spec), spec, pay, run), list(counts)

    return make


@pytest.mark.slow
def test_parts_of_the_held_out_questions_give_the_point_of_all_and_are_let_go(
    point_of, monkeypatch
):
    whole, counts = point_of()
    assert counts == [4, 4]
    monkeypatch.setattr(validation, "MOST_BYTES", 1)
    parts, counts = point_of()
    assert counts == [1] * 8
    assert parts == whole
    assert whole["questions"] == 4
    assert 0 < whole["accuracy"] != whole["fixed_accuracy"]


def test_rows_that_cannot_be_read_are_left_out_of_both_sides(point_of):
    found, counts = point_of(bad=("r3", "r5"))
    assert found["questions"] == 2
    assert counts == [2, 2]
    with pytest.raises(RunError, match=r"none of 4 rows can be read; bad_rows\.jsonl"):
        point_of(bad=("r2", "r3", "r4", "r5"))

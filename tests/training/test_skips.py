"""What is said of steps and updates that changed nothing, and when a run ends."""

import pytest

from mres_jax.errors import RunError
from mres_jax.training.skips import SkipGuard


def metrics(in_row):
    return {"skipped_in_row": in_row, "objective": float("nan"), "grad_norm": 1.0}


def test_updates_are_counted_as_updates_where_a_step_has_several():
    said = []
    guard = SkipGuard(3, said.append, saved=1, learner="allocator")
    for in_row, step in enumerate((2, 2, 3), 1):
        guard.add(step, metrics(in_row))
    with pytest.raises(RunError) as ended:
        guard.settle()
    assert str(ended.value) == (
        "train: the last 3 updates of the allocator were skipped, up to step 3 (loss nan, gradient "
        "norm 1.0): the newest checkpoint is of step 1. Lower optimizer.learning_rate or look at "
        "the data of these steps; max_skipped is how many are borne in a row."
    )
    assert said[0] == "step     2: update of the allocator skipped: loss nan, gradient norm 1.0"


def test_steps_are_counted_as_steps_where_each_has_one():
    guard = SkipGuard(2, lambda line: None)
    guard.add(3, metrics(1))
    guard.add(4, metrics(2))
    with pytest.raises(RunError, match=r"steps 3 to 4 were skipped .* is 2, none was saved"):
        guard.settle()

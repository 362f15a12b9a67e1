"""What a run works with."""

import pytest

from mres_jax.config import Schedule
from mres_jax.training.allocator.parts import schedule_of
from mres_jax.training.optimizer import rate_at


@pytest.mark.parametrize(("every", "updates"), [(1, 1), (1, 2), (4, 1), (3, 2), (200, 1)])
def test_a_learning_rate_ends_with_the_run_however_seldom_its_part_learns(every, updates, make_run):
    schedule = Schedule(num_steps=100, warmup_steps=10, kind="cosine")
    found = schedule_of(make_run(schedule=schedule, updates=updates), every=every)
    steps = [step for step in range(1, 101) for _ in range(updates) if step % every == 0]
    assert found.num_steps == max(len(steps), 1)
    assert found.warmup_steps == sum(step <= 10 for step in steps)
    assert found.kind == "cosine"


def test_a_backbone_that_learns_every_fourth_step_sees_all_of_the_cosine(make_run):
    run = make_run(schedule=Schedule(num_steps=100, warmup_steps=10, kind="cosine"))
    rates = [rate_at(1.0, schedule_of(run, every=4), update) for update in range(1, 26)]
    assert rates[2] == max(rates) == pytest.approx(1.0)  # after the updates of steps 4 and 8
    assert rates[-1] < 0.01

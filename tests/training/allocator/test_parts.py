"""What a run works with."""

import dataclasses

import pytest
from etils import epath
from flax import nnx

from mres_jax.config import BackboneTraining, Schedule
from mres_jax.models.checkpoint_io import write_checkpoint
from mres_jax.models.registry import load_processor
from mres_jax.training.allocator.parts import model_facts, schedule_of
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


def test_a_backbone_that_learned_still_ends_its_answers_where_it_did(parts, make_run, tmp_path):
    """Also where its `generation_config.json` had another token than the template has."""
    ends = (*parts.spec.eos_token_ids, 7)
    parts = parts._replace(spec=dataclasses.replace(parts.spec, eos_token_ids=ends))
    facts = model_facts(make_run(backbone_training=BackboneTraining()), parts)
    trees = {"model": nnx.state(parts.model, nnx.Param)}
    write_checkpoint(epath.Path(tmp_path / "step"), trees, **facts)
    assert load_processor(tmp_path / "step").spec.eos_token_ids == ends

"""The recipes of ResAdapt load, whole and in their short form, and read back equal."""

import pathlib

import pytest

from mres_jax.config import AllocatorRun, from_json, load_run, to_json

FOLDER = pathlib.Path(__file__).parents[2] / "configs" / "resadapt"


@pytest.mark.parametrize("name", ["tiny", "paper", "joint"])
def test_recipes_of_resadapt_load_whole_and_short(name):
    whole, short = (load_run(FOLDER / f"{name}.py", smoke=smoke) for smoke in (False, True))
    assert isinstance(whole, AllocatorRun)
    assert isinstance(short, AllocatorRun)
    assert from_json(to_json(whole)) == whole
    assert short.schedule.num_steps == 2
    assert short.backbone is None


def test_the_paper_recipe_has_the_numbers_of_the_paper():
    run = load_run(FOLDER / "paper.py")
    assert isinstance(run, AllocatorRun)
    assert (run.prompts, run.allocations, run.rollouts, run.data.max_frames) == (128, 16, 1, 128)
    assert (run.optimizer.learning_rate, run.optimizer.weight_decay) == (2e-5, 0.01)
    assert (run.network.min_scale, run.network.max_scale) == (0.2, 1.8)

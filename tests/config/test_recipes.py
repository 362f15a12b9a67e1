"""The recipes of the paper name parts that its model has, at its rates."""

import functools
import pathlib

import pytest
from flax import nnx

from mres_jax.config import load_run
from mres_jax.models.nativeres_llava.model import NativeResLlava
from mres_jax.training.learner import Learner
from mres_jax.training.parts import trained_rates

FOLDER = pathlib.Path(__file__).parents[2] / "configs" / "nativeres_llava"


@functools.cache
def learner(config) -> Learner:
    def make() -> Learner:
        model = NativeResLlava(config, rngs=nnx.Rngs(0))
        return Learner(model, patch_classes={}, auxiliary_weight=0.0, rngs=nnx.Rngs(0))

    return nnx.eval_shape(make)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("stage1", {"projector": 1e-3}),
        ("stage2", {"projector": 1e-5, "text": 1e-5}),
        ("stage2_next", {"vision": 2e-6, "projector": 1e-5, "text": 1e-5}),
    ],
)
@pytest.mark.parametrize("smoke", [False, True], ids=["whole", "smoke"])
def test_recipes_train_the_parts_of_the_paper_at_its_rates(name, rates, smoke):
    run = load_run(FOLDER / f"{name}.py", smoke=smoke)
    found: dict[str, set[float]] = {}
    for path, rate in trained_rates(learner(run.model), run.train).items():
        found.setdefault(path[1], set()).add(rate * run.optimizer.learning_rate)
    assert {part: list(some) for part, some in found.items()} == {
        part: [pytest.approx(rate)] for part, rate in rates.items()
    }
    assert run.schedule.warmup_fraction == 0.03
    assert (run.init is None) == smoke

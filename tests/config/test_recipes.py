"""The recipes of the paper name parts that its model has, at its rates; arms differ by policy."""

import functools
import pathlib

import pytest
from flax import nnx

from mres_jax.config import diff, load_eval_run, load_run
from mres_jax.geometry import Size
from mres_jax.models.nativeres_llava.model import NativeResLlava
from mres_jax.models.registry import family_of
from mres_jax.resolution.policies import check_policy, parse_policy
from mres_jax.training.learner import Learner
from mres_jax.training.meshes import check_model
from mres_jax.training.parts import trained_rates
from mres_jax.training.setup import set_up_abstractly

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
        ("stage1_tiles", {"projector": 1e-3}),
        ("stage1_fixed", {"projector": 1e-3}),
        ("stage2", {"projector": 1e-5, "text": 1e-5}),
        ("stage2_tiles", {"projector": 1e-5, "text": 1e-5}),
        ("stage2_fixed", {"projector": 1e-5, "text": 1e-5}),
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


ARMS = ("tiles", "fixed")
# thousands of rows of LLaVA's 665 k by the usual height and width of their pictures, px
SIZES = {
    (480, 640): 146,
    (427, 640): 127,
    (640, 480): 91,
    (375, 500): 124,
    (500, 330): 80,
    (768, 1_024): 22,
    (600, 800): 35,
}


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_an_arm_differs_from_native_by_the_policy_alone(stage, arm):
    native, other = (load_run(FOLDER / f"{name}.py") for name in (stage, f"{stage}_{arm}"))
    (policy,) = other.policies
    directory = f"runs/nativeres-llava-{stage}"
    changes = {
        "name": f"'{native.name}' -> '{native.name}-{arm}'",
        "checkpoint.dir": f"'{directory}' -> '{directory}-{arm}'",
        "policies.native": "1.0 -> absent",
        f"policies.{policy}": "absent -> 1.0",
    }
    if stage == "stage2":
        before = load_run(FOLDER / f"stage1_{arm}.py").checkpoint.dir
        changes["init"] = f"'{native.init}' -> '{before}'"
    assert dict(line.split(": ", 1) for line in diff(native, other)) == changes


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_arms_see_as_many_tokens_in_the_mean_of_the_mixture(stage):
    means = {}
    for file in (stage, *(f"{stage}_{arm}" for arm in ARMS)):
        run = load_run(FOLDER / f"{file}.py")
        (policy,) = map(parse_policy, run.policies)
        spec = family_of(run.model).make_spec(run.model, lambda name: 2)
        check_policy(policy, spec)
        check_model(run.mesh, run.model, run.ladder)
        (rung,) = run.ladder
        tokens = {}
        for size in SIZES:
            views = policy((Size(*size),), "", spec)
            tokens[size] = sum(view.size.height * view.size.width // 28**2 for view in views)
            assert 4 * tokens[size] <= rung.max_patches
            assert len(views) <= rung.max_views
        means[file] = sum(tokens[size] * SIZES[size] for size in SIZES) / sum(SIZES.values())
    first, *others = means.values()
    assert others == [pytest.approx(first, rel=0.03)] * 2
    assert list(means.values()) == pytest.approx([361, 370, 361], abs=1)  # as their files say


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_is_planned_without_weights_and_data(arm):
    run = load_run(FOLDER / f"stage2_{arm}.py", smoke=True)
    assert run.checkpoint.dir == f"runs/nativeres-llava-stage2-{arm}-smoke"
    assert set_up_abstractly(run, run.schedule).state.params


def test_the_study_asks_each_arm_as_it_was_trained_about_reading_and_seeing():
    study = load_eval_run(FOLDER / "evaluate.py")
    trained = {"native": "stage2"} | {arm: f"stage2_{arm}" for arm in ARMS}
    assert study.models == {
        arm: load_run(FOLDER / f"{file}.py").checkpoint.dir for arm, file in trained.items()
    }
    assert study.policies == ()
    assert [(task.name, task.called) for task in study.tasks] == [
        ("rcbench", "rc"),
        ("rcbench", "sc"),
    ]
    assert load_eval_run(FOLDER / "evaluate.py", smoke=True).limit == 4

"""The recipes of LLaVA-HR train the parts of the released code on rungs that hold its pictures."""

import functools
import pathlib

import pytest
from flax import nnx

from mres_jax.config import load_run
from mres_jax.models.llava_hr.model import LlavaHR
from mres_jax.models.registry import family_of
from mres_jax.resolution.policies import parse_policy
from mres_jax.training.learner import Learner
from mres_jax.training.parts import check_prefixes, trained_rates

FOLDER = pathlib.Path(__file__).parents[2] / "configs" / "llava_hr"
ALL = {"vision.low", "vision.high", "vision.adapters", "vision.fusion", "projector", "text"}


@functools.cache
def learner(config) -> Learner:
    def make() -> Learner:
        model = LlavaHR(config, rngs=nnx.Rngs(0))
        return Learner(model, patch_classes={}, auxiliary_weight=0.0, rngs=nnx.Rngs(0))

    return nnx.eval_shape(make)


def part(path: tuple[str, ...]) -> str:
    return ".".join(path[1 : 3 if path[1] == "vision" else 2])


@pytest.mark.parametrize("smoke", [False, True], ids=["whole", "smoke"])
@pytest.mark.parametrize(
    ("name", "rate", "parts"),
    [
        ("stage1", 1e-3, {"vision.fusion", "projector"}),
        ("stage2", 2e-5, ALL),
        ("stage2_native", 2e-5, ALL),
    ],
)
def test_each_stage_trains_the_parts_of_the_released_code(name, rate, parts, smoke):
    run = load_run(FOLDER / f"{name}.py", smoke=smoke)
    rates = trained_rates(learner(run.model), run.train)
    assert {part(path) for path in rates} == parts
    found = {value * run.optimizer.learning_rate for value in rates.values()}
    assert list(found) == [pytest.approx(rate)]
    assert run.schedule.warmup_fraction == 0.03


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_a_rung_is_full_of_pictures_and_starts_name_parts_that_there_are(name):
    run = load_run(FOLDER / f"{name}.py")
    vision, (rung,) = run.model.vision_config, run.ladder
    assert rung.max_patches == rung.max_views * vision.grid_side**2
    side = vision.input_image_size
    assert rung.canvases == ((side, side),)
    assert {parse_policy(text).side for text in run.policies} == {side}
    state = nnx.to_flat_state(nnx.state(learner(run.model).model))
    check_prefixes("init", run.init, [".".join(map(str, path)) for path, _ in state])


def test_the_native_rung_holds_every_view_of_the_model():
    run = load_run(FOLDER / "stage2_native.py")
    spec = family_of(run.model).make_spec(run.model, lambda name: 2)
    (rung,) = run.ladder
    assert [parse_policy(text).name for text in run.policies] == ["native"]
    for shape in spec.canvas.shapes:
        assert any(shape.height <= h and shape.width <= w for h, w in rung.canvases)
    assert rung.max_patches == 8 * max(spec.grid(shape).num_patches for shape in spec.canvas.shapes)

"""The recipes of Qwen2.5-VL and Qwen3-VL train what they say, on rungs that hold what comes."""

import pathlib

import jax
import pytest

from mres_jax.config import load_run
from mres_jax.models.registry import family_of
from mres_jax.resolution.policies import parse_policy
from mres_jax.training.meshes import check_model
from mres_jax.training.setup import set_up_abstractly

FOLDER = pathlib.Path(__file__).parents[2] / "configs"
FILES = ("qwen2_5_vl/lora.py", "qwen2_5_vl/full.py", "qwen3_vl/full.py")


@pytest.mark.parametrize("file", FILES)
def test_a_pack_holds_the_largest_picture_beside_as_much_text(file):
    run = load_run(FOLDER / file)
    (rung,), (policy,) = run.ladder, map(parse_policy, run.policies)
    merge = run.model.vision_config.spatial_merge_size**2
    assert rung.max_patches >= merge * policy.tokens
    assert rung.max_tokens >= 2 * policy.tokens
    assert run.balance == 32 * run.mesh.ranks == 32 * run.accumulation
    check_model(run.mesh, run.model, run.ladder)


@pytest.mark.parametrize("file", FILES)
def test_a_short_form_is_one_device_and_a_model_that_its_family_takes(file):
    run = load_run(FOLDER / file, smoke=True)
    assert (run.mesh.size, run.accumulation, run.init) == (1, 1, None)
    family_of(run.model).make_spec(run.model, lambda name: 2)


def test_lora_trains_adapters_alone_beside_weights_in_bfloat16():
    run = load_run(FOLDER / "qwen2_5_vl/lora.py", smoke=True)
    state = set_up_abstractly(run, run.schedule).state
    paths = jax.tree_util.tree_leaves_with_path(state.params)
    assert len(paths) > 0
    assert all("lora_" in str(path) for path, _ in paths)
    assert {x.dtype.name for x in jax.tree.leaves(state.frozen)} == {"bfloat16"}
    trained, moments = (
        sum(x.size for x in jax.tree.leaves(tree)) for tree in (state.params, state.opt_state)
    )
    assert moments == pytest.approx(2 * trained, rel=0.01)  # and none of the rest

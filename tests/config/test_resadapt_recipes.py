"""The recipes of ResAdapt load, whole and in their short form, and read back equal."""

import math
import pathlib
import re

import pytest

from mres_jax.config import AllocatorRun, from_json, is_server, load_run, to_json
from mres_jax.errors import ConfigError
from mres_jax.testing.allocator_runs import tiny_allocator_run
from mres_jax.training.rl import CAPO

FOLDER = pathlib.Path(__file__).parents[2] / "configs" / "resadapt"
MEMORY_SHARES = ("--gpu-memory-utilization", "XLA_PYTHON_CLIENT_MEM_FRACTION")


@pytest.mark.parametrize("name", ["tiny", "paper", "joint", "overnight_1gpu"])
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
    assert run.wire == "pairs"
    assert run.data.max_frames // 2 * (run.data.max_pixels or 0) == 8_192 * 28**2


def test_the_joint_recipe_has_the_budget_of_the_paper_and_room_for_every_scale():
    run = load_run(FOLDER / "joint.py")
    assert isinstance(run, AllocatorRun)
    pairs, most = run.data.max_frames // 2, run.data.max_pixels or 0
    assert pairs * most == 8_192 * 28**2
    assert run.backbone_training is not None
    alone, together = run.backbone_training.ladder, run.ladder
    largest = alone[-1]
    for ratio in (1, 9 / 16, 1 / 4, 1 / 64):  # a side is rounded to the nearest multiple of 28 px
        height = (most * ratio) ** 0.5
        sides = (round(run.network.max_scale * side / 28) for side in (height, most / height))
        tokens = pairs * math.prod(sides)
        assert 4 * tokens <= largest.max_patches, ratio
        assert tokens + run.max_new_tokens < largest.max_tokens, ratio
    assert all((rung.max_views, rung.max_examples) == (pairs, 1) for rung in alone)
    for one, several in zip(alone, together, strict=True):
        assert several.max_patches == one.max_patches
        assert several.max_views == pairs * several.max_examples > pairs


@pytest.mark.parametrize("unit", ["allocation", "rollout"])
def test_an_allocation_has_others_of_its_question_beside_it(unit):
    changes = {"rollouts": 4, "capo": CAPO(unit=unit)}
    with pytest.raises(ConfigError, match=r"^AllocatorRun: allocations=1, but an allocator learns"):
        tiny_allocator_run("run", "rows.jsonl", allocations=1, **changes)
    assert tiny_allocator_run("run", "rows.jsonl", allocations=2, **changes).allocations == 2


def test_a_night_on_one_gpu_has_the_tokens_it_says_and_both_shares_of_memory():
    run = load_run(FOLDER / "overnight_1gpu.py")
    assert isinstance(run, AllocatorRun)
    assert (run.prompts, run.allocations, run.data.max_frames) == (32, 8, 16)
    assert run.data.max_frames * (run.data.max_pixels or 0) == 2_048 * 28**2
    assert is_server(run.backbone)
    text = (FOLDER / "overnight_1gpu.py").read_text()
    shares = [re.search(rf"{name}[= ](0\.\d+)", text) for name in MEMORY_SHARES]
    assert sum(float(share[1]) for share in shares if share) == pytest.approx(0.9)

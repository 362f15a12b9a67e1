"""Policies that suit any model, and a fixed cost that is native's on the mean."""

import dataclasses
import random

import pytest

from mres_jax.evaluation.plan import make_plan, matching_tokens
from mres_jax.evaluation.trials import NO_PICTURE
from mres_jax.geometry import Size
from mres_jax.resolution.cost import native_visual_tokens, visual_tokens
from mres_jax.resolution.policies import check_policy, parse_policy
from mres_jax.testing.tiny import tiny_qwen2_vl

SPEC = dataclasses.replace(tiny_qwen2_vl().spec, patch_size=8, merge_size=2, max_pixels=768**2)


@pytest.mark.parametrize(
    ("patch_size", "max_pixels", "side"),
    [(8, 768**2, 256), (14, 768**2, 252), (14, 100**2, 84), (16, 768**2, 256)],
)
def test_the_policies_suit_models_with_any_visual_token(patch_size, max_pixels, side):
    spec = dataclasses.replace(SPEC, patch_size=patch_size, max_pixels=max_pixels)
    plan = make_plan(spec, [Size(200, 300)])
    assert (plan.native, plan.squashed, plan.nothing) == ("native", f"fixed:{side}", NO_PICTURE)
    for policy in set(plan.everything) - {NO_PICTURE}:
        check_policy(parse_policy(policy), spec)


def test_every_policy_is_asked_once_and_the_curve_has_five_budgets_and_more():
    plan = make_plan(SPEC, [Size(200, 300)])
    assert len(set(plan.everything)) == len(plan.everything)
    assert set(plan.table) | set(plan.curve) == set(plan.everything)
    assert plan.budget in plan.curve
    assert len(plan.curve) >= 5


@pytest.mark.parametrize("seed", range(4))
def test_fixed_spends_at_least_what_native_does_and_hardly_more(seed):
    rng = random.Random(seed)
    sizes = [Size(rng.randint(16, 700), rng.randint(16, 700)) for _ in range(rng.choice((5, 140)))]
    wanted = native_visual_tokens(sizes, SPEC)
    tokens = matching_tokens(SPEC, sizes)

    def spent(tokens: int) -> int:
        return visual_tokens(parse_policy(f"fixed,tokens={tokens}")(sizes, "", SPEC), SPEC)

    assert spent(tokens) >= wanted > spent(tokens - 1)
    assert spent(tokens) <= 1.05 * wanted  # one picture's step of rounding where there are five

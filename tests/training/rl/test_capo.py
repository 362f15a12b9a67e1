"""CAPO against numbers computed by hand, in the released code's form and in the paper's."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mres_jax.errors import ConfigError, RunError
from mres_jax.training.rl import (
    CAPO,
    capo_advantages,
    check_rewards,
    dynamic_pivot,
    grpo_advantages,
    has_variance,
    normalise_group,
    proxy_cost,
    shaping,
    token_cost,
)

COSTS = (0.0, 0.2, 0.4, 0.6, 1.0)
# Shaping and cost pressure at the pivot 0.4, accuracy 1 or 0, three decimals: by hand.
TABLE = {
    ("code", "right"): (0.076, 0.041, -0.020, -0.081, -0.134),
    ("code", "wrong"): (-0.141, -0.105, -0.020, 0.065, 0.107),
    ("paper", "right"): (0.164, 0.128, 0.068, 0.007, -0.047),
    ("paper", "wrong"): (-0.021, -0.078, -0.183, -0.287, -0.369),
}
FORMS = {"code": CAPO(), "paper": CAPO.paper()}


def advantages(accuracy, cost, config):
    """Of answers that count as right by their accuracy alone."""
    return capo_advantages(accuracy, accuracy > 0.35, cost, config)


@pytest.mark.parametrize(("form", "answer"), TABLE)
def test_shaping_and_pressure_are_those_of_the_table(form, answer):
    config, cost = FORMS[form], jnp.array(COSTS)
    right = jnp.full(5, answer == "right")
    shaped = shaping(right.astype(jnp.float32), right, cost, jnp.full(5, 0.4), config)
    value = config.shaping_weight * shaped - config.cost_pressure * cost
    np.testing.assert_allclose(value, TABLE[form, answer], atol=5.01e-4)  # three decimals


def test_the_code_asks_a_wrong_answer_to_spend_and_the_paper_to_save():
    def slope(config, right):
        at = lambda c: shaping(  # noqa: E731
            jnp.array(float(right)), jnp.array(right), c, jnp.array(0.4), config
        )
        return config.shaping_weight * jax.grad(at)(jnp.array(0.4)) - config.cost_pressure

    # at the pivot the sigmoid has the slope 1 / (4 * 0.15): 0.25 * 1.3 / 0.6 - 0.05 = 0.4917
    assert slope(CAPO(), False) == pytest.approx(0.25 * 1.3 / 0.6 - 0.05, abs=1e-5)
    assert slope(CAPO(), True) == pytest.approx(-0.25 * 0.7 / 0.6 - 0.05, abs=1e-5)
    assert slope(CAPO.paper(), False) == pytest.approx(-0.25 * 1.3 / 0.6 - 0.05, abs=1e-5)


def test_advantages_of_one_prompt_by_hand():
    """Three allocations, two rollouts each: accuracies 1, 0.5, 0; costs 0.2, 0.4, 0.9."""
    accuracy = jnp.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    out = advantages(accuracy, jnp.array([0.2, 0.4, 0.9]), CAPO())
    pivot = 0.5 * 0.5 + 0.5 * 0.4
    deviation = math.sqrt((0.25 + 0 + 0.25) / 3)
    base = [0.5 / (deviation + 1e-6), 0.0, -0.5 / (deviation + 1e-6)]

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    shaped = [
        0.7 * (sigmoid((pivot - 0.2) / 0.15) - 0.5),
        0.7 * math.sqrt(0.5) * (sigmoid((pivot - 0.4) / 0.15) - 0.5),
        1.3 * (sigmoid((0.9 - pivot) / 0.15) - 0.5),
    ]
    total = [
        max(b + 0.25 * s - 0.05 * c, 0.001 if right else -math.inf)
        for b, s, c, right in zip(base, shaped, (0.2, 0.4, 0.9), (True, True, False), strict=True)
    ]
    assert float(out.pivot) == pytest.approx(pivot, abs=1e-6)
    np.testing.assert_allclose(out.shaping[:, 0], shaped, atol=1e-6)
    np.testing.assert_allclose(out.allocations, total, atol=2e-6)
    np.testing.assert_array_equal(out.right[:, 0], [True, True, False])


def test_the_paper_judges_each_rollout_and_the_code_each_allocation():
    accuracy = jnp.array([[1.0, 0.0], [0.0, 0.0]])
    cost = jnp.array([0.3, 0.3])
    rollouts = advantages(accuracy, cost, dataclasses.replace(CAPO(), unit="rollout"))
    allocations = advantages(accuracy, cost, CAPO())
    np.testing.assert_array_equal(rollouts.right, [[True, False], [False, False]])
    np.testing.assert_array_equal(allocations.right, [[True, True], [False, False]])  # 0.5 > 0.35
    # over all four rewards: mean 1/4, population deviation sqrt(3)/4
    np.testing.assert_allclose(
        rollouts.base, [[3**0.5, -(3**-0.5)], [-(3**-0.5), -(3**-0.5)]], rtol=1e-5
    )
    np.testing.assert_allclose(rollouts.allocations, rollouts.rollouts.mean(axis=1), rtol=1e-6)
    assert float(allocations.rollouts[0, 0]) == float(allocations.rollouts[0, 1])


@pytest.mark.parametrize("unit", ["allocation", "rollout"])
def test_what_counts_as_right_is_what_the_reward_says(unit):
    """Three answers worth 1 of 2, a letter without its seconds or seconds without their letter."""
    accuracy, cost = jnp.ones((3, 1)), jnp.array([0.1, 0.9, 0.9])
    right = jnp.array([[False], [True], [False]])
    out = capo_advantages(accuracy, right, cost, dataclasses.replace(CAPO(), unit=unit))
    np.testing.assert_array_equal(out.right, right)
    assert float(out.allocations[1]) == pytest.approx(1e-3)  # lifted by the floor of right answers
    assert (np.asarray(out.allocations)[[0, 2]] < 0).all()


@pytest.mark.parametrize(("share", "expected"), [(0.35, True), (0.5, False), (0.0, True)])
def test_an_allocation_is_right_by_the_share_of_its_right_answers(share, expected):
    accuracy = jnp.array([[0.36, 0.0], [0.34, 0.34]])  # means 0.18 and 0.34
    right = jnp.array([[True, False], [False, False]])
    out = capo_advantages(accuracy, right, jnp.zeros(2), CAPO(right_share=share))
    np.testing.assert_array_equal(out.right, [[expected, expected], [False, False]])


def test_the_released_codes_threshold_of_the_mean_is_the_share_of_right_answers():
    """Of answers that are right or not, and of any with one rollout each."""
    draw = np.random.default_rng(0)
    for accuracy in (draw.integers(0, 2, (50, 16, 5)).astype(np.float32), draw.random((50, 16, 1))):
        accuracy = jnp.asarray(accuracy, jnp.float32)
        out = advantages(accuracy, jnp.zeros((50, 16)), CAPO())
        means = accuracy.mean(axis=-1, keepdims=True)
        np.testing.assert_array_equal(out.right, jnp.broadcast_to(means > 0.35, accuracy.shape))


def test_with_one_rollout_each_both_units_agree():
    accuracy, cost = jnp.array([[1.0], [0.0], [1.0]]), jnp.array([0.1, 0.5, 0.9])
    one, other = (
        advantages(accuracy, cost, dataclasses.replace(CAPO(), unit=unit))
        for unit in ("allocation", "rollout")
    )
    np.testing.assert_allclose(one.rollouts, other.rollouts, rtol=1e-6)


def test_the_floor_holds_right_answers_above_zero_and_no_others():
    accuracy, cost = jnp.ones((4, 1)), jnp.array([0.9, 0.95, 1.0, 0.9])
    with_floor = advantages(accuracy, cost, CAPO())
    without = advantages(accuracy, cost, dataclasses.replace(CAPO(), floor=None))
    assert (np.asarray(without.allocations) < 0).all()
    np.testing.assert_allclose(with_floor.allocations, 1e-3)
    wrong = advantages(jnp.zeros((4, 1)), cost * 0.0, CAPO())
    assert (np.asarray(wrong.allocations) < 0).all()


def test_the_cap_of_the_long_runs_holds():
    config = CAPO.long_runs()
    shaped = shaping(
        jnp.ones(2), jnp.array([True, False]), jnp.array([0.0, 1.0]), jnp.full(2, 0.4), config
    )
    assert float(jnp.abs(shaped).max()) <= 0.25


def test_prompts_in_a_batch_do_not_see_each_other_and_all_of_it_compiles():
    draw = np.random.default_rng(0)
    accuracy = jnp.asarray(draw.integers(0, 2, (3, 4, 2)), jnp.float32)
    cost = jnp.asarray(draw.random((3, 4)), jnp.float32)
    together = jax.jit(advantages, static_argnums=2)(accuracy, cost, CAPO())
    for i in range(3):
        alone = advantages(accuracy[i], cost[i], CAPO())
        np.testing.assert_allclose(together.rollouts[i], alone.rollouts, atol=1e-6)


def test_cost_is_where_the_mean_scale_lies_in_the_range():
    scales = jnp.array([0.2, 1.0, 1.8, 2.5, 0.1])
    cost = proxy_cost(scales, min_scale=0.2, max_scale=1.8)
    np.testing.assert_allclose(cost, [0.0, 0.5, 1.0, 1.0, 0.0], atol=1e-6)
    # a uniform picture costs the same by its tokens as by its scale, a capped one less
    np.testing.assert_allclose(
        token_cost(jnp.array([1.0, 0.25]), min_scale=0.2, max_scale=1.8), [0.5, 0.1875], atol=1e-6
    )


def test_the_pivot_lies_between_the_groups_own_cost_and_the_fixed_one():
    cost = jnp.array([0.0, 0.2])
    assert float(dynamic_pivot(cost, CAPO())) == pytest.approx(0.25)
    assert float(dynamic_pivot(cost, CAPO(pivot_mix=0.0))) == pytest.approx(0.4)
    assert float(dynamic_pivot(cost, CAPO(pivot_mix=1.0))) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "rewards", [[1.0] * 4, [0.0] * 4, [0.3] * 4, [0.7], [1.2] * 12, [12345.6] * 12]
)
def test_a_group_that_agrees_teaches_nothing(rewards):
    group = jnp.array(rewards)
    assert not np.asarray(normalise_group(group)).any()
    assert not np.asarray(grpo_advantages(group)).any()
    assert not bool(has_variance(group))


def test_grpo_divides_by_the_unbiased_deviation():
    # mean 0.25, unbiased deviation 0.5
    advantages = grpo_advantages(jnp.array([1.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(advantages, [1.5, -0.5, -0.5, -0.5], rtol=1e-5)


def test_a_reward_that_is_no_number_is_named():
    rewards = np.array([[1.0, 0.0], [0.0, np.nan]])
    with pytest.raises(RunError, match=r"rollout 1 of prompt 'clip-9' has the reward nan"):
        check_rewards(rewards, ["clip-3", "clip-9"])
    check_rewards(rewards[:1], ["clip-3"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pivot_mix": 1.5}, "pivot_mix=1.5 must lie in 0 to 1"),
        ({"right_share": 1.5}, "right_share=1.5 must lie in 0 to 1"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"wrong_sign": "asym"}, "wrong_sign='asym' must be one of code, paper"),
        ({"wrong_power": -1.0}, "wrong_power=-1.0 must not be below 0"),
    ],
)
def test_constants_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        CAPO(**fields)

"""Where rewards lead: CAPO near the known optimum, the two naive rewards to either end."""

import jax.numpy as jnp
import numpy as np
import pytest

from mres_jax.testing.bandit import Bandit, Learning, learn

pytestmark = pytest.mark.slow

BANDIT = Bandit()


@pytest.fixture(scope="module")
def outcomes():
    """Each reward after 1,500 steps."""
    rewards = ("capo", "direct_cost", "accuracy")
    return {r: learn(BANDIT, Learning(reward=r, steps=1_500)) for r in rewards}


def test_the_best_allocation_is_between_the_ends():
    scales, utility = BANDIT.best()
    assert BANDIT.legible < scales[0] < 1.1
    for end in (BANDIT.min_scale, BANDIT.max_scale):
        assert float(BANDIT.utility(jnp.array([end]))) < 0.92 * utility


def test_capo_lands_within_five_per_cent_of_the_best(outcomes):
    assert outcomes["capo"].utility >= 0.95 * BANDIT.best()[1]
    assert outcomes["capo"].accuracy > 0.97


def test_a_direct_price_on_cost_collapses_to_the_least_scale(outcomes):
    """Where all answers agree, normalisation makes cost the only thing that counts."""
    out = outcomes["direct_cost"]
    assert out.cost < 0.1
    assert out.utility < 0.75 * BANDIT.best()[1]


def test_without_cost_the_scale_goes_to_its_largest(outcomes):
    out = outcomes["accuracy"]
    assert out.cost > 0.8
    assert out.utility < 0.95 * BANDIT.best()[1]
    assert np.isfinite(out.scales).all()

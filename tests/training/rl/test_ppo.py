"""The clipped objective against cases computed by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mres_jax.errors import ConfigError
from mres_jax.training.rl import PPO, ppo_objective

CASES = [  # ratio, advantage, gain by hand, whether a gradient flows
    (1.0, 2.0, 2.0, True),
    (1.5, 1.0, 1.28, False),  # above 1 + 0.28: clipped
    (0.5, 1.0, 0.5, True),  # a good action that became rare: not clipped
    (0.5, -1.0, -0.8, False),  # below 1 - 0.2: clipped
    (1.5, -1.0, -1.5, True),
    (12.0, -1.0, -10.0, False),  # dual clip
    (9.0, -1.0, -9.0, True),
]


def objective(ratio, advantage, mask=None, config=None):
    ratio, advantage = jnp.atleast_1d(jnp.array(ratio)), jnp.atleast_1d(jnp.array(advantage))
    mask = jnp.ones(ratio.shape, bool) if mask is None else jnp.array(mask)
    return lambda logs: ppo_objective(
        logs, jnp.zeros_like(ratio), advantage, mask, config or PPO()
    ), jnp.log(ratio)


@pytest.mark.parametrize(("ratio", "advantage", "gain", "flows"), CASES)
def test_each_case_by_hand(ratio, advantage, gain, flows):
    run, logs = objective(ratio, advantage)
    assert float(run(logs).loss) == pytest.approx(-gain, rel=1e-5)
    gradient = jax.grad(lambda x: run(x).loss)(logs)
    assert float(gradient[0]) == pytest.approx(-ratio * advantage if flows else 0.0, rel=1e-5)


def test_a_mean_is_over_decisions_that_count_whatever_stands_elsewhere():
    run, logs = objective([1.0, 1.5, 1.0], [2.0, 1.0, math.nan], [True, True, False])
    logs = logs.at[2].set(jnp.nan)
    out = run(logs)
    assert float(out.loss) == pytest.approx(-(2.0 + 1.28) / 2)
    assert float(out.clip_fraction) == pytest.approx(0.5)
    assert np.isfinite(np.asarray(jax.grad(lambda x: run(x).loss)(logs))).all()


def test_on_policy_the_gradient_is_that_of_the_plain_policy_gradient():
    advantages = jnp.array([1.0, -2.0, 0.5])
    run, logs = objective([1.0, 1.0, 1.0], advantages)
    np.testing.assert_allclose(jax.grad(lambda x: run(x).loss)(logs), -advantages / 3, rtol=1e-6)
    assert float(run(logs).kl) == 0.0
    assert float(run(logs).ratio) == 1.0


def test_a_ratio_that_would_overflow_is_cut():
    run, _ = objective([1.0], [-1.0], config=PPO(dual_clip=None))
    assert np.isfinite(float(run(jnp.array([500.0])).loss))


def test_nothing_to_decide_is_no_loss():
    run, logs = objective([1.0], [1.0], [False])
    assert float(run(logs).loss) == 0.0


def test_limits_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"clip_low=1\.2"):
        PPO(clip_low=1.2)
    with pytest.raises(ConfigError, match=r"dual_clip=1.1 must be above 1 \+ clip_high=1.28"):
        PPO(dual_clip=1.1)

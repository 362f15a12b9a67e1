"""The Beta action against scipy in double precision, also where actions touch 0 and 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import digamma, expit

from mres_jax.errors import ConfigError
from mres_jax.resolution.allocator.beta import Beta, BetaLink, to_scale

SHAPES = [(1.0, 1.0), (2.0, 2.0), (0.1, 0.1), (0.5, 3.0), (20.0, 20.0), (20.0, 0.1), (7.3, 1.9)]
LOGITS = np.array([-60.0, -20.0, -5.0, -0.3, 0.0, 0.7, 6.0, 25.0, 60.0])


def beta(a, b, shape=()):
    return Beta(jnp.full(shape, a, jnp.float32), jnp.full(shape, b, jnp.float32))


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_log_density_is_scipys(a, b):
    here = np.abs(LOGITS) < 30  # scipy takes the action itself, which is 1.0 beyond
    expected = scipy.stats.beta(a, b).logpdf(expit(LOGITS[here]))
    found = beta(a, b, LOGITS.shape).log_density(jnp.asarray(LOGITS, jnp.float32))
    # float32: gammaln is good to a few parts in 1e6 of values up to 60
    np.testing.assert_allclose(found[here], expected, rtol=1e-5, atol=1e-4)
    assert np.isfinite(np.asarray(found)).all()


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_far_out_the_density_goes_on_as_its_power(a, b):
    """At a logit of -60 the action is 8.8e-27, in float32 below any clamp of 1e-6."""
    low, lower = beta(a, b, (2,)).log_density(jnp.array([-60.0, -61.0]))
    assert float(low - lower) == pytest.approx(a - 1, abs=2e-4)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_entropy_and_mean_are_scipys(a, b):
    reference = scipy.stats.beta(a, b)
    assert float(beta(a, b).entropy()) == pytest.approx(reference.entropy(), rel=1e-4, abs=1e-4)
    assert float(beta(a, b).mean()) == pytest.approx(reference.mean(), rel=1e-6)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_draws_have_the_distribution(a, b):
    keys = jax.random.split(jax.random.key(3), 4_000)
    logits = np.asarray(beta(a, b, (4_000,)).draw(keys), np.float64)
    assert np.isfinite(logits).all()
    # the mean of log a has a closed form and a finite spread, also where draws crowd at 0
    logs = -np.logaddexp(0, -logits)
    error = logs.std() / np.sqrt(len(logs))
    assert logs.mean() == pytest.approx(digamma(a) - digamma(a + b), abs=5 * error)
    # near 1 the share below is told from the other end, where floats are dense
    below, above = scipy.stats.beta(a, b).cdf(expit(logits)), scipy.stats.beta(b, a)
    shares = np.where(logits < 0, below, above.sf(expit(-logits)))
    assert scipy.stats.kstest(shares, "uniform").pvalue > 1e-4


def test_what_a_frame_draws_depends_on_its_key_alone():
    keys = jax.random.split(jax.random.key(0), 5)
    policy = Beta(jnp.linspace(1.0, 3.0, 5), jnp.linspace(2.0, 1.0, 5))
    alone = Beta(policy.alpha[3:4], policy.beta[3:4]).draw(keys[3:4])
    np.testing.assert_array_equal(policy.draw(keys)[3:4], alone)


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.1), (20.0, 0.1), (1.0, 1.0)])
def test_gradients_are_finite_for_every_draw(a, b):
    keys = jax.random.split(jax.random.key(1), 500)
    logits = jax.jit(Beta.draw)(beta(a, b, (500,)), keys)
    gradient = jax.jit(jax.grad(lambda p: p.log_density(logits).sum()))(beta(a, b, (500,)))
    assert all(np.isfinite(np.asarray(x)).all() for x in gradient)


@pytest.mark.slow
def test_the_gradient_of_the_log_density_has_mean_zero():
    """The identity that makes a policy gradient unbiased; it fails for clamped actions."""
    keys = jax.random.split(jax.random.key(2), 20_000)
    policy = beta(0.3, 0.6, (20_000,))
    logits = jax.jit(Beta.draw)(policy, keys)
    gradient = jax.jit(jax.grad(lambda p: p.log_density(logits).sum()))(policy)
    for part in gradient:
        values = np.asarray(part, np.float64)
        assert abs(values.mean()) < 5 * values.std() / np.sqrt(len(values))


def test_the_link_is_the_released_codes():
    scores = jnp.array([[0.0, 3.0], [-20.0, 200.0]])
    out = BetaLink()(scores)
    softplus = np.log1p(np.exp(np.array([0.0, 1.5])))
    np.testing.assert_allclose([out.alpha[0], out.beta[0]], softplus + 1, rtol=1e-5)
    np.testing.assert_allclose([out.alpha[1], out.beta[1]], [1 + 4.5e-5, 20.0], rtol=1e-5)


@pytest.mark.parametrize("link", [BetaLink(), BetaLink(offset=0.0, factor=1.0)])
def test_a_score_is_found_for_a_shape(link):
    score = link.score_of(2.0)
    np.testing.assert_allclose(link(jnp.full(2, score)).alpha, 2.0, rtol=1e-5)
    with pytest.raises(ConfigError, match=r"no score gives alpha=0.0"):
        link.score_of(0.0)


def test_scales_span_their_range():
    scales = to_scale(jnp.array([0.0, 0.5, 1.0]), min_scale=0.2, max_scale=1.8)
    np.testing.assert_allclose(scales, [0.2, 1.0, 1.8], rtol=1e-6)

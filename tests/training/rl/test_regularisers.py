"""Both forms of both terms against numbers computed by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mres_jax.training.rl import (
    Concentration,
    Similarity,
    concentration_loss,
    similarity_loss,
)

# two clips of two frames each and one of padding; the second clip's frames are at right angles
FEATURES = jnp.array([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [5.0, 5.0]])
SEGMENTS = jnp.array([1, 1, 2, 2, 0])
SCALES = jnp.array([1.0, 1.2, 0.5, 0.8, 7.0])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


WEIGHTS = [sigmoid((1 - 0.55) / 0.12), sigmoid((0 - 0.55) / 0.12)]


def test_the_paper_charges_the_product_of_neighbours():
    expected = WEIGHTS[0] * (math.log(1.2) + 1) + WEIGHTS[1] * (math.log(0.4) + 1)
    loss = similarity_loss(FEATURES, SCALES, SEGMENTS, Similarity(form="paper"))
    assert float(loss) == pytest.approx(expected / 2, rel=1e-5)


def test_the_paper_charges_nothing_below_the_free_product():
    free = Similarity(form="paper", margin=1.0)
    below = jnp.full(5, math.exp(-0.5) - 1e-4)
    assert float(similarity_loss(FEATURES, below, SEGMENTS, free)) == 0.0
    assert float(similarity_loss(FEATURES, below + 2e-4, SEGMENTS, free)) > 0.0


def test_the_code_asks_the_later_of_two_frames_to_be_smaller():
    config = Similarity(form="code")
    expected = sum(
        w * max(0.0, math.log(after / before) + 0.05 * w)
        for w, before, after in [(WEIGHTS[0], 1.0, 1.2), (WEIGHTS[1], 0.5, 0.8)]
    )
    assert float(similarity_loss(FEATURES, SCALES, SEGMENTS, config)) == pytest.approx(
        expected / 2, rel=1e-5
    )
    gradient = jax.grad(lambda s: similarity_loss(FEATURES, s, SEGMENTS, config))(SCALES)
    assert gradient[0] < 0 < gradient[1]
    assert float(gradient[4]) == 0.0  # padding


def test_no_pair_is_no_loss():
    alone = jnp.array([1, 2, 3, 0, 0])
    for form in ("paper", "code"):
        assert float(similarity_loss(FEATURES, SCALES, alone, Similarity(form=form))) == 0.0


def test_a_frame_of_zeros_is_like_no_other_and_gives_no_nan():
    zeros = jnp.zeros((5, 2))
    loss, gradient = jax.value_and_grad(similarity_loss)(zeros, SCALES, SEGMENTS, Similarity())
    assert np.isfinite(float(loss))
    assert np.isfinite(np.asarray(gradient)).all()


def test_concentration_by_hand():
    alpha, beta = jnp.array([2.0, 15.0, 1.0, 1.0, 99.0]), jnp.array([3.0, 10.0, 1.0, 1.0, 99.0])
    code = concentration_loss(alpha, beta, SEGMENTS, Concentration())
    paper = concentration_loss(alpha, beta, SEGMENTS, Concentration(form="paper", cap=20.0))
    assert float(code) == pytest.approx((5 + 25 + 2 + 2) / 4)
    assert float(paper) == pytest.approx(5 / 4)

"""Laws of the distribution that tokens are drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mres_jax.inference import sampling as draws
from mres_jax.protocols import Sampling

V = 37
NOTHING = np.zeros(V, bool)
apply_knobs = jax.jit(draws.apply_knobs, static_argnames="filtered")
token_logprobs = jax.jit(draws.token_logprobs)
draw_tokens = jax.jit(draws.draw_tokens, static_argnames=("greedy", "filtered"))


def process(logits, sampling, forbidden):
    """`processed_logits` as the sampler calls it: one compile for all numbers."""
    knobs, forbidden = draws.Knobs.of(sampling), jnp.asarray(forbidden)
    return apply_knobs(logits, knobs, forbidden, filtered=draws.is_filtered(sampling))


def scores(seed, rows=5, spread=3.0):
    return np.random.default_rng(seed).normal(0, spread, (rows, V)).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def kept_by_definition(row, temperature, top_k, top_p):
    """Fan et al. then Holtzman et al., token by token in Python floats."""
    row = row.astype(np.float64) / temperature
    order = sorted(range(V), key=lambda i: -row[i])
    if top_k:
        order = order[:top_k]
    if top_p < 1:
        probabilities = softmax(row[order])
        mass, kept = 0.0, []
        for token, p in zip(order, probabilities, strict=True):
            kept.append(token)
            mass += p
            if mass >= top_p:
                break
        order = kept
    return set(order)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.2, 5.0),
    top_k=st.integers(0, V + 3),
    top_p=st.floats(0.01, 1.0),
)
def test_filters_keep_what_their_definitions_keep(seed, temperature, top_k, top_p):
    logits = scores(seed)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    processed = np.asarray(process(jnp.asarray(logits), sampling, NOTHING))
    for row, out in zip(logits, processed, strict=True):
        kept = set(np.flatnonzero(np.isfinite(out)))
        # Sums of 37 float32 probabilities are exact to 1e-5; the sets grow with top_p.
        assert kept >= kept_by_definition(row, temperature, top_k, top_p - 1e-5)
        assert kept <= kept_by_definition(row, temperature, top_k, top_p + 1e-5)
        shifted = (row - row.max()) / temperature
        np.testing.assert_allclose(out[sorted(kept)], shifted[sorted(kept)], rtol=1e-5)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), top_p=st.floats(0.01, 1.0), temperature=st.floats(0.0, 5.0))
def test_probabilities_of_kept_tokens_sum_to_one(seed, top_p, temperature):
    sampling = Sampling(temperature=temperature, top_p=top_p)
    forbidden = np.arange(V) % 5 == 0
    processed = process(jnp.asarray(scores(seed, rows=1)), sampling, forbidden)
    everything = jnp.broadcast_to(processed, (V, V))
    logprobs, entropies = token_logprobs(everything, jnp.arange(V))
    assert np.exp(np.asarray(logprobs)).sum() == pytest.approx(1.0, abs=1e-5)
    assert np.isneginf(np.asarray(logprobs)[forbidden]).all()
    p = softmax(np.asarray(processed[0], np.float64))
    expected = -(p[p > 0] * np.log(p[p > 0])).sum()
    assert float(entropies[0]) == pytest.approx(expected, abs=1e-5)


def test_the_entropy_of_even_odds_is_the_log_of_their_number():
    even = draws.processed_logits(jnp.zeros((1, V)), Sampling(temperature=2.0), np.arange(V) >= 8)
    logprobs, entropies = draws.token_logprobs(even, jnp.zeros(1, jnp.int32))
    assert float(entropies[0]) == pytest.approx(np.log(8), rel=1e-6)
    assert float(logprobs[0]) == pytest.approx(-np.log(8), rel=1e-6)


def test_tokens_that_tie_with_the_last_kept_one_are_kept():
    logits = jnp.array([[2.0, 1.0, 1.0, 0.0]])
    allowed = np.zeros(4, bool)
    for sampling in (Sampling(temperature=1.0, top_k=2), Sampling(temperature=1.0, top_p=0.7)):
        kept = np.isfinite(np.asarray(process(logits, sampling, allowed)[0]))
        assert kept.tolist() == [True, True, True, False]


def test_greedy_takes_the_best_allowed_token_and_ignores_the_rest():
    logits = scores(3)
    forbidden = np.zeros(V, bool)
    forbidden[logits.argmax(axis=1)] = True
    sampling = Sampling(temperature=0.0, top_k=1, top_p=0.1)
    drawn = draw(logits, jax.random.split(jax.random.key(0), 5), sampling, forbidden)
    expected = np.where(forbidden, -np.inf, logits)
    assert np.asarray(drawn.tokens).tolist() == expected.argmax(axis=1).tolist()
    # The probability of the mode at temperature 1, not the 1 of a draw without choice.
    logprobs = [np.log(softmax(row.astype(np.float64)).max()) for row in expected]
    np.testing.assert_allclose(np.asarray(drawn.logprobs), logprobs, rtol=1e-5)


def test_forbidden_tokens_are_never_drawn_however_hot():
    forbidden = draws.forbidden_mask((0, 7, V - 1, V + 100), V)  # one id beyond the vocabulary
    logits = np.zeros((20_000, V), np.float32)
    logits[:, 7] = 100.0  # as if the model insisted
    sampling = Sampling(temperature=1e4, top_p=0.999)
    drawn = draw(logits, jax.random.split(jax.random.key(1), len(logits)), sampling, forbidden)
    tokens = np.asarray(drawn.tokens)
    assert not forbidden[tokens].any()
    assert len(np.unique(tokens)) == V - 3


def test_draws_are_as_frequent_as_their_log_probabilities_say():
    many = 20_000
    logits = np.repeat(scores(5, rows=1, spread=1.0), many, axis=0)
    sampling = Sampling(temperature=0.7, top_k=9)
    drawn = draw(logits, jax.random.split(jax.random.key(2), many), sampling, NOTHING)
    tokens, logprobs = np.asarray(drawn.tokens), np.asarray(drawn.logprobs)
    for token in np.unique(tokens):
        p = float(np.exp(logprobs[tokens == token][0]))
        deviation = np.sqrt(p * (1 - p) / many)
        assert (tokens == token).mean() == pytest.approx(p, abs=5 * deviation)
    assert len(np.unique(tokens)) == 9


def test_keys_belong_to_request_sample_and_step_and_not_to_a_row():
    names = ["a", "b", "c", "a"]
    samples = np.array([0, 0, 0, 1], np.uint32)
    order = np.array([2, 0, 3, 1])
    step = jnp.int32(3)
    keys = [data(draws.step_keys(row_keys(names, samples), step))]
    shuffled = row_keys([names[i] for i in order], samples[order])
    assert np.array_equal(data(draws.step_keys(shuffled, step)), keys[0][order])
    assert len(np.unique(keys[0], axis=0)) == 4
    assert not np.array_equal(data(draws.step_keys(row_keys(names, samples), step + 1)), keys[0])
    assert not np.array_equal(
        data(row_keys(names, samples, seed=1)), data(row_keys(names, samples))
    )


def test_the_words_of_a_request_are_the_same_on_every_machine():
    assert draws.request_words("invoice-7") == (1_845_739_361, 2_863_056_600)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.8, top_k=7), Sampling(temperature=0)])
def test_a_learner_gets_finite_gradients_through_removed_tokens(sampling):
    forbidden = np.arange(V) < 4

    def loss(logits):
        processed = draws.processed_logits(logits, sampling, forbidden)
        logprobs, entropies = draws.token_logprobs(processed, jnp.argmax(processed, axis=-1))
        return (logprobs + entropies).sum()

    gradient = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(scores(8))))
    assert np.isfinite(gradient).all()
    assert (gradient[:, forbidden] == 0).all()
    assert (gradient != 0).any()


def test_a_learner_recomputes_the_log_probabilities_of_the_sampler():
    sampling = Sampling(temperature=0.6, top_p=0.8, top_k=20)
    logits = scores(9, rows=64)
    drawn = draw(logits, jax.random.split(jax.random.key(4), 64), sampling, NOTHING)
    learner = jax.jit(lambda x: draws.processed_logits(x, sampling, NOTHING))
    logprobs, entropies = token_logprobs(learner(jnp.asarray(logits)), drawn.tokens)
    # The sampler divides by a traced temperature, the learner by a constant: one rounding apart.
    np.testing.assert_allclose(np.asarray(logprobs), np.asarray(drawn.logprobs), atol=1e-5)
    np.testing.assert_allclose(np.asarray(entropies), np.asarray(drawn.entropies), atol=1e-5)


def draw(logits, keys, sampling, forbidden):
    return draw_tokens(
        jnp.asarray(logits),
        keys,
        draws.Knobs.of(sampling),
        jnp.asarray(forbidden),
        greedy=sampling.temperature == 0,
        filtered=draws.is_filtered(sampling),
    )


def row_keys(names, samples, seed=0):
    words = np.array([draws.request_words(name) for name in names], np.uint32)
    return draws.row_keys(jax.random.key(seed), jnp.asarray(words), jnp.asarray(samples))


def data(keys):
    return np.asarray(jax.random.key_data(keys))

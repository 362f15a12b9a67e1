"""What is summed and what is left out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mres_jax import testing
from mres_jax.training.losses import PatchHeads, next_token_sums

WIDTH, ROWS = 12, 40


def make_tokens(count: int = 29, *, share: float = 0.4):
    """Hidden states, targets, and a mask of about `share` of them."""
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(count, WIDTH)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, ROWS, count), jnp.int32)
    return hidden, targets, jnp.asarray(rng.random(count) < share)


def table() -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(WIDTH, ROWS)), jnp.float32)


def test_the_sums_are_over_masked_positions_alone():
    hidden, targets, mask = make_tokens()
    logits = hidden @ table()
    each = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    right = np.asarray(logits).argmax(-1) == np.asarray(targets)
    for chunk in (None, 1, 7, 100):
        sums = next_token_sums(lambda x: x @ table(), hidden, targets, mask, chunk=chunk)
        assert sums.nll == pytest.approx(float(each[mask].sum()), rel=1e-6)
        assert sums.right == float(right[np.asarray(mask)].sum())
    wild = hidden.at[~mask].set(1e6)
    whole = next_token_sums(lambda x: x @ table(), hidden, targets, mask)
    assert next_token_sums(lambda x: x @ table(), wild, targets, mask).nll == whole.nll


@pytest.mark.parametrize("chunk", [None, 2])
def test_no_masked_position_gives_zero_not_nan(chunk):
    hidden, targets, mask = make_tokens(5, share=0.0)

    def loss(hidden):
        return next_token_sums(lambda x: x @ table(), hidden, targets, mask, chunk=chunk).nll

    value, gradient = jax.value_and_grad(loss)(hidden)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_chunks_have_the_gradients_of_the_whole(tied):
    hidden, targets, mask = make_tokens()
    linear = testing.fill(lambda: nnx.Linear(WIDTH, ROWS, use_bias=False, rngs=nnx.Rngs(0)))
    embed = testing.fill(lambda: nnx.Embed(ROWS, WIDTH, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(embed if tied else linear)

    def loss(state, hidden, chunk):
        module = nnx.merge(graphdef, state)
        head = module.attend if tied else module
        return next_token_sums(head, hidden, targets, mask, chunk=chunk).nll

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)
    plain = gradient(state, hidden, None)
    for chunk in (1, 7, 14):  # 29 positions: a last chunk filled up, chunks that are skipped
        cut = gradient(state, hidden, chunk)
        for one, other in zip(jax.tree.leaves(cut), jax.tree.leaves(plain), strict=True):
            # 12 products a score, 12 loss tokens a sum: a few roundings of 6e-8 of the largest
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * jnp.abs(other).max())


def test_chunks_without_loss_tokens_are_not_scored():
    hidden, targets, mask = make_tokens(32, share=0.3)
    scored = []

    def head(x):
        jax.debug.callback(lambda: scored.append(1))
        return x @ table()

    jax.jit(lambda x: next_token_sums(head, x, targets, mask, chunk=4))(hidden)
    jax.effects_barrier()
    assert len(scored) == -(-int(mask.sum()) // 4) < 8


@pytest.fixture
def heads():
    graphdef, state = nnx.split(PatchHeads(8, {"char": 5, "key": 3}, rngs=nnx.Rngs(0)))
    return jax.jit(lambda features, labels: nnx.merge(graphdef, state)(features, labels))


def make_case(patches: int = 12, width: int = 8):
    rng = np.random.default_rng(1)
    features = jnp.asarray(rng.normal(size=(patches, width)), jnp.float32)
    labels = {"char": rng.integers(0, 5, patches), "key": rng.integers(0, 3, patches)}
    return features, {name: jnp.asarray(x, jnp.int32) for name, x in labels.items()}


def test_unlabelled_patches_count_nowhere(heads):
    features, labels = make_case()
    ignored = {name: x.at[:4].set(-1) for name, x in labels.items()}
    total, accuracy = heads(features, ignored)
    kept, kept_accuracy = heads(features[4:], {name: x[4:] for name, x in labels.items()})
    assert total == pytest.approx(float(kept), rel=1e-6)
    assert {name: float(x) for name, x in accuracy.items()} == pytest.approx(
        {name: float(x) for name, x in kept_accuracy.items()}
    )
    gradient = jax.grad(lambda x: heads(x, ignored)[0])(features)
    assert not gradient[:4].any()
    assert gradient[4:].any()


def test_longer_features_do_not_lower_the_loss(heads):
    features, labels = make_case()
    total, _ = heads(features, labels)
    assert heads(1_000.0 * features, labels)[0] == pytest.approx(float(total), rel=1e-4)


def test_a_visual_token_names_each_of_its_patches_in_block_order():
    heads = PatchHeads(8, {"char": 5}, patches=4, rngs=nnx.Rngs(0))
    features, labels = make_case(patches=3)
    total, _ = heads(features, {"char": jnp.tile(labels["char"], 4)})
    linear = heads.heads["char"]
    unit = features / jnp.sqrt(jnp.square(features).mean(-1, keepdims=True) + 1e-6)
    logits = linear(unit).reshape(12, 5)  # 3 tokens of 4 patches
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.tile(labels["char"], 4))
    glyph = jnp.tile(labels["char"], 4) > 0
    expected = nll[glyph].mean() + 0.2 * nll[~glyph].mean()
    assert total == pytest.approx(float(expected), rel=1e-5)

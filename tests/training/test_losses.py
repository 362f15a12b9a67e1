"""What is summed and what is left out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mres_jax.training.losses import PatchHeads, next_token_loss


def test_the_loss_is_the_mean_over_masked_positions_alone():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
    targets = jnp.asarray([0, 4, 2, 2, 1, 3])
    mask = jnp.asarray([True, False, True, True, False, False])
    loss, metrics = next_token_loss(logits, targets, mask)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    assert loss == pytest.approx(float(each[mask].mean()), rel=1e-6)
    right = np.asarray(logits).argmax(-1) == np.asarray(targets)
    assert metrics["accuracy"] == pytest.approx(right[np.asarray(mask)].mean())
    wild = logits.at[1].set(1e6)
    assert next_token_loss(wild, targets, mask)[0] == loss


def test_no_masked_position_gives_zero_not_nan():
    loss, _ = next_token_loss(jnp.zeros((3, 4)), jnp.zeros(3, jnp.int32), jnp.zeros(3, bool))
    assert loss == 0.0


@pytest.fixture
def heads() -> PatchHeads:
    return PatchHeads(8, {"char": 5, "key": 3}, rngs=nnx.Rngs(0))


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

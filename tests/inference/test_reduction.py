"""Token reduction behind the encoder: what is left, where it stands, and what it costs."""

import jax.numpy as jnp
import numpy as np
import pytest

from mres_jax import nn
from mres_jax.data.types import TEXT, Pack
from mres_jax.errors import ConfigError
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.reduction import METHODS, TokenReduction, without
from mres_jax.models.tower import Visual
from mres_jax.protocols import Request
from mres_jax.testing import tiny_qwen2_vl

COUNTS = (5, 3)  # visual tokens of two prompts, each with a text token before and behind them
LENGTH = 16


@pytest.fixture
def pack():
    index = [TEXT, *range(5), TEXT, TEXT, *range(5, 8), TEXT]
    owner = [1] * 7 + [2] * 5
    places = [*range(7), *range(5)]

    def padded(values, fill=0):
        return np.array(values + [fill] * (LENGTH - len(values)), np.int32)

    empty = np.zeros(0, np.int32)
    fields = dict.fromkeys(Pack._fields, empty) | {
        "tokens": padded([100 + i for i in range(12)]),
        "segment_ids": padded(owner),
        "positions": np.tile(padded(places), (3, 1)),
        "visual_index": padded(index, TEXT),
        "targets": padded([0] * 12),
        "loss_mask": np.zeros(LENGTH, bool),
        "patch_labels": {},
    }
    return Pack(**fields)


def test_a_pack_without_some_visual_tokens_keeps_text_order_and_positions(pack):
    left = without(pack, np.array([1, 4, 5]))
    np.testing.assert_array_equal(left.tokens[:7], [100, 102, 105, 106, 107, 108, 111])
    np.testing.assert_array_equal(left.segment_ids[:8], [1, 1, 1, 1, 2, 2, 2, 0])
    np.testing.assert_array_equal(left.positions[:, :7], [[0, 2, 5, 6, 0, 1, 4]] * 3)
    np.testing.assert_array_equal(left.visual_index[:7], [TEXT, 1, 4, TEXT, TEXT, 5, TEXT])
    assert (left.visual_index[7:] == TEXT).all()
    assert {len(x) for x in (left.tokens, left.segment_ids, left.loss_mask)} == {LENGTH}


@pytest.mark.parametrize("method", METHODS)
def test_each_prompt_keeps_its_share_and_with_all_of_it_nothing_changes(method, pack):
    draw = np.random.default_rng(0)
    visual = Visual(jnp.asarray(draw.normal(size=(10, 4)), jnp.float32))  # two of padding
    whole = TokenReduction(method=method, retention=1.0)(pack, visual)
    np.testing.assert_array_equal(whole[0].tokens, pack.tokens)
    np.testing.assert_allclose(whole[1].tokens[:8], visual.tokens[:8], atol=1e-6)
    half, tokens = TokenReduction(method=method, retention=0.5)(pack, visual)
    counts = np.bincount(half.segment_ids[half.visual_index >= 0], minlength=3)[1:]
    np.testing.assert_array_equal(counts, [2, 1])  # halves of 5 and 3, rounded down
    assert np.isfinite(tokens.tokens).all()


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"no method 'tom'.*tome"):
        TokenReduction(method="tom", retention=0.5)
    with pytest.raises(ConfigError, match="retention=0"):
        TokenReduction(method="tome", retention=0)
    assert TokenReduction(method="tome", retention=0.01).keep(5) == 1
    assert TokenReduction(method="tome", retention=0.01).keep(0) == 0


def test_received_attention_is_the_mean_of_a_softmax_inside_each_item():
    draw = np.random.default_rng(1)
    features = np.asarray(draw.normal(size=(6, 3)), np.float32)
    ids = np.array([1, 1, 1, 2, 2, 0], np.int32)
    found = np.asarray(nn.received_attention(jnp.asarray(features), jnp.asarray(ids)))
    for rows in (slice(0, 3), slice(3, 5)):
        scores = np.exp(features[rows] @ features[rows].T / np.sqrt(3))
        expected = (scores / scores.sum(axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(found[rows], expected, rtol=1e-5)
    assert found[5] == 0


@pytest.mark.slow
def test_answers_with_all_tokens_are_those_without_reduction_and_cost_what_is_left():
    tiny = tiny_qwen2_vl()
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    request = Request(id="q", images=[image], question="what is red")

    def ask(reduction):
        answerer = LocalAnswerer(
            tiny.model, tiny.spec, tiny.tokenizer, policy="native", reduction=reduction
        )
        return answerer.answer([request])[0][0]

    plain, whole = ask(None), ask(TokenReduction(method="tome", retention=1.0))
    assert whole.token_ids == plain.token_ids
    assert whole.cost.visual_tokens == plain.cost.visual_tokens == 24
    less = ask(TokenReduction(method="tome", retention=0.25))
    assert less.cost.visual_tokens == 6
    assert less.cost.retention_ratio == pytest.approx(0.25)
    assert less.cost.flops < plain.cost.flops

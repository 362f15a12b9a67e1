"""Heads that start out looking at a neighbour look there."""

import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from flax import nnx

from mres_jax import nn
from mres_jax.models.nativeres_llava.presets import mres_tiny
from mres_jax.models.qwen2_vl.model import VisionTower
from mres_jax.training.initial import CROSS, init_local_attention

ROWS, COLUMNS = 9, 21


@pytest.fixture
def tower() -> VisionTower:
    return VisionTower(mres_tiny().vision_config, rngs=nnx.Rngs(0))


def attention(tower: VisionTower, layer: int) -> np.ndarray:
    """Softmax weights `[h p p]` of one layer over a grid of random patches."""
    config = tower.config
    grid = np.stack(np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij"), -1)
    rotary = nn.vision_rotary(jnp.asarray(grid.reshape(-1, 2)), head_dim=config.head_dim)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(ROWS * COLUMNS, config.embed_dim)))
    linear = tower.blocks.attn.qkv
    assert linear.bias is not None
    qkv = x.astype(jnp.float32) @ linear.kernel[...][layer] + linear.bias[...][layer][None]
    q, k, _ = rearrange(qkv, "p (n h k) -> n p h k", n=3, h=config.num_heads)
    q, k = nn.apply_rotary(q, rotary), nn.apply_rotary(k, rotary)
    scores = np.einsum("phk,qhk->hpq", q, k) / np.sqrt(config.head_dim)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_each_head_puts_most_weight_on_its_neighbour(tower):
    before = attention(tower, 0)
    init_local_attention(tower)
    inside = [(r, c) for r in range(1, ROWS - 1) for c in range(1, COLUMNS - 1)]
    for layer in (0, 1):
        weights = attention(tower, layer)
        for head, (down, right) in enumerate(CROSS):
            here = [r * COLUMNS + c for r, c in inside]
            there = [(r + down) * COLUMNS + c + right for r, c in inside]
            assert weights[head, here, there].min() > 0.5
            assert before[head, here, there].mean() < 0.1


def test_upper_layers_and_values_stay_as_they_were(tower):
    linear = tower.blocks.attn.qkv
    kernel, bias = np.array(linear.kernel[...]), np.array(linear.bias[...])
    init_local_attention(tower)
    width = tower.config.embed_dim
    np.testing.assert_array_equal(linear.kernel[...][2:], kernel[2:])
    np.testing.assert_array_equal(linear.bias[...][2:], bias[2:])
    np.testing.assert_array_equal(linear.kernel[...][..., 2 * width :], kernel[..., 2 * width :])
    np.testing.assert_array_equal(linear.bias[...][..., 2 * width :], bias[..., 2 * width :])


def test_a_head_without_an_offset_is_left_alone(tower):
    kernel = np.array(tower.blocks.attn.qkv.kernel[...])
    init_local_attention(tower, [[None] * 4, [None] * 4, [None, (0, 2), None, None], [None] * 4])
    changed = np.asarray(tower.blocks.attn.qkv.kernel[...]) != kernel
    assert not changed[[0, 1, 3]].any()
    assert changed[2].any()

"""Heads that share keys and values."""

import jax.numpy as jnp
import numpy as np
import pytest
from einops import repeat
from flax import nnx

from mres_jax import nn, ops

SIZE, HEADS, GROUPS, HEAD, LENGTH = 24, 6, 2, 8, 16


def random(*shape: int, seed: int = 0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def attention(num_kv_heads: int) -> nn.DecoderAttention:
    return nn.DecoderAttention(
        SIZE,
        num_heads=HEADS,
        num_kv_heads=num_kv_heads,
        head_dim=HEAD,
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )


def wide(x, axis: str):
    """Each head of keys or values repeated for all query heads that read it."""
    return repeat(x, f"{axis} (g k) -> {axis} (g n k)", g=GROUPS, n=HEADS // GROUPS)


@pytest.fixture(scope="module")
def pair() -> tuple[nn.DecoderAttention, nn.DecoderAttention]:
    """Shared heads, and the same heads written out."""
    grouped, full = attention(GROUPS), attention(HEADS)
    for i, name in enumerate(("k", "v")):
        source, target = getattr(grouped, name), getattr(full, name)
        source.bias[...] = random(*source.bias.shape, seed=i)
        target.kernel[...] = wide(source.kernel[...], "e")
        target.bias[...] = wide(source.bias[...][None], "e")[0]
    return grouped, full


def rotary(length: int) -> nn.Rotary:
    positions = jnp.tile(jnp.arange(length, dtype=jnp.int32)[None], (3, 1))
    return nn.decoder_rotary(positions, head_dim=HEAD, theta=100.0)


def assert_close(one, other):
    """Float32 sums of 24 products, which a compiler may take in another order."""
    np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


def test_grouped_queries_attend_as_with_repeated_keys_and_values(pair):
    x = random(LENGTH, SIZE)
    plan = ops.make_plan(np.repeat([1, 2, 0], [9, 5, 2]).astype(np.int32), causal=True)
    (one, (keys, _)), (other, (all_keys, _)) = (
        nnx.jit(lambda m: m(x, rotary(LENGTH), plan))(m) for m in pair
    )
    assert_close(one, other)
    assert_close(np.repeat(keys, HEADS // GROUPS, axis=1), all_keys)


def test_grouped_queries_decode_as_with_repeated_keys_and_values(pair):
    x, keys, values = random(3, SIZE), random(3, GROUPS, 7, HEAD), random(3, GROUPS, 7, HEAD)
    lengths = jnp.array([0, 4, 7], jnp.int32)
    outs = []
    for module in pair:
        times = 1 if module is pair[0] else HEADS // GROUPS
        cache = nn.KVCache(*([jnp.repeat(c, times, axis=1)] for c in (keys, values)), lengths)
        outs.append(nnx.jit(lambda m, c: m.decode(x, rotary(3), c, 0)[0])(module, cache))
    assert_close(*outs)

"""Laws of the way from a packed prefill to the rows of a cache."""

import jax.numpy as jnp
import numpy as np

from mres_jax.nn import KVCache


def packed(length=10, layers=2, heads=2, width=3):
    shape = (layers, length, heads, width)
    keys = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return keys, -keys


def test_each_row_holds_its_prompt_and_zeros_behind_it():
    keys, values = packed()
    starts, lengths = np.array([4, 0, 7, 0], np.int32), np.array([3, 4, 3, 0], np.int32)
    cache = KVCache.of_pack(*map(jnp.asarray, (keys, values, starts, lengths)), max_len=6)
    assert cache.lengths.tolist() == lengths.tolist()
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        for held, source in ((cache.keys, keys), (cache.values, values)):
            prompt = source[:, start : start + length].swapaxes(1, 2)
            assert np.array_equal(held[:, row, :, :length], prompt)
            assert not np.any(held[:, row, :, length:])


def test_rows_that_share_a_prompt_hold_equal_copies():
    keys, values = packed()
    starts, lengths = jnp.array([4, 4, 0]), jnp.array([5, 5, 4])
    cache = KVCache.of_pack(jnp.asarray(keys), jnp.asarray(values), starts, lengths, max_len=8)
    assert np.array_equal(cache.keys[:, 0], cache.keys[:, 1])
    assert np.array_equal(cache.values[:, 0], cache.values[:, 1])


def test_a_neighbour_that_is_not_finite_does_not_reach_a_row():
    keys, values = packed()
    values[:, 4:] = np.nan
    cache = KVCache.of_pack(
        jnp.asarray(keys), jnp.asarray(values), jnp.array([0]), jnp.array([4]), max_len=8
    )
    assert np.isfinite(np.asarray(cache.values)).all()


def test_layers_apart_hold_and_take_what_the_stack_does():
    keys, values = map(jnp.asarray, packed(layers=3))
    starts, lengths = jnp.array([4, 0]), jnp.array([3, 5])
    stack, apart = (
        KVCache.of_pack(keys, values, starts, lengths, max_len=8, apart=apart)
        for apart in (False, True)
    )
    for _ in range(2):
        assert isinstance(apart.keys, list)
        assert np.array_equal(jnp.stack(apart.keys), stack.keys)
        assert np.array_equal(jnp.stack(apart.values), stack.values)
        assert np.array_equal(apart.lengths, stack.lengths)
        new = keys[:, 2:4] + 100, values[:, 2:4] - 100
        stack, apart = stack.extended(*new), apart.extended(*new)
    assert np.array_equal(stack.keys[:, 1, :, 6], new[0][:, 1])

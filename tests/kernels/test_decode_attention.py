"""One suite over all implementations; the TPU kernel by interpretation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax.experimental.pallas import tpu as pltpu
from mres_kernels import decode_attention, extend_cache
from mres_kernels.decode_attention import cache, pallas_tpu, reference, xla
from mres_kernels.decode_attention._checks import check, check_extension

MAX_LEN, BLOCK = 256, 128
TOLERANCE = {"float32": 3e-6, "bfloat16": 1e-2}  # as in test_varlen_attention
KERNELS = {
    "xla": xla.decode_attention,
    "pallas_tpu": functools.partial(pallas_tpu.decode_attention, block=BLOCK, interpret=True),
}
EVERY = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def inputs(rows=3, new=1, heads=(4, 2), width=16, dtype="float32", seed=0):
    """q, new keys and values, cached keys and values."""
    h, g = heads
    draw = np.random.default_rng(seed)
    shapes = (new, h), (new, g), (new, g), (g, MAX_LEN), (g, MAX_LEN)
    arrays = [draw.standard_normal((rows, *shape, width), np.float32) for shape in shapes]
    return [jnp.asarray(x).astype(dtype) for x in arrays]


@functools.cache
def _compiled(kernel, scale):
    return jax.jit(functools.partial(kernel, scale=scale))


def assert_is_reference(kernel, arrays, lengths, dtype):
    scale = arrays[0].shape[-1] ** -0.5
    got = _compiled(kernel, scale)(*arrays, jnp.asarray(lengths, jnp.int32))
    assert got.dtype == dtype
    want = reference.decode_attention(*arrays, lengths, scale=scale)
    assert np.abs(np.asarray(got, np.float64) - want).max() <= TOLERANCE[dtype]


@EVERY
@pytest.mark.parametrize(
    ("new", "heads", "width", "dtype"),
    [(1, (4, 2), 16, "float32"), (3, (6, 2), 72, "float32"), (1, (2, 2), 128, "bfloat16")],
    ids=["one", "three", "bfloat16"],
)
def test_every_implementation_is_the_reference(kernel, new, heads, width, dtype):
    arrays = inputs(new=new, heads=heads, width=width, dtype=dtype, rows=5)
    assert_is_reference(kernel, arrays, [0, 1, BLOCK, BLOCK + 1, MAX_LEN], dtype)


@EVERY
@settings(max_examples=8)
@given(lengths=st.lists(st.integers(0, MAX_LEN), min_size=3, max_size=3), seed=st.integers(0, 99))
def test_any_lengths_are_the_reference(kernel, lengths, seed):
    assert_is_reference(kernel, inputs(seed=seed), lengths, "float32")


@EVERY
@pytest.mark.parametrize("layer", [0, 2])
def test_of_a_cache_of_several_layers_one_is_read(kernel, layer):
    q, new_keys, new_values, keys, values = inputs()
    others = [jnp.full_like(x, jnp.nan) for x in (keys, values)]
    keys, values = (
        jnp.stack([mine if i == layer else other for i in range(3)])
        for mine, other in zip((keys, values), others, strict=True)
    )
    lengths = jnp.array([0, 100, MAX_LEN])
    step = jax.jit(functools.partial(kernel, scale=0.3))
    arrays = q, new_keys, new_values
    alone = step(*arrays, keys[layer], values[layer], lengths)
    one = step(*arrays, keys, values, lengths, layer=jnp.int32(layer))
    np.testing.assert_array_equal(one, alone)


@EVERY
def test_what_lies_behind_a_row_changes_nothing(kernel):
    q, new_keys, new_values, keys, values = inputs()
    lengths = jnp.array([0, 100, 200])
    behind = (jnp.arange(MAX_LEN)[None] >= lengths[:, None])[:, None, :, None]
    step = jax.jit(functools.partial(kernel, scale=0.3))
    clean = step(q, new_keys, new_values, keys, values, lengths)
    keys, values = (jnp.where(behind, 1e30, x) for x in (keys, values))
    np.testing.assert_array_equal(clean, step(q, new_keys, new_values, keys, values, lengths))


@EVERY
def test_a_row_cannot_be_told_from_its_neighbours(kernel):
    arrays, lengths = inputs(), jnp.array([50, 100, 200])
    step = jax.jit(functools.partial(kernel, scale=0.3))
    clean = step(*arrays, lengths)
    spoiled = step(*(x.at[0].set(np.nan) for x in arrays), lengths)
    np.testing.assert_array_equal(clean[1:], spoiled[1:])


@EVERY
def test_several_new_tokens_are_one_after_the_other(kernel):
    q, new_keys, new_values, keys, values = inputs(new=3)
    lengths = jnp.array([0, 100, 250])
    step = jax.jit(functools.partial(kernel, scale=0.3))
    together = step(q, new_keys, new_values, keys, values, lengths)
    rows = jnp.arange(3)
    for j in range(3):
        one = (x[:, j : j + 1] for x in (q, new_keys, new_values))
        np.testing.assert_allclose(
            step(*one, keys, values, lengths + j), together[:, j : j + 1], rtol=0, atol=3e-6
        )
        keys = keys.at[rows, :, lengths + j].set(new_keys[:, j])
        values = values.at[rows, :, lengths + j].set(new_values[:, j])


def test_no_step_reads_what_another_writes_at_once(capfd):
    interpret = pltpu.InterpretParams(detect_races=True)
    kernel = functools.partial(pallas_tpu.decode_attention, block=BLOCK, interpret=interpret)
    assert_is_reference(kernel, inputs(), [3, 129, 256], "float32")
    assert "RACE DETECTED" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": (3, 2)}, r"q is \(3, 1, 3, 16\), keys \(3, 2, 256, 16\)"),
        ({"new_heads": 1}, r"new keys are \(3, 1, 1, 16\) .* must be \(3, 1, 2, 16\)"),
        ({"rows": 2}, r"3 rows, but lengths is \(2,\)"),
        ({"layer": 1}, r"keys \(3, 2, 256, 16\), .* twice \[l m g max_len k\]"),
    ],
    ids=["heads", "new", "lengths", "layer"],
)
def test_arrays_that_do_not_go_together_are_refused(change, message):
    arrays = inputs(heads=change.get("heads", (4, 2)))
    if "new_heads" in change:
        arrays[1:3] = (x[:, :, :1] for x in arrays[1:3])
    lengths = jnp.zeros(change.get("rows", 3), jnp.int32)
    with pytest.raises(ValueError, match=f"^decode_attention: .*{message}"):
        check(*arrays, lengths, change.get("layer"))


def test_a_cache_that_the_tpu_kernel_does_not_take_is_declined():
    arrays = [*inputs()[:3], *(x[:, :, :100] for x in inputs()[3:])]
    with pytest.raises(
        NotImplementedError, match=r"100 positions is no multiple of 128; make it 128"
    ):
        pallas_tpu.decode_attention(*arrays, jnp.zeros(3, jnp.int32), scale=1.0)
    with pytest.raises(NotImplementedError, match="needs a tpu, this is a cpu"):
        decode_attention(*arrays, jnp.zeros(3, jnp.int32), implementation="pallas_tpu")


@pytest.mark.parametrize("shape", [(4, 2, 8, 3), (5, 4, 2, 8, 3)], ids=["one layer", "all"])
def test_row_by_row_and_at_once_the_same_is_written(shape):
    draw = np.random.default_rng(0)
    held, new = draw.normal(size=shape), draw.normal(size=(*shape[:-2], shape[-1]))
    arrays = jnp.asarray(held), jnp.asarray(new), jnp.array([0, 7, 3, 3])
    longer = jax.jit(cache.by_row)(*arrays)
    assert np.array_equal(longer, cache.at_once(*arrays))
    assert np.array_equal(longer[..., 1, :, 7, :], arrays[1][..., 1, :, :])
    assert (np.asarray(longer) != arrays[0]).sum() == new.size
    assert np.array_equal(longer, extend_cache(*arrays))


def test_what_does_not_fit_a_cache_is_refused():
    cache, new = jnp.zeros((3, 2, 4, 128, 8)), jnp.zeros((3, 2, 4, 8))
    lengths = jnp.zeros(2, jnp.int32)
    for bad, message in (
        (
            (cache, new[:, :, :1], lengths),
            r"new is float32 \(3, 2, 1, 8\).*must be .*\(3, 2, 4, 8\)",
        ),
        ((cache, new.astype(jnp.bfloat16), lengths), "new is bfloat16 .* must be float32"),
        ((cache, new, lengths[:1]), r"2 rows, but lengths is \(1,\)"),
        ((cache[0, 0], new[0, 0], lengths), "the cache is .4, 128, 8."),
    ):
        with pytest.raises(ValueError, match=message):  # types of tests would speak first
            check_extension(*bad)
    one = jnp.zeros((2, 1, 4, 8))
    for layer in (3, -1):
        with pytest.raises(ValueError, match=f"layer={layer} of a cache of 3 layers"):
            decode_attention(one, one, one, cache, cache, lengths, layer=layer)

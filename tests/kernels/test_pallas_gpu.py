"""The GPU kernels by interpretation: numbers and laws; `kernels/aot/cuda.py` compiles them."""

import itertools
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from mres_kernels import _target
from mres_kernels.varlen_attention import (
    make_plan,
    pallas_gpu,
    pallas_triton,
    reference,
    varlen_attention,
)
from mres_kernels.varlen_attention._ranges import make_ranges
from mres_kernels.varlen_attention.pallas_triton import Tiles
from mres_kernels.varlen_attention.pallas_triton._common import pieces_of

LENGTH = 256
TOLERANCE = {"float32": 3e-6, "bfloat16": 1e-2}  # as in test_varlen_attention
SMALL = Tiles(64, 32, 4, 2)


def inputs(heads, width, dtype="float32", seed=0, length=LENGTH):
    """q, k, v and the gradient of the output."""
    h, g = heads
    draw = np.random.default_rng(seed)
    values = [draw.standard_normal((length, n, width), np.float32) for n in (h, g, g, h)]
    return [jnp.asarray(x).astype(dtype) for x in values]


def attend_with(**tiles):
    """A compiled function to the output and the gradients of q, k and v."""

    @jax.jit
    def attend(q, k, v, d_out, plan):
        def call(q, k, v):
            scale = q.shape[-1] ** -0.5
            options = {"scale": scale, "interpret": True, **tiles}
            return pallas_triton.varlen_attention(q, k, v, plan, **options)[0]

        out, pull = jax.vjp(call, q, k, v)
        return out, *pull(d_out)

    return attend


attend = attend_with(tiles=SMALL, d_q_tiles=SMALL, d_kv_tiles=SMALL)


def assert_matches_reference(got, arrays, plan, dtype):
    q, k, v, d_out = arrays
    scale = q.shape[-1] ** -0.5
    want = (
        reference.varlen_attention(q, k, v, plan, scale=scale),
        *reference.gradients(q, k, v, plan, d_out, scale=scale),
    )
    for name, x, y in zip(("out", "d_q", "d_k", "d_v"), got, want, strict=True):
        assert x.dtype == dtype, name
        error = np.abs(np.asarray(x, np.float64) - y).max() / max(np.abs(y).max(), 1)
        assert error <= TOLERANCE[dtype], f"{name}: {error:.1e}"


def plan_of(*lengths, length=LENGTH, **options):
    cu = np.cumsum([0, *lengths]).astype(np.int32)
    return make_plan(cu_seqlens=cu, length=length, **options)


@pytest.mark.parametrize(
    ("lengths", "heads", "width", "dtype", "options"),
    [
        ((100, 1, 127), (2, 2), 80, "float32", {}),
        ((100, 90), (6, 2), 72, "float32", {"causal": True, "window": 70}),
        ((256,), (2, 1), 128, "bfloat16", {"causal": True}),
    ],
    ids=["images", "grouped_window", "one_huge"],
)
def test_the_triton_kernels_are_the_reference(lengths, heads, width, dtype, options):
    plan, arrays = plan_of(*lengths, **options), inputs(heads, width, dtype)
    assert_matches_reference(attend_with()(*arrays, plan), arrays, plan, dtype)


@st.composite
def packs(draw):
    """Lengths around whole tiles, empty and huge ones, and spans inside segments."""
    near = [0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 256]
    lengths = draw(st.lists(st.sampled_from(near), max_size=7))
    cu = np.minimum(np.cumsum([0, *lengths]), LENGTH)
    spans = np.zeros(LENGTH, np.int32)
    for segment, (start, end) in enumerate(itertools.pairwise(cu), start=1):
        if end - start > 2:
            first = draw(st.integers(start, end - 1))
            spans[first : draw(st.integers(first + 1, end))] = segment
    return np.pad(cu, (0, 8 - cu.size), mode="edge").astype(np.int32), spans


def any_plan(pack, causal, **options):
    cu, spans = pack
    spans = spans if causal else None
    return make_plan(cu_seqlens=cu, length=LENGTH, causal=causal, spans=spans, **options)


@pytest.mark.parametrize("causal", [False, True], ids=["whole", "causal_with_spans"])
@settings(max_examples=8)
@given(pack=packs(), seed=st.integers(0, 99))
def test_any_pack_is_the_reference(causal, pack, seed):
    plan, arrays = any_plan(pack, causal), inputs((2, 1), 16, seed=seed)
    assert_matches_reference(attend(*arrays, plan), arrays, plan, "float32")


def test_padding_is_never_read_and_always_zero():
    arrays, plan = inputs((2, 1), 16), plan_of(100, 37)
    clean = attend(*arrays, plan)
    spoiled = attend(*(x.at[137:].set(np.nan) for x in arrays), plan)
    for x, y in zip(clean, spoiled, strict=True):
        np.testing.assert_array_equal(x, y)
        assert not np.any(x[137:])


@pytest.mark.parametrize("content", [7.0, 1e30], ids=str)
def test_a_segment_cannot_be_told_from_its_neighbours(content):
    arrays, plan = inputs((2, 1), 16), plan_of(75, 65, 50)
    changed = [x.at[:75].set(content).at[140:].set(-content) for x in arrays]
    for x, y in zip(attend(*arrays, plan), attend(*changed, plan), strict=True):
        np.testing.assert_array_equal(x[75:140], y[75:140])


def test_a_batch_of_packs_is_each_pack():
    packs = [(inputs((2, 1), 16, seed=i), plan_of(*n)) for i, n in enumerate([(40, 140), (256,)])]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *packs)
    together = jax.jit(jax.vmap(lambda pack: attend(*pack[0], pack[1])))(batch)
    for i, (arrays, plan) in enumerate(packs):
        for x, y in zip(together, attend(*arrays, plan), strict=True):
            np.testing.assert_allclose(x[i], y, rtol=0, atol=3e-6)


def test_lse_of_parts_puts_them_together():
    """And its gradient flows: two halves of the keys make the whole."""
    (q, k, v, d_out), plan = inputs((2, 1), 16), plan_of(256)

    @jax.jit
    def both(q, k, v):
        def half(keys):
            masked = make_plan(length=LENGTH)
            options = {"scale": 0.25, "interpret": True, "tiles": SMALL}
            options |= {"d_q_tiles": SMALL, "d_kv_tiles": SMALL}
            return pallas_triton.varlen_attention(q, k[keys], v[keys], masked, **options)

        first, second = np.tile(np.arange(128), 2), np.tile(np.arange(128, 256), 2)
        parts = [half(first), half(second)]
        lse = jnp.stack([lse for _, lse in parts])
        shares = jax.nn.softmax(lse * np.log(2), axis=0)
        return sum(share.T[..., None] * out for share, (out, _) in zip(shares, parts, strict=True))

    out, pull = jax.vjp(both, q, k, v)
    want = reference.varlen_attention(q, k, v, plan, scale=0.25)
    np.testing.assert_allclose(out, want, rtol=0, atol=3e-6)
    gradients = reference.gradients(q, k, v, plan, d_out, scale=0.25)
    for x, y in zip(pull(d_out), gradients, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-5)  # keys are there twice, and summed


@settings(max_examples=40)
@given(pack=packs(), causal=st.booleans(), by_keys=st.booleans(), sizes=st.sampled_from([16, 64]))
def test_a_run_of_tiles_holds_what_is_seen_once_and_little_else(pack, causal, by_keys, sizes):
    plan, inner = any_plan(pack, causal), 32
    bounds = (plan.row_starts, plan.row_ends) if by_keys else (plan.starts, plan.ends)
    ranges = make_ranges(*bounds, outer=sizes, inner=inner)
    index = np.arange(LENGTH)
    starts, ends = (np.asarray(x)[:, None] for x in bounds)
    seen = (starts <= index) & (index < ends)
    for tile, (first, end, full_first, full_end, count) in enumerate(np.stack(ranges, axis=1)):
        rows = seen[tile * sizes : (tile + 1) * sizes]
        columns = np.flatnonzero(rows.any(axis=0))
        if not columns.size:
            assert count == 0
            continue
        assert (first, end) == (columns[0], columns[-1] + 1)
        assert count == -(-(end - first) // inner)
        for step in range(count):
            part = rows[:, first + step * inner : first + (step + 1) * inner]
            whole = part.all() and part.shape[1] == inner
            assert (full_first <= step < full_end) == whole


@pytest.mark.parametrize("width", range(8, 257, 8))
def test_pieces_make_a_head_and_cost_less_than_16_channels_more(width):
    pieces = pieces_of(width)
    assert [p.first for p in pieces] == list(np.cumsum([0, *(p.size for p in pieces[:-1])]))
    assert sum(p.real for p in pieces) == width
    assert sum(p.size for p in pieces) - width < 16
    assert all(p.size & (p.size - 1) == 0 for p in pieces)


@pytest.mark.parametrize(
    ("module", "length", "dtype", "scale", "message"),
    [
        (pallas_gpu, 144, "bfloat16", 1.0, "144 rows are no multiple of 128; pad the pack to 256"),
        (pallas_gpu, 128, "float32", 1.0, "q, k, v are float32, .*; have bfloat16 or float16"),
        (pallas_gpu, 128, "bfloat16", -1.0, "scale=-1.0 is not above 1e-20; negate q and"),
        (pallas_triton, 128, "float8_e4m3fn", 1.0, "q, k, v are float8_e4m3fn, .*; have bfloat16"),
        (pallas_triton, 128, "float32", 0.0, "scale=0.0 is not above 1e-20"),
    ],
    ids=["rows", "float32", "negative", "float8", "zero"],
)
def test_what_the_kernels_do_not_take_is_declined(module, length, dtype, scale, message):
    q, k, v, _ = inputs((2, 1), 64, dtype, length=length)
    name = module.__name__.rpartition(".")[2]
    with pytest.raises(NotImplementedError, match=f"^{name}: {message}"):
        module.varlen_attention(q, k, v, make_plan(length=length), scale=scale)


@pytest.mark.parametrize(
    ("device", "name", "message"),
    [
        ({"device_kind": "cpu", "platform": "cpu"}, "pallas_gpu", "needs a gpu, this is a cpu"),
        (
            {"device_kind": "NVIDIA A100", "compute_capability": "8.0"},
            "pallas_gpu",
            r"from 9.0 and below 10.0, this is NVIDIA A100 \(8.0\)",
        ),
        ({"device_kind": "Tesla T4", "compute_capability": "7.5"}, "pallas_triton", "from 8.0, .*"),
        (
            {"device_kind": "AMD MI300X", "compute_capability": "gfx942"},
            "pallas_triton",
            r"this is AMD MI300X \(gfx942\)",
        ),
        ({"device_kind": "NVIDIA Nonesuch"}, "pallas_gpu", r"Nonesuch \(not known\)"),
    ],
    ids=["cpu", "old_for_mosaic", "old_for_triton", "other_maker", "unknown"],
)
def test_a_device_that_a_kernel_is_not_for_is_declined_by_name(device, name, message, monkeypatch):
    device = types.SimpleNamespace(**{"platform": "gpu", **device})
    monkeypatch.setattr(_target, "_device", lambda: device)
    q, k, v, _ = inputs((2, 1), 64)
    with pytest.raises(NotImplementedError, match=f"^{name}: .*{message}"):
        varlen_attention(q, k, v, make_plan(length=LENGTH), implementation=name)


HOPPER = pathlib.Path(__file__).with_name("hopper.py")


@pytest.mark.skipif(
    jax.__version_info__ < (0, 11), reason="jax 0.10 interprets Mosaic kernels too slowly to test"
)
def test_the_mosaic_kernels_are_the_reference():
    """In a process of its own: each warpgroup is a thread that waits, and jax counts its threads
    by this variable where there are few cores."""
    kernels = pathlib.Path(__file__).parents[2] / "kernels"
    settings = {"JAX_PLATFORMS": "cpu", "NPROC": "16", "PYTHONPATH": str(kernels)}
    run = subprocess.run([sys.executable, HOPPER], capture_output=True, text=True, env=settings)
    assert run.stdout.strip().endswith("done"), run.stderr[-3000:]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["pallas_gpu", "pallas_triton"])
@pytest.mark.parametrize("width", [64, 72, 80, 128, 256])
def test_a_gpu_gives_the_reference_and_the_same_bits_each_time(name, width):
    """`JAX_PLATFORMS=cuda pytest -m gpu tests/kernels`."""
    length = 1024
    plan = plan_of(300, 1, 500, 37, length=length, causal=width == 128)
    arrays = inputs((4, 2), width, "bfloat16", length=length)

    @jax.jit
    def on_gpu(q, k, v, d_out, plan):
        def call(q, k, v):
            return varlen_attention(q, k, v, plan, implementation=name)

        out, pull = jax.vjp(call, q, k, v)
        return out, *pull(d_out)

    got = on_gpu(*arrays, plan)
    assert_matches_reference(got, arrays, plan, "bfloat16")
    spoiled = [x.at[838:].set(np.nan) for x in arrays]
    for x, y in zip(got, on_gpu(*spoiled, plan), strict=True):
        np.testing.assert_array_equal(x, y)

"""The TPU kernels by interpretation: numbers and laws; `kernels/aot` asks what they cost."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax.experimental.pallas import tpu as pltpu
from mres_kernels import _work
from mres_kernels.varlen_attention import make_plan, pallas_tpu, reference
from mres_kernels.varlen_attention.pallas_tpu import Tiles, _backward, _common, _sizes

LENGTH = 512
TOLERANCE = {"float32": 3e-6, "bfloat16": 1e-2}  # as in test_varlen_attention


def inputs(heads, width, dtype="float32", seed=0, length=LENGTH):
    """q, k, v and the gradient of the output."""
    h, g = heads
    draw = np.random.default_rng(seed)
    values = [draw.standard_normal((length, n, width), np.float32) for n in (h, g, g, h)]
    return [jnp.asarray(x).astype(dtype) for x in values]


def attend_with(tiles, backward_tiles, interpret=True):
    """A compiled function to the output and the gradients of q, k and v."""

    @jax.jit
    def attend(q, k, v, d_out, plan):
        def call(q, k, v):
            out, _ = pallas_tpu.varlen_attention(
                q,
                k,
                v,
                plan,
                scale=q.shape[-1] ** -0.5,
                tiles=tiles,
                backward_tiles=backward_tiles,
                interpret=interpret,
            )
            return out

        out, pull = jax.vjp(call, q, k, v)
        return out, *pull(d_out)

    return attend


attend = attend_with(Tiles(128, 128, 1), Tiles(128, 128, 1))


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


def plan_of(*lengths, **options):
    cu = np.cumsum([0, *lengths]).astype(np.int32)
    return make_plan(cu_seqlens=cu, length=LENGTH, **options)


@pytest.mark.parametrize(
    ("lengths", "heads", "width", "dtype", "options", "tiles", "backward_tiles"),
    [
        ((300, 1, 127, 37), (2, 2), 80, "float32", {}, (256, 128, 2), (128, 256, 2)),
        ((127, 128, 129), (2, 2), 64, "float32", {"causal": True}, (128, 128, 1), (512, 128, 1)),
        ((200, 250), (6, 2), 72, "float32", {"window": 70}, (128, 512, 3), (128, 128, 6)),
        ((512,), (4, 1), 128, "bfloat16", {"causal": True}, (512, 256, 2), (256, 512, 2)),
    ],
    ids=["images", "causal", "grouped_window", "one_huge_in_parts"],
)
@pytest.mark.parametrize(
    "split",
    [pytest.param(False, id="fused"), pytest.param(True, id="split", marks=pytest.mark.slow)],
)
def test_the_kernels_are_the_reference(
    split, lengths, heads, width, dtype, options, tiles, backward_tiles, monkeypatch
):
    if split:  # as where the gradient of the queries does not fit
        monkeypatch.setattr(_backward, "RESIDENT_SHARE", 0)
    plan, arrays = plan_of(*lengths, **options), inputs(heads, width, dtype)
    got = attend_with(Tiles(*tiles), Tiles(*backward_tiles))(*arrays, plan)
    assert_matches_reference(got, arrays, plan, dtype)


@st.composite
def packs(draw):
    """Lengths around whole tiles, empty and huge ones."""
    near = [0, 1, 2, 63, 127, 128, 129, 255, 256, 257, 512]
    lengths = draw(st.lists(st.sampled_from(near), max_size=7))
    cu = np.minimum(np.cumsum([0, *lengths]), LENGTH)
    return np.pad(cu, (0, 8 - cu.size), mode="edge").astype(np.int32)


@pytest.mark.parametrize("causal", [False, True], ids=["whole", "causal"])
@settings(max_examples=8)
@given(cu=packs(), seed=st.integers(0, 99))
def test_any_pack_is_the_reference(causal, cu, seed):
    plan = make_plan(cu_seqlens=cu, length=LENGTH, causal=causal)
    arrays = inputs((2, 1), 16, seed=seed)
    assert_matches_reference(attend(*arrays, plan), arrays, plan, "float32")


def test_pictures_see_themselves_whole_inside_causal_text():
    spans = np.zeros(LENGTH, np.int32)
    spans[10:150], spans[250:260] = 1, 2
    plan, arrays = plan_of(200, 180, causal=True, spans=spans), inputs((4, 1), 32)
    assert_matches_reference(attend(*arrays, plan), arrays, plan, "float32")


def test_padding_is_never_read_and_always_zero():
    arrays, plan = inputs((2, 1), 16), plan_of(200, 37)
    clean = attend(*arrays, plan)
    spoiled = attend(*(x.at[237:].set(np.nan) for x in arrays), plan)
    for x, y in zip(clean, spoiled, strict=True):
        np.testing.assert_array_equal(x, y)
        assert not np.any(x[237:])


@pytest.mark.parametrize("content", [7.0, 1e30], ids=str)
def test_a_segment_cannot_be_told_from_its_neighbours(content):
    arrays, plan = inputs((2, 1), 16), plan_of(150, 130, 100)
    changed = [x.at[:150].set(content).at[280:].set(-content) for x in arrays]
    for x, y in zip(attend(*arrays, plan), attend(*changed, plan), strict=True):
        np.testing.assert_array_equal(x[150:280], y[150:280])


def test_a_batch_of_packs_is_each_pack():
    packs = [(inputs((2, 1), 16, seed=i), plan_of(*n)) for i, n in enumerate([(40, 240), (512,)])]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *packs)
    together = jax.jit(jax.vmap(lambda pack: attend(*pack[0], pack[1])))(batch)
    for i, (arrays, plan) in enumerate(packs):
        for x, y in zip(together, attend(*arrays, plan), strict=True):
            np.testing.assert_array_equal(x[i], y)


def test_no_step_reads_what_another_writes_at_once(capfd):
    plan, arrays = plan_of(200, 37), inputs((2, 1), 16)
    interpret = pltpu.InterpretParams(detect_races=True)
    got = attend_with(Tiles(128, 128, 1), Tiles(128, 128, 1), interpret)(*arrays, plan)
    assert_matches_reference(got, arrays, plan, "float32")
    assert "RACE DETECTED" not in capfd.readouterr().out


def test_repeated_runs_agree_to_the_bit():
    arrays, plan = inputs((2, 1), 16), plan_of(150, 130, 100)
    for x, y in zip(attend(*arrays, plan), attend(*arrays, plan), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("major", ["query", "key"])
def test_the_list_of_tiles_holds_what_is_seen_once_and_nothing_else(major):
    plan = plan_of(130, 1, 200, causal=True, window=90)
    if major == "query":
        work = _common.query_major(plan, Tiles(128, 64, 1))
    else:
        work = _common.key_major(plan, Tiles(128, 64, 1))
    items = np.asarray(work.items)[: int(work.num_items)]
    seen = np.zeros((LENGTH, LENGTH), bool)
    for row, (start, end) in enumerate(zip(plan.starts, plan.ends, strict=True)):
        seen[row, int(start) : int(end)] = True
    listed = []
    for item in items:
        outer, inner = int(_work.outer_of(item)), int(_work.inner_of(item))
        x, y = (outer, inner) if major == "query" else (inner, outer)
        block = seen[x * 128 : (x + 1) * 128, y * 64 : (y + 1) * 64]
        flags = int(_work.flags_of(item))
        assert bool(flags & _work.FULL) == bool(block.all())
        if flags & _work.EMPTY:
            assert not block.any()
        else:
            listed.append((x, y))
    assert len(set(listed)) == len(listed)
    for x, y in itertools.product(range(LENGTH // 128), range(LENGTH // 64)):
        if seen[x * 128 : (x + 1) * 128, y * 64 : (y + 1) * 64].any():
            assert (x, y) in listed
    outers = [int(_work.outer_of(item)) for item in items]
    assert outers == sorted(outers)
    assert set(outers) == set(range(LENGTH // (128 if major == "query" else 64)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_small_memory_takes_fewer_wide_heads_at_a_time(dtype, monkeypatch):
    """On a v4 (16 MiB), where the compiler had no room for more at 256 channels."""
    monkeypatch.setattr(_sizes, "fast_memory", lambda: 15 << 20)
    most = {"bfloat16": 8, "float32": 4}[dtype]
    for width, heads in ((80, most), (128, most), (256, most // 2)):
        q = jax.ShapeDtypeStruct((8192, 16, width), dtype)
        assert _sizes.choose("backward", q).heads == heads, width
        assert _sizes.choose("forward", q).heads == most, width


@pytest.mark.parametrize(
    ("which", "width", "dtype", "length", "has_room"),
    [
        ("backward", 128, "float32", 262_144, True),
        ("backward", 80, "float32", 457_728, False),
        ("backward", 256, "float32", 262_144, False),
        ("backward", 256, "bfloat16", 262_144, True),
        ("backward", 256, "bfloat16", 457_728, False),
        ("forward", 256, "float32", 262_144, True),
        ("forward", 256, "float32", 457_728, False),
        ("forward", 128, "float32", 457_728, True),
    ],
)
def test_a_pack_too_long_for_a_small_memory_is_declined(
    which, width, dtype, length, has_room, monkeypatch
):
    """On a v4 (16 MiB); each case is what its compiler says of one head."""
    monkeypatch.setattr(_sizes, "fast_memory", lambda: 15 << 20)
    q = jax.ShapeDtypeStruct((length, 1, width), dtype)
    if has_room:
        assert _sizes.choose(which, q).heads == 1
    else:
        with pytest.raises(NotImplementedError, match=f"{length} rows .* {dtype} heads of {width}"):
            _sizes.choose(which, q)


def test_a_pack_of_too_many_steps_is_told_what_would_do():
    for length, tiles, cure in (
        (114_688 + 128, _sizes.Tiles(128, 128, 1), "pad the pack to a multiple of 1024"),
        (524_288, _sizes.Tiles(1024, 1024, 1), "split the pack, 457728 rows are the most"),
        (524_288 + 128, _sizes.Tiles(128, 128, 1), "split the pack, 457728 rows are the most"),
    ):
        plan = jax.eval_shape(make_plan, jax.ShapeDtypeStruct((length,), "int32"))
        with pytest.raises(NotImplementedError, match=cure):
            _common.query_major(plan, tiles)


@pytest.mark.parametrize("which", ["forward", "backward"])
@pytest.mark.parametrize("length", [8192, 65_536, 118_784, 262_144, 262_144 + 1024])
def test_a_long_pack_takes_larger_tiles_of_fewer_heads(which, length):
    short, long = (
        _sizes.choose(which, jax.ShapeDtypeStruct((n, 16, 80), "bfloat16")) for n in (8192, length)
    )
    assert length % long.q == length % long.kv == 0
    assert (length // long.q) * (length // long.kv) <= _sizes.SMEM_ITEMS
    assert long.q * long.kv * long.heads <= short.q * short.kv * short.heads
    assert (long == short) == (length <= 65_536)


@pytest.mark.parametrize(
    ("length", "width", "dtype", "message"),
    [
        (144, 64, "float32", "144 rows are no multiple of 128; pad the pack to 256"),
        (128, 60, "float32", "head size 60 is no multiple of 8"),
        (128, 64, "float16", "q, k, v are float16, float16, float16; have bfloat16 or float32"),
    ],
    ids=str,
)
def test_what_the_kernels_do_not_take_is_declined(length, width, dtype, message):
    q, k, v, _ = inputs((2, 1), width, dtype, length=length)
    plan = make_plan(length=length)
    with pytest.raises(NotImplementedError, match=f"^pallas_tpu: {message}"):
        pallas_tpu.varlen_attention(q, k, v, plan, scale=1.0, interpret=True)

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from mres_kernels.varlen_attention import make_plan, reference, varlen_attention
from mres_kernels.varlen_attention._checks import check_arrays
from mres_kernels.varlen_attention._vjp import SAVED
from mres_kernels.varlen_attention.cases import CASES, Case
from mres_kernels.varlen_attention.xla import count_scores

SMALL = [case for case in CASES if case.length <= 512]
# Errors as a share of the largest value. float32: sums of a few hundred products, each off by
# half a unit of 2**-24. bfloat16: outputs and gradients are rounded to 8 bits.
TOLERANCE = {"float32": 3e-6, "bfloat16": 1e-2}


def random_inputs(case: Case, seed: int = 0, length: int | None = None):
    """q, k, v and the gradient of the output, as jax arrays."""
    rng = np.random.default_rng(seed)
    length = case.length if length is None else length
    heads = (case.num_heads, case.num_kv_heads, case.num_kv_heads, case.num_heads)
    values = [rng.standard_normal((length, n, case.head_dim), np.float32) for n in heads]
    return [jnp.asarray(x).astype(case.dtype) for x in values]


def plan_of(case: Case, **options):
    ids, spans = case.segment_ids(), case.span_ids()
    return make_plan(ids, causal=case.causal, window=case.window, spans=spans, **options)


@functools.partial(jax.jit, static_argnames=["implementation"])
def attend(q, k, v, d_out, plan, *, implementation=None):
    """The output and the gradients of q, k and v."""

    def call(q, k, v):
        return varlen_attention(q, k, v, plan, implementation=implementation)

    out, pull = jax.vjp(call, q, k, v)
    return out, *pull(d_out)


def assert_matches_reference(got, inputs, plan, dtype, tolerance=None):
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    q, k, v, d_out = inputs
    scale = q.shape[-1] ** -0.5
    want = (
        reference.varlen_attention(q, k, v, plan, scale=scale),
        *reference.gradients(q, k, v, plan, d_out, scale=scale),
    )
    for name, x, y in zip(("out", "d_q", "d_k", "d_v"), got, want, strict=True):
        assert x.dtype == dtype, name
        error = np.abs(np.asarray(x, np.float64) - y).max() / max(np.abs(y).max(), 1)
        assert error <= tolerance, f"{name}: {error:.1e}"


def assert_same_bits(one, other):
    for x, y in zip(one, other, strict=True):
        np.testing.assert_array_equal(
            np.asarray(x).view(np.uint8), np.asarray(y).view(np.uint8), strict=True
        )


def test_reference_by_hand():
    """Two rows that see both, one that sees itself, one of padding."""
    plan = make_plan(np.repeat([1, 2, 0], [2, 1, 13]).astype(np.int32))
    q, k = np.zeros((16, 1, 1)), np.zeros((16, 1, 1))
    q[0], k[1] = np.log(3), 1  # row 0 gives key 1 three times the weight of key 0
    v = np.arange(16.0)[:, None, None] * 4
    out = reference.varlen_attention(q, k, v, plan, scale=1)
    np.testing.assert_allclose(out[:4, 0, 0], [3, 2, 8, 0], rtol=1e-15)


def test_reference_gradients_are_its_slopes():
    plan = make_plan(np.repeat([1, 2, 0], [7, 5, 4]).astype(np.int32), causal=True)
    rng = np.random.default_rng(0)
    q, k, v, d_out = (rng.standard_normal((16, n, 3)) for n in (4, 2, 2, 4))
    gradients = reference.gradients(q, k, v, plan, d_out, scale=0.7)
    for i, gradient in enumerate(gradients):
        step = rng.standard_normal((q, k, v)[i].shape)
        ends = []
        for sign in (1e-5, -1e-5):
            moved = [x + sign * step if j == i else x for j, x in enumerate((q, k, v))]
            ends.append((d_out * reference.varlen_attention(*moved, plan, scale=0.7)).sum())
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose((gradient * step).sum(), slope, rtol=1e-7)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_xla_is_the_reference(case):
    plan, inputs = plan_of(case), random_inputs(case)
    got = attend(*inputs, plan, implementation="xla")
    assert_matches_reference(got, inputs, plan, case.dtype)


LENGTH, BLOCK = 240, 80  # neither a tile of 80 nor an edge of 64 fits the other
PROPERTY = [
    Case("plain", (), 2, 2, 24),
    Case("grouped_causal", (), 4, 2, 16, causal=True),
    Case("window", (), 2, 1, 8, window=20, dtype="bfloat16"),
    Case("spans", (), 2, 1, 16, causal=True, window=50, spans=((0, 0),)),
]


def lay_out(*lengths, heads=(2, 1), causal=False, seed=0):
    """Inputs and plan of one pack in `LENGTH` rows; all such calls share one compile."""
    cu = np.cumsum([0, *lengths]).astype(np.int32)
    plan = make_plan(cu_seqlens=cu, length=LENGTH, causal=causal, block_q=BLOCK, block_kv=BLOCK)
    return random_inputs(Case("", (), *heads, 16), seed, LENGTH), plan


@st.composite
def packs(draw):
    """Lengths around whole tiles, empty and huge ones, and spans inside segments."""
    near = [0, 1, 2, 16, 63, 64, 65, 79, 80, 81, 143, 144, 145, 160, 240]
    lengths = draw(st.lists(st.sampled_from(near), max_size=8))
    cu = np.minimum(np.cumsum([0, *lengths]), LENGTH)
    spans = np.zeros(LENGTH, np.int32)
    for segment, (start, end) in enumerate(itertools.pairwise(cu), start=1):
        if end - start > 2:
            first = draw(st.integers(start, end - 1))
            spans[first : draw(st.integers(first + 1, end))] = segment
    return np.pad(cu, (0, 9 - cu.size), mode="edge").astype(np.int32), spans


@pytest.mark.parametrize("case", PROPERTY, ids=lambda case: case.name)
@settings(max_examples=12)
@given(pack=packs(), seed=st.integers(0, 99))
def test_any_pack_is_the_reference(case, pack, seed):
    cu, spans = pack
    plan = make_plan(
        cu_seqlens=cu,
        length=LENGTH,
        causal=case.causal,
        window=case.window,
        spans=spans if case.spans else None,
        block_q=BLOCK,
        block_kv=BLOCK,
    )
    inputs = random_inputs(case, seed, LENGTH)
    assert_matches_reference(attend(*inputs, plan), inputs, plan, case.dtype)


def test_a_pack_is_its_segments_alone():
    lengths = (130, 33, 70)
    inputs, plan = lay_out(*lengths, causal=True)
    packed = attend(*inputs, plan)
    for first, n in zip(np.cumsum([0, *lengths]), lengths, strict=False):
        alone = [jnp.roll(x, -first, axis=0) for x in inputs]
        for x, y in zip(packed, attend(*alone, lay_out(n, causal=True)[1]), strict=True):
            np.testing.assert_allclose(x[first : first + n], y[:n], rtol=0, atol=3e-6)  # TOLERANCE


@pytest.mark.parametrize("content", [7.0, 1e30, np.inf, np.nan], ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["whole", "causal"])
def test_a_segment_cannot_be_told_from_its_neighbours(causal, content):
    """Whatever fills the first and the last segment, the bits of the middle one stay."""
    inputs, plan = lay_out(70, 100, 70, causal=causal)
    changed = [x.at[:70].set(content).at[170:].set(-content) for x in inputs]
    before = [x[70:170] for x in attend(*inputs, plan)]
    assert_same_bits(before, [x[70:170] for x in attend(*changed, plan)])


def test_a_gradient_stays_in_its_segment():
    (q, k, v, d_out), plan = lay_out(70, 100)
    _, *grads = attend(q, k, v, d_out.at[:70].set(0), plan)
    for grad in grads:
        assert not np.any(grad[:70])
        assert np.all(np.any(grad[70:170], axis=(1, 2)))


@pytest.mark.parametrize("causal", [False, True], ids=["whole", "causal"])
def test_padding_is_never_read_and_always_zero(causal):
    inputs, plan = lay_out(90, 30, causal=causal)
    clean = attend(*inputs, plan)
    spoiled = attend(*(x.at[120:].set(np.nan) for x in inputs), plan)
    assert_same_bits(clean, spoiled)
    for x in clean:
        assert not np.any(x[120:])


def test_a_pack_of_padding_alone_gives_zeros():
    inputs, plan = lay_out(0)
    for x in attend(*inputs, plan):
        assert not np.any(x)


@pytest.mark.parametrize("sign", [None, 1, -1], ids=["mixed", "positive", "negative"])
def test_large_scores_stay_finite(sign):
    """With scores near 10,000, which float32 itself holds to 1e-3."""
    (q, k, v, d_out), plan = lay_out(150, 60)
    inputs = (50 * q, 50 * k, v, d_out)
    if sign is not None:
        inputs = (50 * abs(q), 50 * sign * abs(k), v, d_out)
    assert_matches_reference(attend(*inputs, plan), inputs, plan, "float32", tolerance=1e-3)


def test_repeated_runs_agree_to_the_bit():
    inputs, plan = lay_out(100, 140, causal=True)
    first = attend(*inputs, plan)
    for _ in range(3):
        assert_same_bits(first, attend(*inputs, plan))


def test_a_batch_of_packs_is_each_pack():
    packs = [lay_out(*lengths, seed=i) for i, lengths in enumerate([(40, 24), (240, 0), (5, 50)])]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *packs)
    together = jax.jit(jax.vmap(lambda pack: attend(*pack[0], pack[1])))(batch)
    for i, (inputs, plan) in enumerate(packs):
        assert_same_bits([x[i] for x in together], attend(*inputs, plan))


def layers(x, plan, policy):
    """Two layers under scan and remat."""

    @functools.partial(jax.checkpoint, policy=policy)
    def layer(x, _):
        return x + varlen_attention(x, x[:, :1], x[:, :1], plan), None

    return jax.lax.scan(layer, x, None, length=2)[0]


@pytest.mark.slow
def test_scan_and_remat_change_nothing():
    (x, *_), plan = lay_out(40, 20)

    def unrolled(x):
        for _ in range(2):
            x = x + varlen_attention(x, x[:, :1], x[:, :1], plan)
        return x

    expected = jax.jit(jax.grad(lambda x: unrolled(x).sum()))(x)
    found = jax.jit(jax.grad(lambda x: layers(x, plan, None).sum()))(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def equations(jaxpr):
    """All equations of a jaxpr, those of inner jaxprs too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: hasattr(x, "jaxpr") or hasattr(x, "eqns"),
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def test_a_checkpoint_policy_can_keep_what_the_backward_needs():
    """Under remat a layer runs forward twice; with the name saved, once."""
    (x, *_), plan = lay_out(40, 20)
    counts = []
    for policy in (None, jax.checkpoint_policies.save_only_these_names(SAVED)):
        jaxpr = jax.make_jaxpr(jax.grad(lambda x, p=policy: layers(x, plan, p).sum()))(x)
        names = [equation.primitive.name for equation in equations(jaxpr.jaxpr)]
        counts.append(names.count("while"))
    passes = 3  # each pass is a loop over tiles around two loops over what they see
    assert counts == [3 * passes, 2 * passes]


def test_no_array_grows_with_the_square_of_the_length():
    case = Case("long", (1000, 1000, 2000), 1, 1, 8)
    plan, inputs = plan_of(case), random_inputs(case)
    jaxpr = jax.make_jaxpr(attend)(*inputs, plan)
    sizes = [v.aval.size for e in equations(jaxpr.jaxpr) for v in e.outvars]
    assert len(sizes) > 100
    assert max(sizes) < case.length * 64
    memory = attend.lower(*inputs, plan).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * case.length**2 / 8  # bytes of an eighth of [t, t]


@pytest.mark.parametrize(
    ("lengths", "causal", "most"),
    [
        ((576,) * 8, False, 1.0),
        ((64, 1536, 200, 333, 1024, 576, 90, 700, 80), False, 1.25),
        ((200, 56, 300, 180, 90, 190), False, 1.8),
        ((500, 1500), True, 1.4),
        ((16,) * 64, False, 64.0),
    ],
    ids=str,
)
def test_cost_is_the_sum_of_squared_lengths_up_to_tiles(lengths, causal, most):
    plan = make_plan(Case("", lengths, 1, 1, 8).segment_ids(), causal=causal)
    useful = int((plan.ends - plan.starts).sum())
    assert useful <= count_scores(plan) <= most * useful


def test_windows_are_more_segments():
    """As Qwen2.5-VL: patches of a window put side by side attend as under a mask of windows."""
    sizes, window = ((6, 10), (4, 3)), 4  # patches; patches to a side
    owners = []
    for image, (rows, columns) in enumerate(sizes):
        row, column = np.divmod(np.arange(rows * columns), columns)
        owners += [(image, *at) for at in zip(row // window, column // window, strict=True)]
    ids = np.unique(owners, axis=0, return_inverse=True)[1].reshape(-1) + 1
    pad = -ids.size % 16
    order = np.concatenate([np.argsort(ids, kind="stable"), np.arange(ids.size, ids.size + pad)])
    q, k, v, _ = random_inputs(Case("", (), 2, 2, 16), length=order.size)
    plan = make_plan(np.pad(np.sort(ids), (0, pad)).astype(np.int32))
    got = np.zeros(q.shape)
    got[order] = varlen_attention(q[order], k[order], v[order], plan)
    ids = np.pad(ids, (0, pad))
    mask = (ids[:, None] == ids) & (ids > 0)
    expected = jax.nn.dot_product_attention(q, k, v, mask=mask[None])
    np.testing.assert_allclose(got[ids > 0], expected[ids > 0], rtol=0, atol=3e-6)


@pytest.mark.slow
def test_attention_over_parts_of_the_keys_can_be_put_together():
    """By the logarithms of the denominators, forward and backward, as a ring of devices does."""
    (q, k, v, d_out), plan = lay_out(LENGTH, heads=(2, 2))
    halves = make_plan(np.repeat([1, 2], LENGTH // 2).astype(np.int32))

    def whole(q, k, v):
        return varlen_attention(q, k, v, plan)

    def in_parts(q, k, v):
        outs, logs = [], []
        for shift in (0, LENGTH // 2):  # every query meets its own half, then the other one
            turned = jnp.roll(k, shift, 0), jnp.roll(v, shift, 0)
            out, lse = varlen_attention(q, *turned, halves, return_lse=True)
            outs.append(out)
            logs.append(lse.T)
        shares = jax.nn.softmax(jnp.stack(logs), axis=0)
        return (jnp.stack(outs) * shares[..., None]).sum(axis=0)

    expected, pull = jax.vjp(whole, q, k, v)
    got, pull_parts = jax.vjp(in_parts, q, k, v)
    for x, y in zip((got, *pull_parts(d_out)), (expected, *pull(d_out)), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=3e-6)


def test_rows_that_see_nothing_have_no_denominator():
    (q, k, v, _), plan = lay_out(100)
    _, lse = varlen_attention(q, k, v, plan, return_lse=True)
    assert np.isfinite(lse[:, :100]).all()
    assert np.isneginf(lse[:, 100:]).all()


@pytest.mark.slow
def test_heads_that_share_keys_are_summed_before_they_are_rounded():
    """Two heads pull a key in opposite directions: the rest must not drown in bfloat16."""
    (q, k, v, d_out), plan = lay_out(200, heads=(2, 1))
    q = jnp.repeat(q[:, :1], 2, axis=1)
    d_out = jnp.concatenate([100 * d_out[:, :1], d_out[:, 1:] / 16 - 100 * d_out[:, :1]], axis=1)
    inputs = [x.astype("bfloat16") for x in (q, k, v)]
    d_out = d_out.astype("bfloat16")
    d_v = attend(*inputs, d_out, plan)[3]
    expected = reference.gradients(*inputs, plan, d_out, scale=0.25)[2]
    error = np.abs(np.asarray(d_v, np.float64) - expected).max()
    assert error <= 0.02 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((16, 3, 8), (16, 2, 8)), "3 query heads are not a multiple of 2 key/value heads."),
        (((16, 2, 300), (16, 2, 300)), "head size 300 is over 256."),
        (((32, 2, 8), (32, 2, 8)), "the plan has 16 rows, but q has 32."),
    ],
    ids=str,
)
def test_shapes_that_cannot_work_are_refused(shapes, message):
    q, k = (jnp.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=f"^varlen_attention: {message}$"):
        varlen_attention(q, k, k, make_plan(length=16))


@pytest.mark.parametrize(
    ("shapes", "dtypes", "message"),
    [
        (((16, 2, 8), (16, 2, 8), (16, 1, 8)), "fff", r"k is \(16, 2, 8\), but v is \(16, 1, 8\)"),
        (((16, 2, 8), (32, 2, 8), (32, 2, 8)), "fff", "q has 16 rows of head size 8, but k has 32"),
        (((16, 2, 8), (16, 2, 4), (16, 2, 4)), "fff", "q has 16 rows of head size 8, but k has 16"),
        (((16, 2, 8),) * 3, "fef", "q, k, v are float32, float16, float32; they must be of one"),
        (((16, 2, 8),) * 3, "iii", "q, k, v are int32, int32, int32; they must be of one floating"),
    ],
    ids=str,
)
def test_arrays_that_do_not_go_together_are_refused(shapes, dtypes, message):
    arrays = map(jax.ShapeDtypeStruct, shapes, map(np.dtype, dtypes))
    with pytest.raises(ValueError, match=f"^varlen_attention: {message}"):
        check_arrays(*arrays, 16)

"""Laws of sizes and of block order; golden sizes where other libraries are known to fail."""

import importlib.machinery
import importlib.util
import re

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st

from mres_jax import geometry
from mres_jax.errors import MresError
from mres_jax.geometry import Size, block_order, fit_size

STRIDE, MIN_PIXELS = 28, 56 * 56
SIDES = st.integers(1, 20_000)


@pytest.fixture(scope="module", params=[200_000, pytest.param(10**6, marks=pytest.mark.slow)])
def sweep(request):
    """Random calls: columns height, width, stride, min, max, rows, columns."""
    # A copy of the module that the annotation checker did not touch: it would take a minute.
    loader = importlib.machinery.SourceFileLoader("plain_geometry", geometry.__file__)
    plain = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("plain_geometry", loader)
    )
    loader.exec_module(plain)
    count, rng = request.param, np.random.default_rng(0)
    sides = np.exp(rng.uniform(0, np.log(20_000), (2, count))).astype(np.int64)
    stride = rng.choice([8, 14, 28, 32], count)
    most = (stride**2 * np.exp(rng.uniform(0, np.log(20_000), count))).astype(np.int64)
    # the lower limit anywhere below the upper one, often equal to it
    least = (most * np.minimum(rng.uniform(0, 1.2, count) ** 4, 1)).astype(np.int64)
    sizes = [
        plain.fit_size(h, w, stride=s, min_pixels=low, max_pixels=high)
        for h, w, s, low, high in zip(
            *(a.tolist() for a in (*sides, stride, least, most)), strict=True
        )
    ]
    return np.column_stack([*sides, stride, least, most, np.array(sizes)]).T


def test_sizes_are_whole_tokens_and_within_budget(sweep):
    _, _, stride, _, most, rows, columns = sweep
    assert (rows >= stride).all()
    assert (columns >= stride).all()
    assert not (rows % stride).any()
    assert not (columns % stride).any()
    assert (rows * columns <= most).all()


def exact_sides(sweep):
    """The real-valued sides that the sizes approximate, and the budget in tokens."""
    height, width, stride, least, most, *_ = sweep
    rounded = np.maximum(np.rint([height / stride, width / stride]), 1).prod(0)
    budget, area = most // stride**2, height * width
    floor = np.minimum(np.ceil(least / stride**2), budget)
    scale = np.ones(len(area))
    scale = np.where(rounded > budget, np.minimum(1, np.sqrt(most / area)), scale)
    scale = np.where(rounded < floor, np.maximum(1, np.sqrt(least / area)), scale)
    return np.array([height, width]) * scale, budget


def test_sizes_are_less_than_one_token_off_per_side(sweep):
    stride, sides = sweep[2], sweep[5:]
    exact, _ = exact_sides(sweep)
    # A strip is the exception: one token thick, it may have to be shorter to stay in its budget.
    strip = (exact < stride).any(0)
    assert strip.mean() < 0.5, "the sweep hardly tests pictures"
    assert (np.abs(sides - exact) < stride)[:, ~strip].all()
    assert (sides.min(0) == stride)[strip].all()
    assert (sides.max(0) - exact.max(0) < stride)[strip].all()


def test_sizes_reach_the_lower_limit_where_a_size_next_to_the_exact_one_does(sweep):
    stride, least, sides = sweep[2], sweep[3], sweep[5:]
    exact, budget = exact_sides(sweep)
    below = sides.prod(0) < least
    assert below.any()
    down = np.maximum(np.floor(exact / stride), 1)[:, below]
    up = np.maximum(np.ceil(exact / stride), 1)[:, below]
    for rows, columns in ((down[0], up[1]), (up[0], down[1]), (up[0], up[1])):
        tokens = rows * columns
        over = tokens > budget[below]
        assert (over | (tokens * stride[below] ** 2 < least[below])).all()


@given(SIDES, SIDES, st.integers(1, 5_000))
def test_a_turned_picture_gets_the_turned_size(height, width, tokens):
    assume(height != width)
    limits = {"stride": STRIDE, "min_pixels": 0, "max_pixels": tokens * STRIDE**2}
    assert fit_size(height, width, **limits) == fit_size(width, height, **limits)[::-1]


@given(st.integers(14, 3_000), st.integers(14, 3_000))
def test_both_rules_agree_where_rounding_stays_within_the_limits(height, width):
    limits = {"stride": STRIDE, "min_pixels": 1, "max_pixels": 10**8}
    assume(round(height / STRIDE) and round(width / STRIDE))
    assume(max(height, width) <= 200 * min(height, width))
    assert fit_size(height, width, **limits) == fit_size(height, width, **limits, hf_compat=True)


@given(SIDES, SIDES)
def test_a_fitted_size_fits_itself(height, width):
    limits = {"stride": STRIDE, "min_pixels": MIN_PIXELS, "max_pixels": 100 * MIN_PIXELS}
    once = fit_size(height, width, **limits)
    assert fit_size(*once, **limits) == once


@pytest.mark.parametrize(
    ("height", "width", "max_pixels", "ours", "theirs"),
    [
        (31, 639, 20 * 28 * 28, (28, 560), (28, 560)),  # qwen_vl_utils 0.0.14: a side of 0
        (28, 5_600, 78_400, (28, 2_800), (28, 3_948)),  # theirs: 110,544 px, over budget
        (690, 15_420, 12_544, (28, 448), (28, 504)),  # theirs: 14,112 px, over budget
        (13, 400, 1_003_520, (28, 392), (28, 336)),  # theirs enlarges by shrinking
        (1, 200, 1_003_520, (28, 196), (28, 812)),
        (1_080, 1_920, 1_003_520, (756, 1_316), (728, 1_316)),
        (1, 1, 1_003_520, (56, 56), (56, 56)),
        (3, 22, 1_003_520, (28, 168), (28, 168)),
        (42, 70, 1_003_520, (56, 56), (56, 56)),  # halves are rounded to even
        (100, 100, 784, (28, 28), (28, 28)),
    ],
)
def test_golden_sizes(height, width, max_pixels, ours, theirs):
    limits = {
        "stride": STRIDE,
        "min_pixels": min(MIN_PIXELS, max_pixels),
        "max_pixels": max_pixels,
    }
    assert fit_size(height, width, **limits) == ours
    assert fit_size(height, width, **limits, hf_compat=True) == theirs


def test_equal_limits_stay_close_to_the_asked_number_of_tokens():
    """182 tokens is the fixed row of NativeRes-LLaVA; small pictures are enlarged for it."""
    limits = {"stride": STRIDE, "min_pixels": 182 * 784, "max_pixels": 182 * 784}
    ratios = [(1, 1), (3, 4), (9, 16), (1, 4), (2, 3)]
    tokens = [
        fit_size(side * h, side * w, **limits).area // 784 for side in (10, 400) for h, w in ratios
    ]
    assert all(160 <= n <= 182 for n in tokens), tokens


@pytest.mark.parametrize("hf_compat", [False, True])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"max_pixels": 783, "min_pixels": 0},
            "fit size: max_pixels=783 is less than one visual token of 28 x 28 = 784 px. Raise "
            "max_pixels.",
        ),
        (
            {"min_pixels": 1_004},
            "fit size: min_pixels=1004 must lie between 0 and max_pixels=1003.",
        ),
        ({"min_pixels": -1}, "fit size: min_pixels=-1 must lie between 0 and max_pixels=1003."),
        (
            {"height": 0},
            "fit size: a picture of 20 x 0 px and a stride of 28 px; each side must be at least 1.",
        ),
        (
            {"width": -3},
            "fit size: a picture of -3 x 10 px and a stride of 28 px; each side must be at least "
            "1.",
        ),
    ],
)
def test_impossible_sizes_are_named(changed, message, hf_compat):
    call = {"height": 10, "width": 20, "stride": 28, "min_pixels": 100, "max_pixels": 1_003}
    with pytest.raises(MresError, match=f"^{re.escape(message)}$"):
        fit_size(**call | changed, hf_compat=hf_compat)


def test_hugging_faces_rule_refuses_strips_and_zero_sides_by_name():
    limits = {"stride": 28, "max_pixels": 10**6, "hf_compat": True}
    with pytest.raises(MresError, match=r"201 x 1 px has a ratio of 201\.0, but .* at most 200"):
        fit_size(1, 201, min_pixels=MIN_PIXELS, **limits)
    with pytest.raises(MresError, match="gives 400 x 13 px a side of 0 at min_pixels=0"):
        fit_size(13, 400, min_pixels=0, **limits)


def test_astronomic_sides_are_shrunk_too():
    size = fit_size(10**100, 3 * 10**100, stride=28, min_pixels=0, max_pixels=784 * 300)
    assert size == Size(10 * 28, 30 * 28)


@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 4))
def test_block_order_walks_each_merge_block_before_the_next(block_rows, block_columns, merge):
    rows, columns = block_rows * merge, block_columns * merge
    order = block_order(rows, columns, merge)
    assert sorted(order.tolist()) == list(range(rows * columns))
    expected = [
        (top * merge + i) * columns + left * merge + j
        for top in range(block_rows)
        for left in range(block_columns)
        for i in range(merge)
        for j in range(merge)
    ]
    assert order.tolist() == expected


@pytest.mark.parametrize(("rows", "columns", "merge"), [(3, 4, 2), (4, 3, 2), (2, 2, 0)])
def test_block_order_refuses_parts_of_blocks(rows, columns, merge):
    with pytest.raises(MresError, match=f"{rows} x {columns} patches are not whole blocks"):
        block_order(rows, columns, merge)

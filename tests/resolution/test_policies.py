"""One grammar, one view per picture, budgets that hold, pairs that cannot work refused."""

import dataclasses
import math

import pytest
from hypothesis import given, strategies as st

from mres_jax.data.spec import ChatTemplate, ProcessorSpec
from mres_jax.errors import PolicyError
from mres_jax.geometry import Box, Size, View, fit_size
from mres_jax.resolution.cost import native_visual_tokens, retention_ratio, visual_tokens
from mres_jax.resolution.policies import POLICIES, check_policy, parse_policy
from mres_jax.resolution.shrink import shrink_views_to

SPEC = ProcessorSpec(
    patch_size=14,
    merge_size=2,
    temporal_patch_size=2,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    min_pixels=4 * 28**2,
    max_pixels=4_096 * 28**2,
    image_token_id=1,
    pad_token_id=0,
    eos_token_ids=(2,),
    reserved_token_ids=(1,),
    template=ChatTemplate(system=None, turn_open="", turn_close="", image_open="", image_close=""),
    position_rule="plain",
    coord_frame="resized_px",
)
HF = dataclasses.replace(SPEC, resize_rule="hf")
SQUARE = dataclasses.replace(SPEC, image_size=336)
SIZE = st.builds(Size, st.integers(1, 4_000), st.integers(1, 4_000))
MODEST = st.builds(Size, st.integers(30, 4_000), st.integers(30, 4_000))  # ratio below 200
SPECS = st.sampled_from([SPEC, HF])
ALL = ("native", "fixed:336", "fixed:336,mode=pad", "fixed:336,mode=keep", "fixed,tokens=182")
ALL += ("scale:0.5", "scale:2.0", "budget:256")


def tokens_of(policy, sizes, spec=SPEC):
    """Visual tokens of each view."""
    return [visual_tokens([view], spec) for view in parse_policy(policy)(sizes, "", spec)]


@pytest.mark.parametrize("text", ALL)
def test_the_canonical_string_names_the_same_policy(text):
    assert str(parse_policy(text)) == text
    assert parse_policy(str(parse_policy(text))) == parse_policy(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (" budget : 256 ", "budget:256"),
        ("budget,tokens=256", None),
        ("scale:1", "scale:1.0"),
        ("fixed:336,mode=squash", "fixed:336"),
        ("fixed,tokens=182,mode=keep", "fixed,tokens=182"),
        ("fixed: 336 , mode = pad", "fixed:336,mode=pad"),
    ],
)
def test_one_meaning_has_one_spelling(text, canonical):
    if canonical is None:
        with pytest.raises(PolicyError, match="unknown option 'tokens'"):
            parse_policy(text)
    else:
        assert str(parse_policy(text)) == canonical


@pytest.mark.parametrize("text", ALL)
@given(sizes=st.lists(MODEST, max_size=4), spec=SPECS)
def test_every_picture_has_one_whole_view_of_whole_visual_tokens(text, sizes, spec):
    views = parse_policy(text)(sizes, "", spec)
    assert [view.item for view in views] == list(range(len(sizes)))
    for view, size in zip(views, sizes, strict=True):
        assert view.crop == Box(0, 0, *size)
        assert view.encoded_size.height % spec.stride == view.encoded_size.width % spec.stride == 0
        assert min(view.size) >= 1
        assert all(n <= m for n, m in zip(view.size, view.encoded_size, strict=True))


@given(st.lists(SIZE, min_size=1, max_size=4), st.integers(1, 5_000))
def test_a_budget_is_never_exceeded(sizes, budget):
    assert max(tokens_of(f"budget:{budget}", sizes)) <= budget


@given(st.lists(MODEST, min_size=1, max_size=4), st.integers(1, 5_000))
def test_a_budget_holds_under_hugging_face_s_rule_too(sizes, budget):
    """Their rule alone exceeds its own limit, as for 28 x 5600 px at 78,400."""
    assert max(tokens_of(f"budget:{budget}", sizes, HF)) <= budget


@given(st.lists(MODEST, min_size=1, max_size=4), st.integers(1, 5_000), SPECS)
def test_a_budget_never_enlarges(sizes, budget, spec):
    for low, high in zip(
        tokens_of(f"budget:{budget}", sizes, spec), tokens_of("native", sizes, spec), strict=True
    ):
        assert low <= high


@given(SIZE)
def test_native_keeps_the_limits_of_the_model(size):
    (tokens,) = tokens_of("native", [size])
    assert 1 <= tokens <= 4_096


@given(MODEST)
def test_native_follows_the_rule_that_the_model_names(size):
    (view,) = parse_policy("native")([size], "", HF)
    assert view.size == fit_size(
        *size,
        stride=28,
        min_pixels=SPEC.min_pixels,
        max_pixels=SPEC.max_pixels,
        hf_compat=True,
    )


@given(st.builds(Size, *[st.integers(280, 1_400)] * 2), st.sampled_from([0.25, 0.5, 0.75]))
def test_scale_retains_about_its_square(size, factor):
    """Each side rounds to whole tokens once natively and once scaled."""
    (scaled,), (native,) = (tokens_of(p, [size]) for p in (f"scale:{factor}", "native"))
    slack = 28 / min(size) / factor  # half a token each way, on two sides
    assert (1 - slack) * factor**2 <= scaled / native <= (1 + slack) ** 2 * factor**2


def test_scale_one_is_native():
    sizes = [Size(333, 777), Size(10, 10), Size(5_000, 5_000)]
    assert parse_policy("scale:1")(sizes, "", HF) == parse_policy("native")(sizes, "", HF)


@given(SIZE, st.sampled_from(["squash", "pad"]))
def test_fixed_sides_cost_the_same_for_every_picture(size, mode):
    (view,) = parse_policy(f"fixed:336,mode={mode}")([size], "", SQUARE)
    assert view.encoded_size == Size(336, 336)


@given(SIZE)
def test_padding_keeps_the_ratio(size):
    (view,) = parse_policy("fixed:336,mode=pad")([size], "", SPEC)
    assert max(view.size) == 336
    exact = 336 * min(size) / max(size)
    assert abs(min(view.size) - exact) <= 1
    # Also where the canvas adds less than half a pixel: it is padded before it is resized.
    assert (view.canvas is None) == (size.height == size.width)


def test_a_picture_that_is_nearly_square_is_padded_too():
    (view,) = parse_policy("fixed:336,mode=pad")([Size(999, 1_000)], "", SPEC)
    assert view.size == view.canvas == Size(336, 336)


@given(st.builds(Size, *[st.integers(100, 1_000)] * 2), st.integers(64, 1_000))
def test_fixed_tokens_are_nearly_spent_and_keep_the_ratio(size, tokens):
    (view,) = parse_policy(f"fixed,tokens={tokens}")([size], "", SPEC)
    spent = visual_tokens([view], SPEC)
    rows, columns = (extent // 28 for extent in view.size)
    # One row and one column may be lost to rounding down.
    assert (1 - 1 / (rows + 1)) * (1 - 1 / (columns + 1)) * tokens <= spent + 1 <= tokens + 1
    error = abs(math.log((rows / columns) / (size.height / size.width)))
    assert error <= 1 / rows + 1 / columns


def test_retention_is_one_when_native_and_above_one_when_enlarged():
    sizes = [Size(280, 280), Size(560, 280)]
    for policy, ratio in (("native", 1.0), ("scale:2", 4.0), ("scale:0.5", 0.25)):
        assert retention_ratio(parse_policy(policy)(sizes, "", SPEC), sizes, SPEC) == ratio
    assert native_visual_tokens(sizes, SPEC) == 300
    assert retention_ratio([], [], SPEC) == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "nativ",
            r"unknown policy 'nativ' \(did you mean native\?\); have native, fixed, tiles",
        ),
        ("xyz:3", r"unknown policy 'xyz'; have native"),
        ("", r"write name\[:value\]"),
        ("budget:", r"write name\[:value\]"),
        ("budget", r"policy budget: needs tokens, for example budget:256"),
        ("budget:many", r"tokens='many' is not a whole number"),
        ("budget:2.5", r"tokens='2.5' is not a whole number"),
        ("budget:0", r"tokens=0 must be at least 1"),
        ("budget:-4", r"tokens=-4 must be at least 1"),
        ("scale", r"policy scale: needs factor, for example scale:0.5"),
        ("scale:0", r"factor=0.0 must be above 0"),
        ("scale:nan", r"factor=nan must be above 0"),
        ("scale:inf", r"factor=inf must be above 0"),
        ("native:3", r"policy native: takes no value, got '3'"),
        ("native,mode=pad", r"unknown option 'mode'; have none"),
        ("fixed", r"give a side in pixels .* got neither"),
        ("fixed:336,tokens=4", r"give a side in pixels .* got both"),
        ("fixed:336,mod=pad", r"unknown option 'mod' \(did you mean mode\?\); have mode, tokens"),
        (
            "fixed:336,mode=padd",
            r"unknown mode 'padd' \(did you mean pad\?\); have squash, pad",
        ),
        ("fixed,tokens=182,mode=pad", r"tokens keeps the ratio, so mode=pad cannot be"),
        ("fixed:336,mode", r"'mode' is not key=value"),
        ("fixed:336,mode=pad,mode=keep", r"mode is given twice"),
    ],
)
def test_what_is_no_policy_is_refused(text, message):
    with pytest.raises(PolicyError, match=message):
        parse_policy(text)


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("native", SQUARE, r"policy native: the model takes only 336 x 336 px. Use fixed:336\."),
        ("scale:0.5", SQUARE, r"policy scale:0.5: the model takes only 336 x 336 px"),
        ("budget:64", SQUARE, r"policy budget:64: the model takes only 336 x 336 px"),
        ("fixed:448", SQUARE, r"policy fixed:448: the model takes only 336 x 336 px"),
        ("fixed,tokens=144", SQUARE, r"the model takes only 336 x 336 px. Use fixed:336\."),
        (
            "fixed:350",
            SPEC,
            r"350 px is not a multiple of the 28 px of a visual token. Use fixed:3",
        ),
        ("fixed:5600", SPEC, r"31360000 px are more than the model's max_pixels=3211264"),
        ("fixed,tokens=5000", SPEC, r"3920000 px are more than the model's max_pixels=3211264"),
        (
            "native",
            dataclasses.replace(SPEC, accepts=frozenset({"tile"})),
            r"takes tile, not images",
        ),
    ],
)
def test_a_policy_that_the_model_cannot_take_is_refused(text, spec, message):
    with pytest.raises(PolicyError, match=message):
        check_policy(parse_policy(text), spec)


@pytest.mark.parametrize("text", ["fixed:336", "fixed:336,mode=pad"])
def test_a_square_tower_takes_its_own_square(text):
    check_policy(parse_policy(text), SQUARE)


def test_the_table_names_each_policy_as_it_names_itself():
    assert {name: policy.name for name, policy in POLICIES.items()} == {n: n for n in POLICIES}


@given(st.lists(SIZE, min_size=1, max_size=5), st.integers(20, 20_000))
def test_shrunk_views_fit_and_small_ones_stay(sizes, max_patches):
    views = parse_policy("native")(sizes, "", SPEC)
    shrunk = shrink_views_to(views, max_patches=max_patches, spec=SPEC)
    spent = [4 * visual_tokens([view], SPEC) for view in shrunk.views]
    assert sum(spent) == shrunk.patches_after <= max_patches
    assert shrunk.patches_before == 4 * visual_tokens(views, SPEC)
    assert shrunk.is_smaller == (shrunk.patches_before > max_patches)
    fair = max_patches / len(views)  # a view within its even share is never touched
    for before, after in zip(views, shrunk.views, strict=True):
        if 4 * visual_tokens([before], SPEC) <= fair:
            assert before == after


def test_a_padded_view_that_fits_stays_while_others_shrink():
    padded = View(item=0, crop=Box(0, 0, 9, 18), size=Size(56, 112), canvas=Size(112, 112))
    (large,) = parse_policy("native")([Size(560, 560)], "", SPEC)
    shrunk = shrink_views_to([padded, large], max_patches=200, spec=SPEC)
    assert shrunk.views[0] == padded
    assert shrunk.patches_after <= 200


def test_what_was_shrunk_is_told():
    views = parse_policy("native")([Size(560, 560)], "", SPEC)
    assert str(shrink_views_to(views, max_patches=100, spec=SPEC)) == (
        "views shrunk from 1600 to 100 patches"
    )


@pytest.mark.parametrize(
    ("views", "max_patches", "message"),
    [
        (3, 11, r"3 views need at least 12 patches, but max_patches=11"),
        (1, 4, r"picture 0 has a fixed size of 16 visual tokens, but only 1 are left"),
    ],
)
def test_views_that_cannot_shrink_are_refused(views, max_patches, message):
    view = View(item=0, crop=Box(0, 0, 9, 9), size=Size(50, 112), canvas=Size(112, 112))
    with pytest.raises(PolicyError, match=message):
        shrink_views_to([view] * views, max_patches=max_patches, spec=SPEC)

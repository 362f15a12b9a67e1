"""The policy `split`, and what other policies do with a model of numbered squares."""

import pytest

from mres_jax import testing
from mres_jax.data.splits import split_views
from mres_jax.errors import PolicyError
from mres_jax.geometry import ClipSize, Size
from mres_jax.inference.view_json import view_from_json, whole_view_to_json
from mres_jax.resolution.cost import native_visual_tokens, retention_ratio, visual_tokens
from mres_jax.resolution.policies import check_extents, check_policy, parse_policy

SPEC = testing.tiny_smolvlm().spec
WIDE = Size(30, 50)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("split", 7),
        ("split:48", 5),
        ("split:24", 1),
        ("split,mode=whole", 1),
        ("tiles", 7),
        ("tiles,max=6", 7),
        ("tiles,max=5", 5),
        ("tiles,max=3", 1),
        ("tiles:24", 7),
        ("fixed:24", 1),
    ],
)
def test_views_of_a_wide_picture(text, count):
    policy = parse_policy(text)
    check_policy(policy, SPEC)
    views = policy([WIDE], "", SPEC)
    assert len(views) == count
    assert retention_ratio(views, [WIDE], SPEC) == count / 7


def test_native_is_the_split_that_the_model_was_trained_on():
    views = parse_policy(SPEC.default_policy)([WIDE, Size(9, 9)], "", SPEC)
    assert visual_tokens(views, SPEC) == native_visual_tokens([WIDE, Size(9, 9)], SPEC) == 17 * 9


def test_the_released_processor_s_wish_is_the_default_policy():
    whole = testing.tiny_smolvlm(do_image_splitting=False).spec
    assert whole.default_policy == "split,mode=whole"
    longer = testing.tiny_smolvlm(size={"longest_edge": 50}).spec
    assert parse_policy("split")([WIDE], "", longer) == split_views(0, WIDE, SPEC.split, longest=50)


def test_a_view_comes_back_from_json():
    for view in split_views(3, WIDE, SPEC.split, longest=72):
        assert view_from_json(whole_view_to_json(view, SPEC)) == view


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("native", SPEC, r"the model takes only 24 x 24 px. Use fixed:24 or split."),
        ("budget:9", SPEC, r"the model takes only 24 x 24 px. Use fixed:24 or split."),
        ("scale:0.5", SPEC, r"the model takes only 24 x 24 px. Use fixed:24 or split."),
        ("tiles:48", SPEC, r"the model's tiles have 24 px. Use tiles:24"),
        ("split:96", SPEC, r"96 px are 4 squares of 24 px, .* at most 3. Use split:72"),
        ("split", testing.tiny_qwen2_vl().spec, r"not trained on numbered squares. Use native"),
    ],
)
def test_what_the_model_cannot_take_is_refused(text, spec, message):
    with pytest.raises(PolicyError, match=message):
        check_policy(parse_policy(text), spec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("split:0", "longest=0 is not 1 to 4096 px"),
        ("split:5000", "longest=5000 is not 1 to 4096 px"),
        ("split,mode=square", "unknown mode 'square'.*did you mean.*squares.*have squares, whole"),
    ],
)
def test_what_cannot_be_is_refused(text, message):
    with pytest.raises(PolicyError, match=message):
        parse_policy(text)


@pytest.mark.parametrize("text", ["split", "split:48", "split,mode=whole", "fixed:24"])
def test_each_frame_of_a_clip_is_one_square(text):
    """Released processors never cut frames; `split` brings them to their longest side first."""
    clip = ClipSize(WIDE, (0.0, 1.0, 2.5), 4.0)
    policy = parse_policy(text)
    check_policy(policy, SPEC)
    check_extents(policy, [WIDE, clip], SPEC)
    views = [view for view in policy([WIDE, clip], "", SPEC) if view.item]
    assert [(view.frames, view.time) for view in views] == [((0,), 0.0), ((1,), 1.0), ((2,), 2.5)]
    assert {view.encoded_size for view in views} == {(24, 24)}
    assert {view.clip_seconds for view in views} == {4.0}
    assert {view.through for view in views} == {() if "fixed" in text else (Size(44, 72),)}
    assert retention_ratio(views, [clip], SPEC) == 1
    assert all(view_from_json(whole_view_to_json(view, SPEC)) == view for view in views)


def test_policies_that_cut_pictures_refuse_clips():
    with pytest.raises(PolicyError, match="policy tiles: takes pictures, no clips"):
        check_extents(parse_policy("tiles"), [ClipSize(WIDE, (0.0, 1.0))], SPEC)

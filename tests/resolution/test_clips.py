"""Policies over clips: one size for all frames, a budget for the whole, Hugging Face's limits."""

import dataclasses
import math

import pytest
from hypothesis import given, settings, strategies as st

from mres_jax.data.spec import VideoSpec
from mres_jax.errors import PolicyError
from mres_jax.geometry import ClipSize, Size
from mres_jax.resolution.clips import fit_clip_size, frame_limits
from mres_jax.resolution.cost import native_visual_tokens, retention_ratio, visual_tokens
from mres_jax.resolution.policies import POLICIES, check_extents, parse_policy
from mres_jax.resolution.policy import Policy
from mres_jax.resolution.shrink import shrink_views_to
from mres_jax.testing import tiny_spec, tiny_tokenizer

QWEN2 = VideoSpec(
    token_id=3, min_pixels=128 * 28**2, max_pixels=768 * 28**2, total_pixels=115_200 * 28**2
)
STILLS = dataclasses.replace(
    tiny_spec(tiny_tokenizer()),
    patch_size=14,
    temporal_patch_size=2,
    min_pixels=56 * 56,
    max_pixels=16_384 * 28**2,
)
SPEC = dataclasses.replace(STILLS, accepts=frozenset({"image", "frame"}), video=QWEN2)
HF = dataclasses.replace(SPEC, resize_rule="hf")
WHOLE = dataclasses.replace(
    SPEC,
    patch_size=16,
    video=VideoSpec(token_id=3, min_pixels=4_096, max_pixels=25_165_824, limits="clip"),
)
SIDES = st.integers(30, 3_000)
CLIPS = st.builds(
    lambda height, width, frames: ClipSize(
        Size(height, width), tuple(i / 2 for i in range(frames))
    ),
    SIDES,
    SIDES,
    st.integers(2, 60),
)
FEW = settings(max_examples=25)  # each makes and checks dozens of views
ALL = ("native", "fixed:336", "fixed:336,mode=pad", "fixed:336,mode=keep", "scale:0.5")
ALL += ("budget:4000", "fixed,tokens=700")


def clip(height, width, frames):
    return ClipSize(Size(height, width), tuple(i / 2 for i in range(frames)))


@pytest.mark.parametrize("policy", ALL)
@FEW
@given(size=CLIPS)
def test_a_clip_has_a_view_per_two_frames_all_of_one_size_between_pictures(policy, size):
    views = parse_policy(policy)([Size(400, 300), size, Size(50, 60)], "", SPEC)
    assert [view.item for view in views] == [0, *[1] * -(-len(size.times) // 2), 2]
    of_clip = views[1:-1]
    shown = dict.fromkeys(frame for view in of_clip for frame in view.frames)
    assert list(shown) == list(range(len(size.times)))
    assert len({(view.size, view.canvas, view.crop) for view in of_clip}) == 1
    assert all(view.kind == "frame" for view in of_clip)
    first, last = (size.times[i] for i in of_clip[-1].frames)
    assert of_clip[-1].time == (first + last) / 2
    assert [view.kind for view in (views[0], views[-1])] == ["image", "image"]


@FEW
@given(CLIPS, st.integers(1, 20_000))
def test_a_budget_holds_for_all_frames_together_or_is_refused(size, tokens):
    policy = parse_policy(f"budget:{tokens}")
    if tokens < SPEC.num_views(size):
        with pytest.raises(PolicyError, match=r"need at least \d+ visual tokens"):
            policy([size], "", SPEC)
        return
    views = policy([size], "", SPEC)
    assert visual_tokens(views, SPEC) <= tokens
    native = native_visual_tokens([size], SPEC)
    assert retention_ratio(views, [size], SPEC) == visual_tokens(views, SPEC) / native


@FEW
@given(CLIPS)
def test_native_frames_keep_the_limits_of_a_frame_and_of_the_clip(size):
    smallest, largest = frame_limits(len(size.times), SPEC)
    views = parse_policy("native")([size], "", SPEC)
    assert all(view.size.area <= largest for view in views)
    share = QWEN2.total_pixels * 2 // len(size.times)
    assert largest == max(min(QWEN2.max_pixels, share), int(1.05 * smallest))
    assert retention_ratio(views, [size], SPEC) == 1.0


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((720, 1_280, 32), (560, 1_008)),  # of docs and of ResAdapt's evaluation
        ((240, 320, 8), (280, 392)),  # enlarged to 128 visual tokens
        ((1_080, 1_920, 768), (336, 644)),  # its share of 115,200 visual tokens
        ((64, 64, 4), (336, 336)),
    ],
)
def test_frames_of_known_sizes_under_the_rule_of_qwen2_vl(size, expected):
    assert parse_policy("native")([clip(*size)], "", HF)[0].size == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((720, 1_280, 8), (704, 1_280)),
        ((720, 1_280, 128), (320, 576)),
        ((720, 1_280, 768), (128, 224)),
        ((20, 40, 4), (32, 64)),
    ],
)
def test_frames_of_known_sizes_under_the_rule_of_qwen3_vl(size, expected):
    spec = dataclasses.replace(WHOLE, resize_rule="hf")
    assert parse_policy("native")([clip(*size)], "", spec)[0].size == expected


@FEW
@given(CLIPS)
def test_limits_of_a_whole_clip_hold_under_our_own_rule(size):
    views = parse_policy("native")([size], "", WHOLE)
    assert sum(view.size.area for view in views) * 2 <= 25_165_824 + 2 * views[0].size.area
    exact = math.prod(views[0].size) * len(size.times)
    assert exact <= 25_165_824


def test_more_frames_than_leave_each_a_visual_token_are_refused():
    spec = dataclasses.replace(
        WHOLE, video=VideoSpec(token_id=3, min_pixels=1, max_pixels=32**2 * 10, limits="clip")
    )
    with pytest.raises(PolicyError, match="clip of 11 frames leaves 930 px for each, less than"):
        parse_policy("native")([clip(64, 64, 11)], "", spec)


def test_strips_beyond_the_ratio_of_hugging_face_are_refused():
    with pytest.raises(PolicyError, match=r"ratio of 250\.0"):
        fit_clip_size(100, 25_000, num_frames=4, group=2, stride=32, min_pixels=1, max_pixels=10**9)


def test_a_fixed_size_beyond_a_frame_s_share_is_refused():
    with pytest.raises(PolicyError, match=r"806400 px|more than the .* px that the model has"):
        parse_policy("fixed:896")([clip(900, 900, 8)], "", SPEC)


def test_models_and_policies_of_pictures_alone_refuse_clips():
    class OfPictures(Policy):
        name, example = "of_pictures", "of_pictures"

        def __call__(self, sizes, question, spec):
            return []

    one = clip(64, 64, 4)
    with pytest.raises(PolicyError, match="the model takes image, tile, no clips"):
        check_extents(POLICIES["native"](), [one], STILLS)
    with pytest.raises(
        PolicyError, match=r"takes pictures, no clips\. Use native, fixed, split, scale"
    ):
        check_extents(OfPictures(), [one], SPEC)
    check_extents(OfPictures(), [Size(3, 4)], STILLS)
    with pytest.raises(PolicyError, match="no clips"):
        parse_policy("native")([one], "", STILLS)


def test_shrinking_keeps_frames_and_times():
    views = parse_policy("native")([clip(720, 1_280, 8)], "", SPEC)
    shrunk = shrink_views_to(views, max_patches=1_000, spec=SPEC).views
    assert [(v.frames, v.time) for v in shrunk] == [(v.frames, v.time) for v in views]
    assert visual_tokens(shrunk, SPEC) <= 250

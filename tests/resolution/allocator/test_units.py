"""What has a size of its own: pictures, and frames that are seen together."""

import dataclasses

import numpy as np
import pytest

from mres_jax.geometry import ClipSize, Size
from mres_jax.models.qwen2_vl.processor import MAX_PIXELS, MIN_PIXELS, video_spec
from mres_jax.models.qwen3_vl import processor as qwen3_vl
from mres_jax.resolution.allocator.budget import allocate, allocate_within, retention_tokens
from mres_jax.resolution.allocator.units import unit_scales, unit_views, units_of
from mres_jax.resolution.cost import retention_ratio
from mres_jax.resolution.uniform import native_size, scaled_size
from mres_jax.testing import tiny_qwen2_vl, tiny_qwen3_vl
from mres_jax.training.allocator.prompts import limit_pixels
from mres_jax.training.allocator.served import pixel_limits

CLIP = ClipSize(Size(32, 48), (0.0, 0.5, 1.0))  # three frames: a pair, and one seen twice
EXTENTS = [Size(16, 24), CLIP]
SCALES = (0.2, 0.25, 0.35, 0.5, 1.0, 1.4, 1.8)


def qwen2_5_vl():
    """The processor of Qwen2.5-VL as it is released."""
    video = video_spec({}, token_id=3, stride=28, group=2)
    limits = {"min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS}
    spec = dataclasses.replace(tiny_qwen2_vl().spec, patch_size=14, merge_size=2, **limits)
    return dataclasses.replace(spec, video=video, resize_rule="hf")


def tokens_of_pairs(size, spec, scales=SCALES):
    """Visual tokens of a pair of frames of a clip of 128 at each scale."""
    clip = ClipSize(size, tuple(i / 2 for i in range(128)))
    return [allocate([scale], [clip], spec).tokens[0] for scale in scales]


def test_pairs_of_a_clip_share_the_mean_of_their_scales_and_their_views_say_so():
    spec = tiny_qwen2_vl().spec
    units = units_of(EXTENTS, spec)
    assert [(unit.item, unit.frames) for unit in units] == [(0, (0,)), (1, (1, 2)), (1, (3, 3))]
    scales = unit_scales(np.array([1.0, 0.4, 0.8, 0.5]), units)
    np.testing.assert_allclose(scales, [1.0, 0.6, 0.5])
    allocation = allocate(scales.tolist(), [unit.extent for unit in units], spec)
    views = unit_views(units, allocation)
    assert [view.frames for view in views] == [(), (0, 1), (2, 2)]
    assert [view.time for view in views] == [None, 0.25, 1.0]
    assert views[1].size.area > views[2].size.area
    assert allocation.retention == retention_ratio(views, EXTENTS, spec)


def test_a_budget_holds_over_pictures_and_clips_together():
    spec = tiny_qwen2_vl().spec
    units = units_of(EXTENTS, spec)
    extents = [unit.extent for unit in units]
    tokens = retention_tokens(0.5, extents, spec)
    allocation = allocate_within([1.0, 1.0, 0.2], extents, spec, tokens=tokens, max_scale=1.8)
    assert sum(allocation.tokens) <= tokens
    assert allocation.tokens[1] > allocation.tokens[2]


@pytest.mark.parametrize(
    ("size", "tokens"),
    [  # of Qwen2.5-VL's rounding, by hand: 18 x 10 tokens at 0.5, 7 x 4 at 0.2
        (Size(720, 1_280), [28, 45, 91, 180, 720, 740, 740]),
        (Size(480, 854), [18, 32, 60, 120, 510, 720, 720]),
    ],
)
def test_pairs_go_down_to_the_smallest_picture_and_a_scale_of_a_clip_does_not(size, tokens):
    spec = qwen2_5_vl()
    found = tokens_of_pairs(size, spec)
    assert found[:5] == tokens[:5]
    np.testing.assert_allclose(found, tokens, rtol=0.051)  # at the limit our rule has some more
    assert 4 <= tokens_of_pairs(size, spec, (0.01,))[0] <= 6  # 56 x 56 px, or the next grid
    clip = ClipSize(size, tuple(i / 2 for i in range(128)))
    assert scaled_size(clip, 0.2, spec).area >= 128 * 28**2


def test_pairs_of_a_model_whose_clips_may_be_small_stay_as_small_as_they_were():
    video = qwen3_vl.video_spec({}, token_id=3, stride=32, group=2)
    spec = dataclasses.replace(
        tiny_qwen3_vl().spec,
        patch_size=16,
        min_pixels=qwen3_vl.MIN_PIXELS,
        max_pixels=qwen3_vl.MAX_PIXELS,
        video=video,
    )
    clip = ClipSize(Size(720, 1_280), tuple(i / 2 for i in range(16)))
    assert allocate([0.2], [clip], spec).sizes[0] == scaled_size(clip, 0.2, spec)
    assert allocate([0.2], [clip], spec).tokens[0] < qwen3_vl.MIN_PIXELS // 32**2


@pytest.mark.parametrize("size", [Size(720, 1_280), Size(480, 854), Size(240, 320)])
@pytest.mark.parametrize("model", ["qwen2_5_vl", "stills", "qwen3_vl"])
def test_a_limit_of_pixels_is_that_of_scale_1_and_every_scale_has_a_size_of_its_own(size, model):
    spec = qwen2_5_vl()
    if model == "qwen3_vl":
        video = qwen3_vl.video_spec({}, token_id=3, stride=28, group=2)
        spec = dataclasses.replace(spec, video=video)
    limited = limit_pixels(spec, 128 * 28**2)
    clip = ClipSize(size, tuple(i / 2 for i in range(16)))
    extent = size if model == "stills" else clip
    base = native_size(extent, limited).area // 28**2
    assert 80 <= base <= 128
    assert native_size(extent, spec).area // 28**2 >= base
    found = [allocate([scale], [extent], limited).tokens[0] for scale in SCALES]
    assert found == sorted(found)
    assert len(set(found[1:])) == len(SCALES) - 1  # 320 x 240 has 2 x 3 tokens at 0.2 and at 0.25
    assert found[4] == base
    np.testing.assert_allclose(found[3:], base * np.square(SCALES[3:]), rtol=0.2)
    told = pixel_limits(limited)  # to a server, which is not to resize what it gets
    ends = [allocate([scale], [extent], limited).tokens[0] * 28**2 for scale in (0.01, 9.0)]
    assert told["min_pixels"] <= ends[0] <= ends[1] <= told["max_pixels"]

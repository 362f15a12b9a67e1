"""What has a size of its own: pictures, and frames that are seen together."""

import numpy as np

from mres_jax.geometry import ClipSize, Size
from mres_jax.resolution.allocator.budget import allocate, allocate_within, retention_tokens
from mres_jax.resolution.allocator.units import unit_scales, unit_views, units_of
from mres_jax.resolution.cost import retention_ratio
from mres_jax.testing import tiny_qwen2_vl

CLIP = ClipSize(Size(32, 48), (0.0, 0.5, 1.0))  # three frames: a pair, and one seen twice
EXTENTS = [Size(16, 24), CLIP]


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

"""Drawn packs show what the plan says."""

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from mres_jax.data.packing import plan_packs
from mres_jax.data.types import ExampleSize, Rung
from mres_jax.evaluation.occupancy import _draw_bars, draw_occupancy

LADDER = (Rung(max_patches=64, max_tokens=40, max_views=8, max_examples=8),)


def test_blocks_lie_behind_one_another_inside_their_pack():
    axes = Figure().subplots()
    taken, rooms = [[10, 20, 5], [40], []], [64, 64, 32]
    _draw_bars(axes, taken, rooms)
    boxes = [patch.get_bbox() for patch in axes.patches]
    np.testing.assert_array_equal([[box.x0, box.x1] for box in boxes[:3]], [[0, r] for r in rooms])
    blocks = [[box.x0, box.x1] for box in boxes[3:]]
    np.testing.assert_array_equal(blocks, [[0, 10], [10, 30], [30, 35], [0, 40]])


def test_a_figure_has_a_row_for_every_pack():
    sizes = [ExampleSize(30, 12, 1)] * 7
    few, many = (
        Image.open(io.BytesIO(draw_occupancy(sizes, plans)))
        for plans in (plan_packs(sizes, LADDER)[:1], plan_packs(sizes, LADDER))
    )
    assert len(plan_packs(sizes, LADDER)) == 4
    assert many.height > few.height
    blue = (np.asarray(many.convert("RGB")) == (0, 114, 178)).all(-1)
    assert blue.any()

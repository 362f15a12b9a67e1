"""What the host computes for towers, against the functions of `transformers` over random grids."""

import numpy as np
import pytest

from mres_jax.data.position_weights import position_weights
from mres_jax.data.spec import PositionTable
from mres_jax.data.windows import window_layout
from mres_jax.geometry import Grid

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
vision_utils = pytest.importorskip("transformers.vision_utils")


def random_grids(rng: np.random.Generator, merge_size: int) -> list[Grid]:
    sides = merge_size * rng.integers(1, 30, (rng.integers(1, 6), 2))
    return [Grid(int(rng.integers(1, 3)), int(h), int(w)) for h, w in sides]


def test_windows_are_theirs_over_200_packs():
    rng = np.random.default_rng(0)
    for _ in range(200):
        patch_size, merge_size, side = (int(n) for n in rng.integers(1, (17, 4, 6)))
        grids = random_grids(rng, merge_size)
        spare = int(rng.integers(0, merge_size * patch_size))  # pixels that no window has
        blocks, ends = vision_utils.get_vision_window_index(
            torch.tensor(grids),
            spatial_merge_size=merge_size,
            window_size=side * merge_size * patch_size + spare,
            patch_size=patch_size,
        )
        ours = window_layout(grids, side=side, merge_size=merge_size)
        unit = merge_size**2
        order = blocks.numpy()[:, None] * unit + np.arange(unit)
        np.testing.assert_array_equal(ours.order, order.reshape(-1))
        lengths = np.diff(ends.numpy())
        np.testing.assert_array_equal(np.bincount(ours.segment_ids)[1:], lengths)
        np.testing.assert_array_equal(np.diff(ours.segment_ids, prepend=0) >= 0, True)


def test_position_weights_are_theirs_over_200_packs():
    rng = np.random.default_rng(0)
    for _ in range(200):
        merge_size, side = (int(n) for n in rng.integers(1, (4, 60)))
        grids = random_grids(rng, merge_size)
        index, weight = vision_utils.get_vision_interpolation_indices_and_weights(
            torch.tensor(grids),
            num_grid_per_side=side,
            mode="bilinear",
            align_corners=True,
            spatial_merge_size=merge_size,
        )
        table = PositionTable(side=side, resize="linear_corners")
        ours = position_weights(grids, table, merge_size=merge_size)
        cells = np.einsum("pi,pj->pij", *ours.swapaxes(0, 1)).reshape(len(ours), -1)
        theirs = np.zeros_like(cells)
        np.add.at(theirs, (np.arange(len(ours))[:, None], index.numpy()), weight.numpy())
        # places of up to 58 in float32 there, in float64 here
        np.testing.assert_allclose(cells, theirs, rtol=0, atol=1e-5)

"""Laws of patch rows: what lies where, and that nothing is lost."""

import re

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mres_jax.data.patches import block_positions, patchify, unpatchify
from mres_jax.errors import MresError
from mres_jax.geometry import Grid


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
def test_unpatchify_gives_back_the_picture(rows, columns, patch_size, merge_size):
    sizes = {"patch_size": patch_size, "merge_size": merge_size}
    stride = patch_size * merge_size
    image = picture(rows * stride, columns * stride)
    patches, positions = patchify(image, **sizes)
    grid = Grid(1, rows * merge_size, columns * merge_size)
    assert (patches.dtype, positions.dtype) == (np.uint8, np.int32)
    assert patches.shape == (grid.num_patches, 3 * patch_size**2)
    np.testing.assert_array_equal(unpatchify(patches, grid, **sizes), image)
    np.testing.assert_array_equal(positions, block_positions(grid, merge_size=merge_size))


def test_a_row_is_the_patch_at_its_position_in_the_order_channel_row_column():
    image = picture(12, 24)
    patches, positions = patchify(image, patch_size=3, merge_size=2)
    for patch, (row, column) in zip(patches, positions, strict=True):
        block = image[3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        np.testing.assert_array_equal(patch.reshape(3, 3, 3), block.transpose(2, 0, 1))


def test_the_patches_of_one_visual_token_are_consecutive():
    _, positions = patchify(picture(16, 24), patch_size=4, merge_size=2)
    tokens = positions.reshape(-1, 4, 2) // 2
    assert (tokens == tokens[:, :1]).all()
    assert len({tuple(token) for token in tokens[:, 0]}) == len(tokens)


def test_part_of_a_picture_in_memory_is_cut_like_a_picture_of_its_own():
    image = picture(20, 20)
    part = image[3:11, 5:17]
    np.testing.assert_array_equal(
        patchify(part, patch_size=2, merge_size=2)[0],
        patchify(part.copy(), patch_size=2, merge_size=2)[0],
    )


def test_patches_do_not_share_memory_with_the_picture():
    image = picture(4, 4)
    patches, _ = patchify(image, patch_size=4, merge_size=1)
    assert not np.shares_memory(patches, image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            picture(28, 30),
            "patchify: a view of 30 x 28 px is not whole visual tokens of 28 px (patch_size=14, "
            "merge_size=2). Choose its size with fit_size.",
        ),
        (
            np.full((28, 28, 3), np.nan, np.float32),
            "patchify: a picture must be uint8 [height, width, 3], got float32 [28, 28, 3]. Use "
            "decode_image.",
        ),
        (
            picture(28, 28).transpose(2, 0, 1),
            "patchify: a picture must be uint8 [height, width, 3], got uint8 [3, 28, 28]. Use "
            "decode_image.",
        ),
        (
            picture(0, 28),
            "patchify: a picture must be uint8 [height, width, 3], got uint8 [0, 28, 3]. Use "
            "decode_image.",
        ),
    ],
)
def test_arrays_that_are_no_view_are_named(image, message):
    with pytest.raises(MresError, match=f"^{re.escape(message)}$"):
        patchify(image, patch_size=14, merge_size=2)


def test_unpatchify_names_the_shape_it_expected():
    message = (
        "unpatchify: patches of shape [3, 12] are not a still view of grid_thw=(1, 2, 2) with "
        "patch_size=2, which has [4, 12]."
    )
    with pytest.raises(MresError, match=f"^{re.escape(message)}$"):
        unpatchify(np.zeros((3, 12), np.uint8), Grid(1, 2, 2), patch_size=2, merge_size=2)

"""Pictures of what a model saw: the pixels themselves, ruled where tokens meet."""

import io

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.views import render_view
from mres_jax.geometry import Box, Size, View
from mres_jax.inference.show import (
    GRID_COLOUR,
    draw_crop,
    draw_token_grid,
    file_stem,
    show_views,
    zoom_of,
)
from mres_jax.testing.tiny import tiny_qwen2_vl


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_the_saved_view_is_bit_for_bit_what_the_encoder_gets():
    image = noise(60, 90)
    view = View(item=0, crop=Box(10, 20, 58, 84), size=Size(24, 32))
    files = show_views([image], [view], tiny_qwen2_vl().spec, name="native")
    with Image.open(io.BytesIO(files["native-item0-view.png"])) as saved:
        assert np.array_equal(np.asarray(saved), render_view(image, view))
    assert set(files) == {f"native-item0-{kind}.png" for kind in ("view", "tokens", "crop")}


def test_several_views_of_a_picture_get_names_of_their_own():
    image = noise(60, 90)
    views = [
        View(item=0, crop=Box(0, 0, 60, 45), size=Size(16, 16)),
        View(item=0, crop=Box(0, 45, 60, 90), size=Size(16, 16)),
    ]
    assert len(show_views([image], views, tiny_qwen2_vl().spec, name="native")) == 6


def test_ruling_enlarges_without_smoothing_and_marks_token_edges_only():
    pixels = noise(16, 24)
    drawn = draw_token_grid(pixels, 8, zoom=5, strength=1.0)
    assert drawn.shape == (80, 120, 3)
    is_line = (drawn == GRID_COLOUR).all(-1)
    assert is_line[[0, 40, 79]].all()
    assert is_line[:, [0, 40, 80, 119]].all()
    assert np.array_equal(drawn[2::5, 2::5], pixels)  # the middle of every enlarged pixel


def test_a_crop_keeps_its_pixels_inside_a_frame_and_fades_the_rest():
    image = np.zeros((100, 200, 3), np.uint8)
    drawn = draw_crop(image, Box(20, 40, 80, 160))
    assert (drawn[50, 100] == 0).all()
    assert (drawn[20, 100] == GRID_COLOUR).all()
    assert (drawn[79, 100] == GRID_COLOUR).all()
    assert (drawn[5, 5] == 153).all()


@pytest.mark.parametrize(
    ("size", "zoom"), [((16, 16), 16), ((64, 640), 1), ((2000, 3000), 1), ((8, 160), 4)]
)
def test_small_views_are_enlarged_and_large_ones_left(size, zoom):
    assert zoom_of(*size) == zoom


def test_a_policy_is_a_safe_file_name():
    assert file_stem("../fixed:336, mode=pad") == "fixed-336-mode-pad"
    assert file_stem("???") == "view"

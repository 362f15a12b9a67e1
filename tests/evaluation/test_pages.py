"""The part of a view that holds an answer."""

import numpy as np
import pytest

from mres_jax.data.views import render_view
from mres_jax.evaluation.pages import cut_detail
from mres_jax.geometry import Box, Size, View

ANSWER = Box(40, 100, 52, 160)  # drawn black on white; a third of 12 px is left around it


def page() -> np.ndarray:
    image = np.full((96, 192, 3), 255, np.uint8)
    image[ANSWER.top : ANSWER.bottom, ANSWER.left : ANSWER.right] = 0
    return image


@pytest.mark.parametrize(
    "view",
    [
        View(item=0, crop=Box(0, 0, 96, 192), size=Size(96, 192)),
        View(item=0, crop=Box(0, 0, 96, 192), size=Size(48, 96)),
        View(item=0, crop=Box(0, 0, 96, 192), size=Size(64, 64)),  # squashed
        View(item=0, crop=Box(0, 0, 96, 192), size=Size(32, 64), canvas=Size(64, 64)),
        View(item=0, crop=Box(16, 64, 80, 192), size=Size(64, 128)),
    ],
)
def test_the_detail_holds_the_whole_answer_and_little_else(view):
    pixels = render_view(page(), view)
    detail = cut_detail(pixels, view, ANSWER)
    dark = (pixels < 128).all(-1)
    assert (detail < 128).all(-1).sum() == dark.sum() > 0
    assert detail.shape[0] * detail.shape[1] < 3.5 * dark.sum()


def test_an_answer_outside_the_crop_still_has_a_detail_of_one_pixel():
    view = View(item=0, crop=Box(0, 0, 16, 16), size=Size(16, 16))
    assert cut_detail(render_view(page(), view), view, ANSWER).size

"""The picture of one page under several policies."""

import io

import numpy as np
import pytest
from PIL import Image

from mres_jax.evaluation.figures import RIGHT, WRONG, Panel, draw_policies


def panel(policy: str, height: int, width: int, *, is_right: bool, answer: str = "47") -> Panel:
    pixels = np.full((height, width, 3), 200, np.uint8)
    return Panel(policy, pixels, answer, is_right, height * width // 256, 1.0)


def draw(panels: list[Panel]) -> np.ndarray:
    made = draw_policies(panels, question="What is $the$ total?", expected="47", stride=16)
    with Image.open(io.BytesIO(made)) as image:
        return np.asarray(image.convert("RGB"))


def has_colour(picture: np.ndarray, colour: str) -> bool:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((picture == rgb).all(-1).any())


@pytest.mark.parametrize("shape", [(16, 16), (32, 512), (512, 64), (768, 768)])
def test_any_shape_of_view_fits_the_page(shape):
    picture = draw([panel("native", *shape, is_right=True)])
    height, width = picture.shape[:2]
    assert width == 1350
    assert height < 800


def test_right_and_wrong_are_told_by_colour():
    right = draw([panel("native", 32, 256, is_right=True)])
    both = draw([panel(str(ok), 32, 256, is_right=ok) for ok in (True, False)])
    assert has_colour(right, RIGHT)
    assert not has_colour(right, WRONG)
    assert has_colour(both, RIGHT)
    assert has_colour(both, WRONG)


def test_answers_that_no_font_has_are_drawn_as_boxes():
    draw([panel("native", 32, 256, is_right=False, answer="\x08\u4e2d\U0001f600")])

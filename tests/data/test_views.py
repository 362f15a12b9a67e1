"""Laws of rendering a view: exact where nothing is resized, blind to what lies outside the crop."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from mres_jax.data import views
from mres_jax.data.shown import show
from mres_jax.data.views import render_view
from mres_jax.errors import MresError
from mres_jax.geometry import Box, Size, View
from mres_jax.testing import tiny_llava


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def view(crop, size=None, **fields):
    crop = Box(*crop)
    return View(item=0, crop=crop, size=size or crop.size, **fields)


@given(st.data(), st.integers(1, 30), st.integers(1, 30))
def test_a_crop_at_its_own_size_is_bit_exact(data, height, width):
    image = picture(height, width)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom = data.draw(st.integers(top + 1, height))
    right = data.draw(st.integers(left + 1, width))
    out = render_view(image, view((top, left, bottom, right)))
    np.testing.assert_array_equal(out, image[top:bottom, left:right])


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_resized_view_has_the_pixels_of_pillows_bicubic_filter(height, width):
    image = picture(23, 31)
    out = render_view(image, view((0, 0, 23, 31), Size(height, width)))
    expected = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(out, np.asarray(expected))


@given(st.integers(1, 40), st.integers(1, 40))
def test_pixels_outside_the_crop_change_nothing(height, width):
    one, other = picture(30, 40, seed=1), picture(30, 40, seed=2)
    crop = Box(7, 9, 20, 33)
    inside = (slice(crop.top, crop.bottom), slice(crop.left, crop.right))
    other[inside] = one[inside]
    seen = view(crop, Size(height, width))
    np.testing.assert_array_equal(render_view(one, seen), render_view(other, seen))


@given(st.data(), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_a_picture_still_in_pillow_gives_the_views_of_its_array(data, height, width, own_size):
    image = picture(20, 30)
    before = image.copy()
    top, left = data.draw(st.integers(0, 19)), data.draw(st.integers(0, 29))
    bottom, right = data.draw(st.integers(top + 1, 20)), data.draw(st.integers(left + 1, 30))
    crop = (top, left, bottom, right) if data.draw(st.booleans()) else (0, 0, 20, 30)
    size = None if own_size else Size(height, width)
    canvas = data.draw(st.sampled_from([None, Size(40, 40)]))
    seen, pillow = view(crop, size, canvas=canvas), Image.fromarray(image)
    out = render_view(pillow, seen)
    assert (out.dtype, out.flags.c_contiguous) == (np.uint8, True)
    np.testing.assert_array_equal(out, render_view(image, seen))
    np.testing.assert_array_equal(np.asarray(pillow), before)


def test_a_canvas_holds_the_resized_crop_in_its_middle_on_grey():
    image = picture(10, 20)
    out = render_view(image, view((0, 0, 10, 20), Size(5, 10), canvas=Size(10, 10)))
    assert out.shape == (10, 10, 3)
    plain = render_view(image, view((0, 0, 10, 20), Size(5, 10)))
    np.testing.assert_array_equal(out[2:7], plain)
    assert (out[:2] == 128).all()
    assert (out[7:] == 128).all()


def test_the_canvas_takes_the_stated_background():
    image = picture(4, 4)
    out = render_view(image, view((0, 0, 4, 4), canvas=Size(4, 6)), background=(1, 2, 3))
    assert out[:, 0].tolist() == [[1, 2, 3]] * 4
    assert out[:, 5].tolist() == [[1, 2, 3]] * 4


def middle(height, width, side):
    """The view of `fixed:side,mode=crop`."""
    short = min(height, width)
    size = Size(*(side if n == short else side * n // short for n in (height, width)))
    top, left = (size.height - side) // 2, (size.width - side) // 2
    return view((0, 0, height, width), size, window=Box(top, left, top + side, left + side))


@pytest.mark.parametrize("resample", ["bicubic", "lanczos", "bilinear"])
@given(st.integers(1, 30), st.floats(1.05, 30), st.integers(1, 50), st.booleans())
def test_a_window_made_alone_is_the_one_that_is_cut_out(resample, short, ratio, side, is_tall):
    """A tall one that shrinks is left out: Pillow takes its columns first from version 13 on."""
    long = int(short * ratio) + 1
    size = (long, max(1, min(short, side))) if is_tall else (short, long)
    image, seen = picture(*size), middle(*size, side)
    cut = render_view(image, seen, resample=resample).astype(int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "MAX_WHOLE", 0)
        alone = render_view(image, seen, resample=resample).astype(int)
    difference = np.abs(cut - alone)
    assert difference.max() <= 2
    assert (difference > 0).mean() <= 0.05


@pytest.mark.parametrize("is_tall", [True, False])
def test_the_middle_of_a_long_strip_is_seen_without_the_strip(is_tall):
    """Enlarged whole, it would have 336 x 672,000,336 px; only what is near its middle counts."""
    shape = (2_000_001, 1) if is_tall else (1, 2_000_001)
    image = picture(*shape)
    seen = middle(*shape, 336)
    near = image[999_980:1_000_021] if is_tall else image[:, 999_980:1_000_021]
    expected = render_view(near, middle(*near.shape[:2], 336))
    out = render_view(image, seen)
    assert out.shape == (336, 336, 3)
    assert np.abs(out.astype(int) - expected).max() <= 2
    spec = dataclasses.replace(tiny_llava().spec, patch_size=14, image_size=336)
    shown = show([image], [seen], [seen.grid(14)], spec)
    np.testing.assert_array_equal(
        shown.patches, show([out], [view((0, 0, 336, 336))], [seen.grid(14)], spec).patches
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            view((0, 0, 11, 20)),
            "view: the crop of picture 0 spans rows 0 to 11 and columns 0 to 20, but the picture "
            "has 10 rows and 20 columns.",
        ),
        (
            view((5, -1, 8, 4)),
            "view: the crop of picture 0 spans rows 5 to 8 and columns -1 to 4, but the picture "
            "has 10 rows and 20 columns.",
        ),
        (
            view((5, 5, 5, 9)),
            "view: the crop of picture 0 spans rows 5 to 5 and columns 5 to 9, but the picture "
            "has 10 rows and 20 columns.",
        ),
        (
            view((0, 0, 10, 20), Size(0, 28)),
            "view: picture 0 would be resized to 28 x 0 px; each side must be at least 1.",
        ),
        (
            view((0, 0, 10, 20), Size(28, 56), canvas=Size(28, 28)),
            "view: picture 0 at 56 x 28 px does not fit its canvas of 28 x 28 px.",
        ),
    ],
)
def test_impossible_views_are_named(bad, message):
    with pytest.raises(MresError, match=f"^{re.escape(message)}$"):
        render_view(picture(10, 20), bad)


def test_a_pillow_image_that_is_no_picture_is_named():
    message = "view: a Pillow image must be RGB, got L of 5 x 4 px. Use decode_pillow."
    with pytest.raises(MresError, match=f"^{re.escape(message)}$"):
        render_view(Image.new("L", (5, 4)), view((0, 0, 4, 5)))


def test_an_array_that_is_no_picture_is_named():
    message = "view: a picture must be uint8 [height, width, 3], got float64 [4, 4, 3]. Use "
    with pytest.raises(MresError, match=re.escape(message)):
        render_view(np.full((4, 4, 3), np.inf), view((0, 0, 4, 4)))

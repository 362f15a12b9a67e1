"""Matrices that resize one axis; torch itself is asked in tests/parity."""

import numpy as np
import pytest

from mres_jax.data.low_resolution import resize_linear_corners
from mres_jax.data.resampling import resize_matrix

RULES = ("bicubic_antialias", "bicubic", "linear_corners", "linear_antialias")


@pytest.mark.parametrize("rule", RULES)
def test_an_axis_that_keeps_its_length_is_left_alone(rule):
    np.testing.assert_array_equal(resize_matrix(7, 7, rule), np.eye(7, dtype=np.float32))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("num_out", "num_in"), [(32, 24), (9, 24), (1, 5), (5, 1), (48, 24)])
def test_what_is_constant_stays_so(rule, num_out, num_in):
    sums = resize_matrix(num_out, num_in, rule).sum(axis=1)
    np.testing.assert_allclose(sums, 1, rtol=0, atol=1e-6)  # float32 weights


def test_aligned_corners_stay_where_they_are():
    matrix = resize_matrix(24, 12, "linear_corners")
    np.testing.assert_array_equal(matrix[0], np.eye(12)[0])
    np.testing.assert_array_equal(matrix[-1], np.eye(12)[-1])
    np.testing.assert_allclose(matrix @ np.arange(12), np.linspace(0, 11, 24), atol=1e-5)


def test_a_line_that_shrinks_takes_in_what_lies_between():
    """A triangle as wide as two of the four samples on either side, cut off at the ends."""
    expected = np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
    np.testing.assert_allclose(resize_matrix(2, 4, "linear_antialias"), expected, rtol=1e-6)
    expected = np.array([[4, 0], [3, 1], [1, 3], [0, 4]]) / 4
    np.testing.assert_allclose(resize_matrix(4, 2, "linear_antialias"), expected, rtol=1e-6)


def test_samples_between_are_the_matrix_in_either_form():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(11, 8, 3)).astype(np.float32)
    rows, columns = (resize_matrix(n, m, "linear_corners") for n, m in ((5, 11), (20, 8)))
    expected = np.einsum("by,ax,yxc->bac", rows, columns, image)
    np.testing.assert_allclose(resize_linear_corners(image, 5, 20), expected, atol=1e-5)


def test_nothing_to_resize_is_refused():
    with pytest.raises(ValueError, match="3 to 0 samples by rule 'bicubic'"):
        resize_matrix(0, 3, "bicubic")
    with pytest.raises(ValueError, match="by rule 'cubic'; have bicubic_antialias"):
        resize_matrix(2, 3, "cubic")

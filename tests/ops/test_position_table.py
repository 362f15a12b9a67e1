"""Position tables on another grid: torch's numbers, both libraries alike."""

import jax.numpy as jnp
import numpy as np
import pytest

from mres_jax.errors import MresError
from mres_jax.ops import bicubic_weights, resize_position_table

# torch.nn.functional.interpolate(x, size=n, mode="bicubic", align_corners=False) of the row
# 0, 1, 4, 9 (torch 2.13.0); tests/parity/test_adapters.py asks it live
ROW = np.array([0.0, 1.0, 4.0, 9.0], np.float32)
GOLDEN = {
    2: [0.21875, 6.78125],
    3: [0.091435, 2.125, 8.334492],
    8: [-0.105469, 0.121094, 0.457031, 1.609375, 2.828125, 5.449219, 7.972656, 9.527344],
}


@pytest.mark.parametrize("size", GOLDEN)
def test_weights_give_what_torch_gives(size):
    # six digits are written down
    np.testing.assert_allclose(bicubic_weights(4, size) @ ROW, GOLDEN[size], atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(24, 16), (24, 48), (7, 3), (5, 5), (1, 4)])
def test_weights_of_every_place_sum_to_one(old, new):
    np.testing.assert_allclose(bicubic_weights(old, new).sum(1), 1.0, atol=1e-12)


def table(rows: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)


def test_the_same_grid_keeps_every_bit_and_the_class_row_is_never_touched():
    made = table(1 + 24 * 24)
    assert resize_position_table(made, old=(24, 24), new=(24, 24), prefix=1) is made
    larger = resize_position_table(made, old=(24, 24), new=(32, 16), prefix=1)
    assert larger.shape == (1 + 32 * 16, 6)
    np.testing.assert_array_equal(larger[0], made[0])


def test_numpy_and_jax_agree_in_both_types():
    for dtype, atol in ((np.float32, 1e-6), (jnp.bfloat16, 2e-2)):  # one rounding of the result
        made = table(12).astype(dtype)
        ours = resize_position_table(made, old=(3, 4), new=(5, 2))
        theirs = resize_position_table(jnp.asarray(made), old=(3, 4), new=(5, 2))
        assert theirs.dtype == ours.dtype == dtype
        np.testing.assert_allclose(
            np.asarray(theirs, np.float32), ours.astype(np.float32), atol=atol
        )


@pytest.mark.parametrize(("rows", "prefix"), [(12, 1), (11, 0), (14, 1)])
def test_a_table_of_another_grid_is_refused(rows, prefix):
    with pytest.raises(MresError, match=rf"\[{rows}, 6\] is not {prefix} \+ 3 x 4 rows"):
        resize_position_table(table(rows), old=(3, 4), new=(5, 2), prefix=prefix)

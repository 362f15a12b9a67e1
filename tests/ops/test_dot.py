"""Products with float32 sums are the rounded float32 products, whatever the shapes."""

import jax.numpy as jnp
import numpy as np
import pytest

from mres_jax.ops import dot_general_float32_sums

SIZE, OUT = 48, 32


@pytest.mark.parametrize("transposed", [False, True], ids=["d_n", "n_d"])
@pytest.mark.parametrize("rows", [(1,), (3,), (1, 1), (2, 3), ()], ids=str)
def test_the_product_is_the_float32_product_rounded_once(rows, transposed):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(*rows, SIZE)), jnp.bfloat16)
    kernel = jnp.asarray(rng.normal(size=(SIZE, OUT)), jnp.bfloat16)
    expected = np.float64(x) @ np.float64(kernel)
    given = kernel.T if transposed else kernel
    dimensions = (((len(rows),), (1 if transposed else 0,)), ((), ()))
    found = dot_general_float32_sums(x, given, dimensions)
    assert (found.dtype, found.shape) == (jnp.bfloat16, (*rows, OUT))
    # one rounding to 8 bits: half a step, 2 ** -8 of a value; float32 sums beside it
    np.testing.assert_allclose(np.float64(found), expected, rtol=2**-8, atol=1e-5)

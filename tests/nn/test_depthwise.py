"""The convolution of single channels on this machine: XLA's own, value and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mres_jax.nn.depthwise import convolved, depthwise


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "width"), [((2, 9, 5, 6), 7), ((1, 4, 6, 3), 3), ((3, 1, 1, 4), 7)]
)
def test_it_is_the_convolution_of_xla_and_so_are_its_gradients(shape, width, dtype):
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    kernel = jnp.asarray(rng.standard_normal((width**2, shape[-1])), dtype)

    @jax.jit
    def both(x, kernel, g):
        ours, theirs = jax.vjp(depthwise, x, kernel), jax.vjp(convolved, x, kernel)
        return [(out, *back(g)) for out, back in (ours, theirs)]

    for ours, theirs in zip(*both(x, kernel, g), strict=True):
        assert ours.dtype == theirs.dtype
        # float32 sums of up to 90 terms in another order; bfloat16 is rounded once, behind the sum
        rtol = {"float32": 1e-5, "bfloat16": 2**-7}[dtype]
        ours, theirs = (np.asarray(a, np.float32) for a in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=rtol * np.abs(theirs).max())

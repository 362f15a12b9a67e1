"""A scan over layers is a loop over layers, whatever its backward pass recomputes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax import nn

DEPTH, SIZE = 3, 5


class Block(nnx.Module):
    """A residual layer."""

    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(SIZE, SIZE, rngs=rngs)

    def __call__(self, x, scale):
        return x + scale * jnp.tanh(self.linear(x))


def step(block, x, scale):
    x = block(x, scale)
    return x, x.sum()


@pytest.fixture
def stack(rngs) -> Block:
    return nn.stack_layers(Block, DEPTH, rngs)


X = jnp.linspace(-1, 1, 4 * SIZE).reshape(4, SIZE)
SCALES = jnp.array([1.0, 0.5, -2.0])


def layer(stack: nnx.Module, index: int):
    graphdef, state = nnx.split(stack)
    return nnx.merge(graphdef, jax.tree.map(lambda x: x[index], state))


def loss_of(stack: nnx.Module, remat: nn.Remat):
    """Loss as a function of the parameters, and the parameters."""
    graphdef, state = nnx.split(stack)

    def loss(state):
        x, _ = nn.scan_layers(nnx.merge(graphdef, state), step, X, SCALES, remat=remat)
        return jnp.square(x).sum()

    return loss, state


def test_layers_of_a_stack_have_weights_of_their_own(stack):
    kernel = np.asarray(stack.linear.kernel[...])
    assert kernel.shape == (DEPTH, SIZE, SIZE)
    assert len(np.unique(kernel)) == kernel.size


def test_a_scan_is_a_loop_over_the_layers(stack):
    found, sums = nn.scan_layers(stack, step, X, SCALES)
    x, expected = X, []
    for index in range(DEPTH):
        x, total = step(layer(stack, index), x, SCALES[index])
        expected.append(total)
    # float32, three layers
    np.testing.assert_allclose(found, x, rtol=0, atol=2e-6)
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputing_changes_no_gradient(stack, remat):
    gradients = []
    for name in ("none", remat):
        loss, state = loss_of(stack, name)
        gradients.append(nnx.to_pure_dict(jax.jit(jax.grad(loss))(state)))
    # the same products, which a compiler may fuse otherwise: float32 rounding of numbers below 50
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5), *gradients)


def test_the_backward_pass_recomputes_what_it_says(stack):
    """Of one layer and its backward pass: matrix products, and tanh."""
    counts = {}
    for remat in ("none", "dots", "full"):
        loss, state = loss_of(stack, remat)
        text = str(jax.make_jaxpr(jax.grad(loss))(state))
        counts[remat] = text.count("= dot_general["), text.count("= tanh")
    assert counts == {"none": (3, 1), "dots": (3, 2), "full": (4, 2)}


def test_unstacked_layers_run_as_the_stack_does(stack):
    apart = nn.unstack_layers(stack)
    found, sums = nn.scan_layers(apart, step, X, SCALES)
    x, expected = nn.scan_layers(stack, step, X, SCALES)
    # float32, three layers
    np.testing.assert_allclose(found, x, rtol=0, atol=2e-6)
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-5)


def test_unstacked_layers_share_the_memory_of_the_stack_and_are_sliced_nowhere(rngs):
    class Wide(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(16, 16, rngs=rngs)

    stack = nn.stack_layers(Wide, DEPTH, rngs)
    apart = nn.unstack_layers(stack)
    kernels = stack.linear.kernel[...]
    start = kernels.unsafe_buffer_pointer()
    for index, block in enumerate(apart):
        place = block.linear.kernel[...].unsafe_buffer_pointer()
        assert place == start + index * kernels.nbytes // DEPTH
    graphdef, state = nnx.split(apart)

    def run(state, x):
        layers = nnx.merge(graphdef, state)
        return nn.scan_layers(layers, lambda block, x, _: (block.linear(x), None), x)[0]

    assert "slice" not in str(jax.make_jaxpr(run)(state, jnp.ones((1, 16))))

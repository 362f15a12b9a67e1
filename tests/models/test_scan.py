"""Tower and decoder: scanned layers are layers in a row, and recomputing changes nothing."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax import nn, ops, testing
from mres_jax.models.qwen2.model import Decoder
from mres_jax.models.qwen2_vl.model import VisionTower

LENGTH = 48
SEGMENTS = np.repeat([1, 2, 0], [24, 12, 12]).astype(np.int32)
# As a share of the largest value: the same products, which a compiler may fuse otherwise; float32
# rounding through two layers.
TOLERANCE = 5e-6


class Part(NamedTuple):
    """A module with layers, and how it is run on `[p r]` or `[t e]`."""

    module: Any
    x: jax.Array
    call: Callable[[Any, jax.Array], jax.Array]


def random(*shape: int):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


def tower() -> Part:
    config = testing.tiny_vision_config(hidden_size=8)
    places = np.random.default_rng(1).integers(0, 9, (LENGTH, 2)).astype(np.int32)
    return Part(
        testing.fill(lambda: VisionTower(config, rngs=nnx.Rngs(0))),
        random(LENGTH, 3 * config.patch_size**2),
        lambda module, x: module(x, jnp.asarray(places), jnp.asarray(SEGMENTS)),
    )


def decoder() -> Part:
    config = testing.tiny_text_config(testing.tiny_tokenizer(), mrope_section=(1, 1, 2))
    places = np.random.default_rng(1).integers(0, 40, (3, LENGTH)).astype(np.int32)
    plan = ops.make_plan(SEGMENTS, causal=True)
    return Part(
        testing.fill(lambda: Decoder(config, rngs=nnx.Rngs(0))),
        random(LENGTH, config.hidden_size),
        lambda module, x: module(x, jnp.asarray(places), plan),
    )


@pytest.fixture(scope="module", params=[tower, decoder], ids=["tower", "decoder"])
def part(request) -> Part:
    return request.param()


def gradient_of(part: Part, remat: nn.Remat):
    """Output and gradients as a function, and the parameters."""
    part.module.remat = remat
    graphdef, params = nnx.split(part.module)

    def loss(params, x):
        out = part.call(nnx.merge(graphdef, params), x)
        return (out * jnp.sin(jnp.arange(out.size)).reshape(out.shape)).sum(), out

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), params


def norms(gradient, *args) -> int:
    """How many roots of norms are taken, forward and again in the backward pass."""
    return str(jax.make_jaxpr(gradient)(*args)).count("= rsqrt")


@pytest.fixture(scope="module")
def kept(part):
    """Output and gradients where the backward pass finds everything in memory; its norms."""
    gradient, params = gradient_of(part, "none")
    return jax.jit(gradient)(params, part.x), norms(gradient, params, part.x)


def assert_same(one, other):
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        limit = TOLERANCE * max(1e-6, float(jnp.abs(y).max()))
        np.testing.assert_allclose(x, y, rtol=0, atol=limit)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputing_changes_neither_output_nor_gradient(part, kept, remat):
    gradient, params = gradient_of(part, remat)
    assert norms(gradient, params, part.x) > kept[1]
    assert_same(jax.jit(gradient)(params, part.x), kept[0])


def test_scanned_layers_are_layers_in_a_row(part, kept, monkeypatch):
    def loop(layers, step, carry, xs=None, **_):
        graphdef, state = nnx.split(layers)
        for index in range(2):
            layer = nnx.merge(graphdef, jax.tree.map(lambda x, i=index: x[i], state))
            carry, _ = step(layer, carry, None)
        return carry, None

    monkeypatch.setattr(nn, "scan_layers", loop)
    graphdef, params = nnx.split(part.module)
    out = jax.jit(lambda params, x: part.call(nnx.merge(graphdef, params), x))(params, part.x)
    ((_, expected), _), _ = kept
    assert_same(out, expected)

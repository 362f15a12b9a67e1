"""Tower and decoder: scanned layers are layers in a row, and recomputing changes nothing."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax import nn, ops, testing
from mres_jax.data.position_weights import position_weights
from mres_jax.data.spec import PositionTable
from mres_jax.data.types import Pack
from mres_jax.data.windows import pack_windows, window_layout
from mres_jax.geometry import Grid
from mres_jax.models.qwen2.model import Decoder
from mres_jax.models.qwen2_5_vl import config as qwen2_5_vl
from mres_jax.models.qwen2_5_vl.model import VisionTower as Qwen2_5Tower
from mres_jax.models.qwen2_vl.model import VisionTower
from mres_jax.models.qwen3_vl import config as qwen3_vl
from mres_jax.models.qwen3_vl.model import VisionTower as Qwen3Tower

LENGTH = 48
GRIDS = [Grid(1, 6, 4), Grid(1, 2, 6)]
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


def tower(make: Callable[..., Any], config: Any) -> Part:
    """Every visual token and, where there is DeepStack, what is added to it."""
    places = np.random.default_rng(1).integers(0, 9, (LENGTH, 2)).astype(np.int32)
    table = PositionTable(side=5, resize="linear_corners")
    weights = position_weights([*GRIDS, Grid(1, 6, 2)], table, merge_size=2)
    arrays = {
        "patch_positions": places,
        "patch_segment_ids": SEGMENTS,
        "windows": pack_windows([window_layout(GRIDS, side=2, merge_size=2)], LENGTH),
        "position_weights": weights,
    }
    pack = Pack(**dict.fromkeys(Pack._fields) | jax.tree.map(jnp.asarray, arrays))

    def call(module, x):
        tokens, deepstack = module(pack._replace(patches=x))
        return tokens if deepstack is None else jnp.concatenate([tokens[None], deepstack])

    module = testing.fill(lambda: make(config, rngs=nnx.Rngs(0)))
    return Part(module, random(LENGTH, 3 * config.patch_size**2), call)


def plain_tower() -> Part:
    return tower(VisionTower, testing.tiny_vision_config(hidden_size=8))


SIZES = dict(
    depth=2, num_heads=2, hidden_size=16, intermediate_size=20, out_hidden_size=8, patch_size=4
)


def windowed_tower() -> Part:
    config = qwen2_5_vl.VisionConfig(**SIZES, window_size=16, fullatt_block_indexes=(1,))
    return tower(Qwen2_5Tower, config)


def deepstack_tower() -> Part:
    config = qwen3_vl.VisionConfig(
        **SIZES, num_position_embeddings=25, deepstack_visual_indexes=(0,)
    )
    return tower(Qwen3Tower, config)


def decoder(extra: Any = None) -> Part:
    config = testing.tiny_text_config(testing.tiny_tokenizer(), mrope_section=(1, 1, 2))
    places = np.random.default_rng(1).integers(0, 40, (3, LENGTH)).astype(np.int32)
    plan = ops.make_plan(SEGMENTS, causal=True)
    return Part(
        testing.fill(lambda: Decoder(config, rngs=nnx.Rngs(0))),
        random(LENGTH, config.hidden_size),
        lambda module, x: module(x, jnp.asarray(places), plan, extra),
    )


def deepstack_decoder() -> Part:
    return decoder(random(1, LENGTH, 32))


PARTS = (plain_tower, decoder, windowed_tower, deepstack_tower, deepstack_decoder)


@pytest.fixture(scope="module", params=PARTS, ids=lambda make: make.__name__)
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


@pytest.mark.parametrize(
    ("part", "remat"),
    [
        (decoder, "full"),
        *(pytest.param(part, "full", marks=pytest.mark.slow) for part in PARTS if part != decoder),
        *(pytest.param(part, "dots", marks=pytest.mark.slow) for part in PARTS[:2]),
    ],
    indirect=["part"],
)
def test_recomputing_changes_neither_output_nor_gradient(part, kept, remat):
    gradient, params = gradient_of(part, remat)
    assert norms(gradient, params, part.x) > kept[1]
    assert_same(jax.jit(gradient)(params, part.x), kept[0])


@pytest.mark.parametrize(
    "part",
    [
        decoder,
        *(pytest.param(part, marks=pytest.mark.slow) for part in PARTS if part != decoder),
    ],
    indirect=True,
)
def test_scanned_layers_are_layers_in_a_row(part, kept, monkeypatch):
    def loop(layers, step, carry, xs=None, **_):
        graphdef, state = nnx.split(layers)
        ys = []
        for index in range(len(jax.tree.leaves(state)[0])):
            layer, x = jax.tree.map(lambda a, i=index: a[i], (state, xs))
            carry, y = step(nnx.merge(graphdef, layer), carry, x)
            ys.append(y)
        return carry, jax.tree.map(lambda *y: jnp.stack(y), *ys)

    monkeypatch.setattr(nn, "scan_layers", loop)
    graphdef, params = nnx.split(part.module)
    out = jax.jit(lambda params, x: part.call(nnx.merge(graphdef, params), x))(params, part.x)
    ((_, expected), _), _ = kept
    assert_same(out, expected)

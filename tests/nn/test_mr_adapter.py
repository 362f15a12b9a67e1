"""Adapters begin as nothing, and all of them learns from the second step on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax.data.resampling import resize_matrix
from mres_jax.models.key_table import flatten
from mres_jax.nn import MRAdapter, MRAdapterOptions, Resize

VARIANTS = {
    "released": {},
    "channel gate": {"gate_width": "channel", "gate_input": "mapped"},
    "conv-conv": {"source_block": "conv"},
    "conv-mlp": {"source_block": "conv", "target_block": "mlp"},
    "sigmoid": {"gate": "sigmoid"},
    "hard sigmoid": {"gate": "hard_sigmoid"},
    "concat": {"fusion": "concat"},
}
ALIGN = Resize(*2 * (resize_matrix(4, 2, "linear_corners"),))


def maps():
    """Two canvases of 4 x 4 cells, one of them half empty, told by maps of 2 x 2 cells."""
    rng = np.random.default_rng(0)
    target = jnp.asarray(rng.normal(size=(2, 4, 4, 6)), jnp.float32)
    source = jnp.asarray(rng.normal(size=(2, 2, 2, 8)), jnp.float32)
    mask = jnp.asarray(np.indices((2, 4, 4))[1] < [[[4]], [[2]]])
    return target, source, mask, mask[:, ::2, ::2]


@functools.cache
def split(variant: str):
    options = MRAdapterOptions(**VARIANTS[variant])
    make = functools.partial(
        MRAdapter, target_size=6, source_size=8, options=options, dtype=jnp.float32
    )
    return nnx.split(make(rngs=nnx.Rngs(0)))


def apply(graphdef, state):
    target, source, mask, coarse = maps()
    adapter = nnx.merge(graphdef, state)
    return adapter(target, source, target_mask=mask, source_mask=coarse, align=ALIGN)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_fresh_adapter_changes_no_bit(variant):
    np.testing.assert_array_equal(apply(*split(variant)), maps()[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_gradient_at_the_second_step(variant):
    """At the first only what ends in a sum of zeros has one."""
    graphdef, state = split(variant)
    gradient = jax.jit(jax.grad(lambda state: jnp.square(apply(graphdef, state)).sum()))
    first = gradient(state)
    second = gradient(jax.tree.map(lambda x, g: x - 1e-2 * g, state, first))
    assert silent(first)
    assert not silent(second)


def silent(state) -> list[str]:
    return [name for name, leaf in flatten(state).items() if not np.abs(leaf).max() > 0]


def test_what_lies_beside_a_view_tells_it_nothing():
    graphdef, state = split("released")
    target, source, mask, coarse = maps()
    drawn = jax.tree.map(lambda x: x + 0.3, state)
    adapter = nnx.merge(graphdef, drawn)
    told = functools.partial(adapter, source=source, target_mask=mask, source_mask=coarse)
    poisoned = jnp.where(mask[..., None], target, 1e3)
    clean, dirty = (told(x, align=ALIGN) for x in (target, poisoned))
    inside = np.asarray(mask)
    np.testing.assert_array_equal(np.asarray(clean)[inside], np.asarray(dirty)[inside])


def test_the_gate_is_one_number_a_view_or_one_a_channel():
    widths = {"released": 1, "channel gate": 6}
    for variant, width in widths.items():
        assert flatten(split(variant)[1])["gate_down.kernel"].shape == (3, width)


def test_an_adapter_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"gate='relu'; have tanh, sigmoid, hard_sigmoid"):
        MRAdapterOptions(gate="relu")

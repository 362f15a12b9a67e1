"""Adapters add what they say, to single layers and to stacks, and merge into what they adapted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax import nn

DEPTH, IN, OUT, RANK, SCALE = 3, 5, 7, 2, 1.5


class Block(nnx.Module):
    """A layer of its own width."""

    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(IN, IN, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x):
        return x + jnp.tanh(self.linear(x))


class Model(nnx.Module):
    """A stack and a head."""

    def __init__(self, rngs: nnx.Rngs, dtype=jnp.float32):
        self.blocks = nn.stack_layers(Block, DEPTH, rngs)
        self.head = nnx.Linear(IN, OUT, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x, *, remat: nn.Remat = "none"):
        x, _ = nn.scan_layers(self.blocks, lambda b, x, _: (b(x), None), x, remat=remat)
        return self.head(x)


X = jnp.asarray(np.random.default_rng(0).normal(size=(4, IN)), jnp.float32)


@pytest.fixture
def model(rngs) -> Model:
    return Model(rngs)


def adapt(model: nnx.Module, names=("blocks.linear", "head"), *, fresh: bool = False):
    nn.add_lora(model, names, rank=RANK, scale=SCALE, rngs=nnx.Rngs(1))
    draw = np.random.default_rng(2)
    for layer in nn.linear_layers(model).values():
        if isinstance(layer, nn.LoRALinear) and not fresh:
            shape = layer.lora_b.shape
            layer.lora_b[...] = jnp.asarray(draw.normal(size=shape), jnp.float32)
    return model


def test_a_fresh_adapter_changes_no_bit(model):
    before, head = np.asarray(model(X)), np.asarray(model.head(X))
    adapt(model, fresh=True)
    assert set(nn.linear_layers(model)) == {"blocks.linear", "head"}
    assert all(isinstance(x, nn.LoRALinear) for x in nn.linear_layers(model).values())
    np.testing.assert_array_equal(np.asarray(model.head(X)), head)
    # scanned layers are one program, whose tanh the compiler rounds otherwise beside the zeros
    np.testing.assert_allclose(np.asarray(model(X)), before, rtol=0, atol=1e-6)


def test_parameters_keep_their_names_and_factors_stand_beside_them(model):
    before = dict(nnx.to_flat_state(nnx.state(model)))
    after = dict(nnx.to_flat_state(nnx.state(adapt(model))))
    assert before.keys() < after.keys()
    added = {path: after[path].get_value().shape for path in after.keys() - before.keys()}
    assert added == {
        ("blocks", "linear", "lora_a"): (DEPTH, IN, RANK),
        ("blocks", "linear", "lora_b"): (DEPTH, RANK, IN),
        ("head", "lora_a"): (IN, RANK),
        ("head", "lora_b"): (RANK, OUT),
    }
    assert all(isinstance(after[path], nn.LoRAParam) for path in added)
    factors = np.asarray(after["blocks", "linear", "lora_a"].get_value())
    assert len(np.unique(factors)) == factors.size  # layers have factors of their own


def test_a_stack_of_adapters_is_the_layers_one_by_one(model):
    adapt(model)
    wide = {path: np.asarray(x, np.float64) for path, x in flat(model).items()}
    x = np.asarray(X, np.float64)
    for i in range(DEPTH):
        kernel, bias, a, b = (
            wide["blocks", "linear", name][i] for name in ("kernel", "bias", "lora_a", "lora_b")
        )
        x = x + np.tanh(x @ kernel + bias + SCALE * (x @ a) @ b)
    kernel, a, b = (wide["head", name] for name in ("kernel", "lora_a", "lora_b"))
    expected = x @ kernel + SCALE * (x @ a) @ b
    # float32 rounding through four layers
    np.testing.assert_allclose(np.asarray(model(X)), expected, rtol=1e-5, atol=1e-5)


def flat(model) -> dict:
    return {path: x.get_value() for path, x in nnx.to_flat_state(nnx.state(model))}


def test_merged_kernels_hold_the_product_and_the_model_answers_the_same(model):
    adapt(model)
    before = flat(model)
    merged = nn.merge_lora(model)
    assert not any(isinstance(x, nn.LoRALinear) for x in nn.linear_layers(merged).values())
    assert set(flat(merged)) == {path for path in before if path[-1] not in nn.LORA_FACTORS}
    for path in (("blocks", "linear"), ("head",)):
        kernel, a, b = (
            np.asarray(before[(*path, n)], np.float64) for n in ("kernel", *nn.LORA_FACTORS)
        )
        # one rounding of the product, one of the sum
        expected = kernel + SCALE * a @ b
        got = np.asarray(flat(merged)[(*path, "kernel")])
        np.testing.assert_allclose(got, expected, rtol=0, atol=4e-7 * np.abs(expected).max())
    # float32 rounding through four layers
    np.testing.assert_allclose(merged(X), model(X), rtol=1e-5, atol=1e-5)
    for path, value in flat(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg="the model was changed")


def test_a_base_in_bfloat16_is_merged_in_float32(rngs):
    """Half of a small product would be lost in the type of the base."""
    model = Model(rngs)
    kernel = model.head.kernel
    kernel.set_value(kernel[...].astype(jnp.bfloat16))
    adapt(model, ["head"])
    model.head.lora_b[...] = model.head.lora_b[...] * 1e-3
    merged = nn.merge_lora(model)
    assert merged.head.kernel.dtype == jnp.float32
    # float32 rounding through four layers; bfloat16 would be off by 4e-3
    np.testing.assert_allclose(merged(X), model(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_output_has_the_compute_dtype(dtype, rngs):
    model = adapt(Model(rngs, dtype), ["head"])
    assert model.head(X.astype(dtype)).dtype == dtype


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputing_changes_no_gradient_and_only_factors_have_one(model, remat):
    graphdef, factors, frozen = nnx.split(adapt(model), nn.LoRAParam, ...)

    def loss(factors, remat):
        return jnp.square(nnx.merge(graphdef, factors, frozen)(X, remat=remat)).sum()

    kept, recomputed = jax.grad(loss)(factors, "none"), jax.grad(loss)(factors, remat)
    assert len(jax.tree.leaves(kept)) == 4
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(recomputed), strict=True):
        assert np.abs(a).min() > 0
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_folded_adapters_come_back_on_the_very_bits_that_were_there(model):
    before = flat(adapt(model))
    through = np.asarray(model(X))
    layers = nn.fold_lora(model)
    folded = np.asarray(model(X))
    assert set(flat(model)) == {path for path in before if path[-1] not in nn.LORA_FACTORS}
    # outputs up to about 8, float32 rounding through four layers
    np.testing.assert_allclose(folded, through, rtol=1e-6, atol=1e-5)
    nn.unfold_lora(model, layers)
    after = flat(model)
    assert after.keys() == before.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value)
    np.testing.assert_array_equal(np.asarray(model(X)), through)


def test_over_a_mesh_adapters_are_gathered_with_the_kernel_that_they_stand_beside():
    plain = nnx.Linear(8, 16, use_bias=False, rngs=nnx.Rngs(0))
    layer = nn.LoRALinear(plain, rank=4, scale=1.0, rngs=nnx.Rngs(1))
    graphdef, state = nnx.split(nnx.Dict(q=layer))

    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.sharding.AbstractMesh((4,), ("fsdp",), axis_types=auto)
    with jax.sharding.use_abstract_mesh(mesh):
        program = str(jax.make_jaxpr(lambda x: nnx.state(nn.gather(nnx.merge(graphdef, x))))(state))
    assert program.count("sharding_constraint") == 3  # else XLA may gather the activations

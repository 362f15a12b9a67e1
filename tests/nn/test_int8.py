"""Kernels in eight bits: how far a weight, an output and a whole model may be off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax import nn, testing
from mres_jax.cli import main
from mres_jax.data.types import Rung
from mres_jax.errors import ConfigError
from mres_jax.inference import device, load
from mres_jax.models.key_table import flatten
from mres_jax.models.registry import LoadedModel, export_hf


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
def test_no_weight_is_off_by_more_than_half_a_scale(size):
    """Up to rounding of the product of the two; of two layers, with an output of zeros."""
    kernel = size * np.random.default_rng(0).normal(size=(2, 30, 8)).astype(np.float32)
    kernel[1, :, 3] = 0
    steps, scale = (np.asarray(x) for x in nn.to_int8(jnp.asarray(kernel)))
    assert steps.dtype == np.int8
    assert np.abs(steps.astype(int)).max() <= 127
    error = np.abs(steps.astype(np.float64) * scale[..., None, :] - kernel)
    assert (error <= scale[..., None, :] * (0.5 + 1e-4)).all()
    assert (np.abs(steps).max(axis=-2) == np.where(scale > 0, 127, 0)).all()
    assert (scale == 0).sum() == 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("use_bias", [True, False])
def test_no_output_is_off_by_more_than_half_a_scale_times_the_sum_of_inputs(dtype, use_bias):
    linear = nnx.Linear(24, 40, use_bias=use_bias, dtype=dtype, rngs=nnx.Rngs(0))
    rounded = nn.Int8Linear(linear)
    x = jax.random.normal(jax.random.key(1), (7, 24), dtype)
    out, exact = rounded(x), linear(x)
    assert out.dtype == dtype
    bound = 0.5 * np.abs(np.asarray(x, np.float32)).sum(-1, keepdims=True)
    bound = bound * np.asarray(rounded.scale[...])
    error = np.abs(np.asarray(out, np.float32) - np.asarray(exact, np.float32))
    if not use_bias:  # of one input a whole number times its scale, which is rounded once
        alone = np.asarray(rounded(jnp.eye(24, dtype=dtype)), np.float64)
        wanted = np.asarray(rounded.kernel[...], np.float64) * np.asarray(rounded.scale[...])
        rtol = 2.0 ** (-24 if dtype == jnp.float32 else -8)
        np.testing.assert_allclose(alone, wanted, rtol=rtol)
    slack = 1e-5 if dtype == jnp.float32 else 0.03  # of sums and their rounding to bfloat16
    assert (error <= bound + slack).all()
    assert error.max() > 1e-4  # it is rounded


def test_kernels_of_a_model_take_a_quarter_and_heads_and_tables_stay():
    model = testing.tiny_qwen3_vl().model
    before = {name: leaf.nbytes for name, leaf in flatten(model).items()}
    nn.use_int8(model)
    after = flatten(model)
    small = [name for name, leaf in after.items() if leaf.dtype == np.int8]
    assert "text.layers.mlp.gate.kernel" in small
    assert not any("embed" in name or "norm" in name for name in small)
    assert all(after[name].nbytes * 4 == before[name] for name in small)
    scales = {name.replace("kernel", "scale") for name in small}
    assert all(after[name].nbytes == before[name] for name in after.keys() - scales - {*small})
    assert list(nn.linear_layers(model)) == ["text.lm_head"]


def test_adapters_are_part_of_what_is_rounded():
    linear = nnx.Linear(8, 6, rngs=nnx.Rngs(0))
    holder = nnx.Dict({"a": nn.LoRALinear(linear, rank=2, scale=0.5, rngs=nnx.Rngs(1))})
    holder["a"].lora_b[...] = jnp.ones((2, 6))
    merged = nn.merge_kernel(linear.kernel[...], holder["a"].lora_a[...], jnp.ones((2, 6)), 0.5)
    nn.use_int8(holder)
    found = holder["a"].kernel[...].astype(jnp.float32) * holder["a"].scale[...][None]
    np.testing.assert_allclose(found, merged, atol=float(holder["a"].scale[...].max()))


def test_layers_apart_and_bfloat16_products_take_rounded_kernels():
    """What decoding on a CPU makes of a model."""
    tiny = testing.tiny_qwen2_vl(dtype=jnp.bfloat16)
    nn.use_int8(tiny.model)
    apart = device.with_own_layers(device.with_suitable_products(tiny.model))
    x, layer = jnp.ones((1, 32), jnp.bfloat16), apart.text.layers[1].mlp
    stacked = tiny.model.text.layers.mlp
    np.testing.assert_array_equal(layer.gate.kernel[...], stacked.gate.kernel[1])
    assert layer(x).dtype == jnp.bfloat16


def test_weights_that_do_not_exist_are_refused():
    with pytest.raises(ConfigError, match=r"no weights='int4'; 'int8' rounds them"):
        load(weights="int4")


@pytest.mark.slow
def test_a_model_that_is_loaded_in_eight_bits_answers_nearly_as_before(tmp_path):
    tiny = testing.tiny_qwen2_vl(spread=1.0)
    loaded = LoadedModel(**tiny._asdict())
    export_hf(loaded, tmp_path / "hf")
    ladder = (Rung(max_patches=64, max_tokens=128, max_views=2, max_examples=1),)
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    whole, rounded = (
        load(tmp_path / "hf", weights=weights, ladder=ladder, rows=(1,)).answer(
            picture, "what is red", max_new_tokens=2
        )
        for weights in (None, "int8")
    )
    assert rounded.logprobs != whole.logprobs
    np.testing.assert_allclose(rounded.logprobs[0], whole.logprobs[0], atol=0.05)


def test_a_server_s_weights_are_its_own(capsys):
    words = ["ask", "-q", "what", "-m", "http://127.0.0.1:9/v1#x", "--weights", "int8"]
    assert main(words) == 2
    assert "--weights int8 is of models here" in capsys.readouterr().err

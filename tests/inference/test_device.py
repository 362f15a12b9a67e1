"""What a model is on a CPU is the same model."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx

from mres_jax import nn
from mres_jax.inference import device, programs
from mres_jax.inference.sampling import Knobs
from mres_jax.models.checkpoint_io import write_checkpoint
from mres_jax.protocols import Sampling
from mres_jax.testing import tiny_qwen2_vl

TOKENS = jnp.array([5], jnp.int32)
MIB = 2**20


@pytest.fixture(scope="module")
def model():
    return tiny_qwen2_vl(dtype=jnp.bfloat16).model


def test_products_of_bfloat16_change_scores_by_rounding_alone(model):
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(3, 32)), jnp.bfloat16)
    fast = device.with_suitable_products(model)
    assert fast is not model
    scores = [nnx.jit(lambda m, x: m.logits(m.text.norm(x)))(m, hidden) for m in (model, fast)]
    # the last bit of bfloat16, of values up to the largest
    limit = 2**-7 * float(jnp.abs(scores[0]).max())
    np.testing.assert_allclose(*scores, rtol=0, atol=limit)


def test_a_decoder_with_layers_apart_shares_every_parameter(model):
    apart = device.with_own_layers(model)
    stacked = {leaf.size for leaf in jax.tree.leaves(nnx.state(model.text.layers))}
    single = {leaf.size for leaf in jax.tree.leaves(nnx.state(apart.text.layers))}
    assert {2 * size for size in single} == stacked
    assert apart.text.embed.embedding[...] is model.text.embed.embedding[...]
    assert not isinstance(model.text.layers, nnx.List)


def test_decoding_copies_the_cache_of_no_layer_but_the_last():
    model = tiny_qwen2_vl().model
    _, (graphdef, state), run = programs.arrange(model)
    text, rows = model.config.text_config, 3
    shape = (rows, text.num_key_value_heads, 128, text.head_dim)
    layers = text.num_hidden_layers
    keys, values = ([jnp.zeros(shape)] * layers for _ in range(2))
    zeros = jnp.zeros(rows, jnp.int32)
    out = programs.Out(*[jnp.zeros((rows, 32), t) for t in (int, float, float)], zeros, zeros > 0)
    fixed = programs.Rows(zeros, jnp.zeros((rows, 2), jnp.uint32), zeros.astype(jnp.uint32))
    rules = programs.Rules(
        np.uint32(0),
        np.int32(32),
        np.zeros(1, np.int32),
        np.zeros(text.vocab_size, bool),
        Knobs.of(Sampling()),
    )
    arguments = nn.KVCache(keys, values, zeros), out, np.int32(1), np.int32(9), zeros == 0, fixed
    lowered = run.decode_rows.lower(graphdef, state, *arguments, rules, greedy=True, filtered=False)
    sizes = ",".join(map(str, shape))
    copies = re.findall(rf"= \w+\[{sizes}\]\S* copy\(", lowered.compile().as_text())
    assert layers > 1
    assert len(copies) <= 4  # twice what one layer holds


def test_float32_alone_gets_options_of_the_compiler(model):
    assert device.compiler_options(model) == {}
    wide = tiny_qwen2_vl().model
    assert set(device.compiler_options(wide)) <= set(device.NO_YNN)
    assert not device._accepted("xla_cpu_no_such_option")


def test_the_weights_of_a_run_are_those_of_one_step_with_what_it_leans_on(tmp_path):
    root = epath.Path(tmp_path) / "run" / "checkpoints"
    write_checkpoint(root / "frozen", {"model": {"a": jnp.zeros(100)}}, config={})
    for step in (1, 2):
        trees = {"model": {"b": jnp.zeros(50, jnp.bfloat16)}, "training": {"mu": jnp.zeros(1_000)}}
        write_checkpoint(
            root / f"step_{step:08}", trees, config={}, step=step, base=root / "frozen"
        )
    for directory in (tmp_path / "run", root, root / "step_00000001"):
        assert device.stored_bytes(directory) == 100 * 4 + 50 * 2


def test_the_weights_of_other_directories_are_their_files(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(70))
    (tmp_path / "tokenizer.json").write_bytes(bytes(30))
    assert device.stored_bytes(tmp_path) == 70
    assert device.stored_bytes("org/name") == 0
    assert device.stored_bytes("gs://bucket/run") == 0


@pytest.mark.parametrize(
    ("platform", "stored", "free", "exact", "expected"),
    [
        ("cpu", 4_000 * MIB, 20_000 * MIB, False, jnp.float32),
        ("cpu", 4_000 * MIB, 9_000 * MIB, False, jnp.bfloat16),
        ("gpu", 4_000 * MIB, 20_000 * MIB, False, jnp.bfloat16),
        ("gpu", 4_000 * MIB, 20_000 * MIB, True, jnp.float32),
        ("tpu", 4 * MIB, 20_000 * MIB, False, jnp.float32),
    ],
)
def test_the_dtype_is_that_of_the_device(
    platform, stored, free, exact, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(device, "free_memory", lambda: free)
    monkeypatch.setattr(device, "stored_bytes", lambda directory: stored)
    assert device.suitable_dtype(tmp_path, exact=exact) is expected

"""Adapters in peft's format: out and in again, refused where they are not the model's."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx
from safetensors.numpy import load_file, save_file

from mres_jax import nn
from mres_jax.cli import main
from mres_jax.errors import CheckpointError
from mres_jax.models.checkpoint_io import write_checkpoint
from mres_jax.models.key_table import flatten
from mres_jax.models.registry import ADAPTERS, family_of, load_adapter, save_adapter
from mres_jax.testing import (
    tiny_nativeres_llava,
    tiny_qwen2_5_vl,
    tiny_qwen2_vl,
    tiny_qwen3_vl,
)

NAMES = ("vision.blocks.attn.qkv", "vision.blocks.attn.proj", "text.layers.mlp.up")


@pytest.fixture(scope="module")
def models():
    """Tiny models by family, to be cloned, and the files that a checkpoint keeps beside weights."""
    made = {
        "qwen2_vl": tiny_qwen2_vl(),
        "qwen2_5_vl": tiny_qwen2_5_vl(),
        "qwen3_vl": tiny_qwen3_vl(),
        "nativeres_llava": tiny_nativeres_llava(),
    }
    tokenizer = made["qwen2_vl"].tokenizer.to_bytes()
    return {name: each.model for name, each in made.items()} | {
        "assets": {"tokenizer.json": tokenizer}
    }


def adapted(base):
    model = nnx.clone(base)
    nn.add_lora(model, NAMES, rank=3, scale=0.5, rngs=nnx.Rngs(1))
    draw = np.random.default_rng(2)
    for name in NAMES:
        factor = nn.linear_layers(model)[name].lora_b
        factor[...] = jnp.asarray(draw.normal(size=factor.shape), jnp.float32)
    return model


def table(model):
    return family_of(model.config).key_table(model.config)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("qwen2_vl", "vision.merger.up"),
        ("qwen2_5_vl", "vision.merger.up"),
        ("qwen3_vl", "vision.merger.up"),
        ("nativeres_llava", "projector.up"),
    ],
)
def test_adapters_and_whole_parts_come_back_bit_for_bit(name, part, models, tmp_path):
    model = adapted(models[name])
    kernel = nn.linear_layers(model)[part].kernel
    kernel[...] = kernel[...] + 1.0
    save_adapter(model, tmp_path / "adapter", table(model), base="tiny", full=[part])
    other = nnx.clone(models[name])
    load_adapter(other, tmp_path / "adapter", table(other))
    if name != "nativeres_llava":  # of which transformers has no class
        content = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
        assert {target.split(".")[1] for target in content["target_modules"]} == {
            "visual",
            "language_model",
        }
    ours, theirs = flatten(model), flatten(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    assert {x.scale for x in nn.linear_layers(other).values() if isinstance(x, nn.LoRALinear)} == {
        0.5
    }


def test_the_files_say_what_peft_expects(models, tmp_path):
    model = adapted(models["qwen2_vl"])
    save_adapter(model, tmp_path / "a", table(model), base="org/base")
    content = json.loads((tmp_path / "a/adapter_config.json").read_text())
    assert (content["peft_type"], content["r"], content["lora_alpha"]) == ("LORA", 3, 1.5)
    assert len(content["target_modules"]) == 6
    assert content["base_model_name_or_path"] == "org/base"
    tensors = load_file(tmp_path / "a/adapter_model.safetensors")
    prefix = "base_model.model.model."
    shapes = {
        "visual.blocks.1.attn.qkv.lora_A.weight": (3, 16),
        "visual.blocks.1.attn.qkv.lora_B.weight": (48, 3),
        "language_model.layers.0.mlp.up_proj.lora_A.weight": (3, 32),
    }
    for name, shape in shapes.items():
        assert tensors[prefix + name].shape == shape
    assert len(tensors) == 12


def test_a_layer_that_the_file_leaves_out_stays_as_it_was(models, tmp_path):
    model = adapted(models["qwen2_vl"])
    save_adapter(model, tmp_path / "a", table(model))
    file = tmp_path / "a/adapter_model.safetensors"
    kept = {name: x for name, x in load_file(file).items() if "blocks.1" not in name}
    save_file(kept, file)
    config = tmp_path / "a/adapter_config.json"
    left_out = {"layers_to_transform": [0], "layers_pattern": ["blocks", "layers"]}
    config.write_text(json.dumps(json.loads(config.read_text()) | left_out))
    other = nnx.clone(models["qwen2_vl"])
    load_adapter(other, tmp_path / "a", table(other))
    layer = nn.linear_layers(other)["vision.blocks.attn.qkv"]
    assert (np.asarray(layer.lora_b[...])[1] == 0).all()
    assert (np.asarray(layer.lora_b[...])[0] != 0).any()


def test_what_is_not_the_models_is_refused_and_changes_nothing(models, tmp_path):
    model = adapted(models["qwen2_vl"])
    save_adapter(model, tmp_path / "a", table(model))
    file, config = (
        tmp_path / "a" / n for n in ("adapter_model.safetensors", "adapter_config.json")
    )
    tensors, content = load_file(file), json.loads(config.read_text())
    first = next(iter(tensors))
    cases = [
        ({"base_model.model.nowhere.lora_A.weight": tensors[first]}, {}, "is no module of the"),
        ({first: np.zeros((4, 16), np.float32)}, {}, r"is \[4, 16\], the model needs \[3, "),
        ({}, {"use_dora": True}, "use_dora is not read"),
        ({}, {"rank_pattern": {"x": 2}}, "rank_pattern is not read"),
        ({}, {"bias": "all"}, "bias is not read"),
        ({}, {"peft_type": "LOHA"}, "peft_type='LOHA'"),
        ({}, {"r": 0}, "only LoRA with one rank"),
        ({}, {"lora_alpha": float("nan")}, "lora_alpha=nan"),
        ({}, {"lora_alpha": True}, "lora_alpha=True"),
        ({}, {"layer_replication": [[0, 1]]}, "layer_replication is not read"),
        ({}, {"use_qalora": True, "lora_bias": True}, "lora_bias, use_qalora is not read"),
        ({}, {"alora_invocation_tokens": [1]}, "alora_invocation_tokens is not read"),
        ({}, {"trainable_token_indices": [1]}, "trainable_token_indices is not read"),
        ({}, {"fan_in_fan_out": True}, "fan_in_fan_out is not read"),
    ]
    for more, changes, message in cases:
        save_file(tensors | more, file)
        config.write_text(json.dumps(content | changes))
        other = nnx.clone(models["qwen2_vl"])
        with pytest.raises(CheckpointError, match=message):
            load_adapter(other, tmp_path / "a", table(other))
        assert not any("lora" in name for name in flatten(other))
    config.write_text(json.dumps(content))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        load_adapter(nnx.clone(models["qwen2_vl"]), tmp_path / "a", table(model))
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        load_adapter(nnx.clone(models["qwen2_vl"]), tmp_path, table(model))


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "OLoRA", "corda", "loftq", "lora_ga"])
def test_an_adapter_of_other_weights_underneath_is_refused(start, models, tmp_path):
    """`peft` takes their first product off the base weights whenever it loads them."""
    model = adapted(models["qwen2_vl"])
    save_adapter(model, tmp_path / "a", table(model))
    config = tmp_path / "a/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"init_lora_weights": start}))
    message = f"init_lora_weights is '{start}'.*Save the adapter with path_initial_model_for_weight"
    with pytest.raises(CheckpointError, match=message):
        load_adapter(nnx.clone(models["qwen2_vl"]), tmp_path / "a", table(model))


@pytest.mark.parametrize("start", [None, True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_beginnings_that_leave_the_base_alone_load(start, models, tmp_path):
    model = adapted(models["qwen2_vl"])
    save_adapter(model, tmp_path / "a", table(model))
    config = tmp_path / "a/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"init_lora_weights": start}))
    other = nnx.clone(models["qwen2_vl"])
    load_adapter(other, tmp_path / "a", table(other))
    assert flatten(other).keys() == flatten(model).keys()


@pytest.mark.parametrize("lost", ["layers.0.mlp.up_proj.lora_B", "blocks.1.attn.qkv.lora_A"])
def test_a_factor_without_its_other_is_refused_by_name(lost, models, tmp_path):
    model = adapted(models["qwen2_vl"])
    save_adapter(model, tmp_path / "a", table(model))
    file = tmp_path / "a/adapter_model.safetensors"
    save_file({name: x for name, x in load_file(file).items() if lost not in name}, file)
    other = nnx.clone(models["qwen2_vl"])
    with pytest.raises(CheckpointError, match=rf"\.{lost}\.weight is missing, but lora_"):
        load_adapter(other, tmp_path / "a", table(other))
    assert not any("lora" in name for name in flatten(other))


def test_a_file_without_tensors_is_no_adapter(models, tmp_path):
    model = adapted(models["qwen2_vl"])
    save_adapter(model, tmp_path / "a", table(model))
    save_file({}, tmp_path / "a/adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        load_adapter(nnx.clone(models["qwen2_vl"]), tmp_path / "a", table(model))


def test_saving_refuses_what_one_file_cannot_say(models, tmp_path):
    model = nnx.clone(models["qwen2_vl"])
    with pytest.raises(CheckpointError, match="there are none"):
        save_adapter(model, tmp_path / "a", table(model))
    for i, rank in enumerate((2, 3)):
        nn.add_lora(model, [NAMES[i]], rank=rank, scale=1.0, rngs=nnx.Rngs(0))
    with pytest.raises(CheckpointError, match=r"ranks \[2, 3\]; one file"):
        save_adapter(model, tmp_path / "a", table(model))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x").write_text("")
    with pytest.raises(CheckpointError, match="is not empty"):
        save_adapter(adapted(models["qwen2_vl"]), tmp_path / "b", table(model))


def test_a_run_gives_its_adapters_away_with_what_it_trained_whole(models, tmp_path, capsys):
    """A step as training writes it: frozen parameters beside it, adapters in their own tree."""
    model = adapted(models["qwen2_vl"])
    flat = flatten(model)
    adapters = {n: x for n, x in flat.items() if n.rpartition(".")[2] in nn.LORA_FACTORS}
    trained = {n: x for n, x in flat.items() if n.startswith("vision.merger.up.")}
    frozen = {n: x for n, x in flat.items() if n not in adapters and n not in trained}
    root, family = epath.Path(tmp_path / "run"), family_of(model.config)
    config, assets = family.config_to_hf(model.config), models["assets"]
    write_checkpoint(root / "frozen", {"model": frozen}, config=config)
    write_checkpoint(
        root / "step_00000004",
        {"model": trained, ADAPTERS: adapters},
        config=config,
        step=4,
        extra={ADAPTERS: {"scale": 0.5}},
        assets=assets,
        base=root / "frozen",
    )
    out = tmp_path / "adapter"
    assert main(["convert", str(root), str(out), "--adapter"]) == 0
    content = json.loads((out / "adapter_config.json").read_text())
    assert (content["r"], content["lora_alpha"]) == (3, 1.5)
    assert content["modules_to_save"] == ["model.visual.merger.mlp.0"]
    other = nnx.clone(models["qwen2_vl"])
    load_adapter(other, out, table(other))
    for name, value in flat.items():
        np.testing.assert_array_equal(flatten(other)[name], value, err_msg=name)
    assert main(["convert", str(out), str(tmp_path / "x"), "--adapter"]) == 2
    assert "load its base model, with adapter= this directory" in capsys.readouterr().err
    plain = root.parent / "plain"
    whole = {"model": frozen | trained}
    write_checkpoint(plain / "step_00000001", whole, config=config, assets=assets)
    assert main(["convert", str(plain), str(tmp_path / "x"), "--adapter"]) == 2
    assert "was trained without adapters, so there are none" in capsys.readouterr().err

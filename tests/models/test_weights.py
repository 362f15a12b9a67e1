"""Weights go in and out bit for bit, and whatever is wrong with a directory is one line."""

import functools
import json
import math
import re
import struct
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mres_jax.errors import CheckpointError, RunError
from mres_jax.models.files import new_directory
from mres_jax.models.key_table import expected_shapes, flatten, variables
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig
from mres_jax.models.registry import family_of
from mres_jax.models.weights import fully_sharded, load_weights, write_weights

TEXT = dict(
    vocab_size=24,
    hidden_size=16,
    intermediate_size=12,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
)


def make_config(family: str, *, tied: bool = False) -> Qwen2VLConfig | NativeResLlavaConfig:
    vision = dict(depth=2, embed_dim=8, num_heads=1, mlp_ratio=2.0, patch_size=4)
    if family == "qwen2_vl":
        return Qwen2VLConfig(
            vision_config=VisionConfig(hidden_size=16, **vision),
            text_config=TextConfig(**TEXT, mrope_section=(1, 1, 0), tie_word_embeddings=tied),
        )
    return NativeResLlavaConfig(
        vision_config=VisionConfig(hidden_size=12, **vision),
        text_config=TextConfig(**TEXT, tie_word_embeddings=tied),
    )


@functools.cache
def make_skeleton(family: str, tied: bool):
    config = make_config(family, tied=tied)
    return config, family_of(config).skeleton(config)


def make_model(family: str = "qwen2_vl", *, tied: bool = False, dtype=np.float32, seed: int = 0):
    """Skeleton, key table and random parameters."""
    config, skeleton = make_skeleton(family, tied)
    numbers = np.random.default_rng(seed)
    state = nnx.from_flat_state(
        [
            (path, leaf.replace(jax.device_put(numbers.normal(size=leaf.shape).astype(dtype))))
            for path, leaf in variables(skeleton)
        ]
    )
    return skeleton, family_of(config).key_table(config), state


def save_weights(state, table, directory, **options):
    with new_directory(directory) as scratch:
        write_weights(state, table, scratch, **options)


def assert_equal(one, other):
    one, other = flatten(one), flatten(other)
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(other[name]), err_msg=name)


@pytest.fixture
def saved(tmp_path):
    """A small Qwen2-VL on disk, with its skeleton and table."""
    skeleton, table, state = make_model()
    save_weights(state, table, tmp_path / "model")
    return skeleton, table, tmp_path / "model"


@pytest.mark.parametrize("family", ["qwen2_vl", "nativeres_llava"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
@pytest.mark.parametrize("max_shard_bytes", [5e9, 4_000])
def test_out_and_in_is_bit_exact(tmp_path, family, dtype, max_shard_bytes):
    skeleton, table, state = make_model(family, dtype=dtype)
    save_weights(state, table, tmp_path / "model", max_shard_bytes=max_shard_bytes)
    shards = sorted((tmp_path / "model").glob("*.safetensors"))
    assert (len(shards) > 1) == (max_shard_bytes < 1e9)
    assert_equal(load_weights(tmp_path / "model", skeleton, table, dtype="stored"), state)


def test_in_and_out_gives_the_same_bytes(saved, tmp_path):
    skeleton, table, directory = saved
    state = load_weights(directory, skeleton, table)
    save_weights(state, table, tmp_path / "again")
    file = "model.safetensors"
    assert (tmp_path / "again" / file).read_bytes() == (directory / file).read_bytes()


def test_files_have_the_layout_of_torch(saved):
    """[out, in] matrices, one tensor per layer, a 5-axis patch kernel, the `pt` mark."""
    skeleton, table, directory = saved
    ours = {n: np.asarray(x) for n, x in flatten(load_weights(directory, skeleton, table)).items()}
    tensors = load_file(directory / "model.safetensors")
    kernel = ours["text.layers.mlp.gate.kernel"]  # [l e f]
    for layer in range(3):
        name = f"model.layers.{layer}.mlp.gate_proj.weight"
        np.testing.assert_array_equal(tensors[name], kernel[layer].T)
    rows = ours["vision.patch_embed.kernel"].reshape(3, 2, 4, 4, 8)  # [c t y x d]
    patch = tensors["visual.patch_embed.proj.weight"]
    np.testing.assert_array_equal(patch, np.einsum("ctyxd->dctyx", rows))
    with safe_open(directory / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize(
    ("family", "renames"),
    [
        ("qwen2_vl", [("visual.", "model.visual."), ("model.", "model.language_model.")]),
        ("nativeres_llava", [("model.vision_tower.vision_tower.", "model.vision_tower.")]),
    ],
)
def test_old_and_new_names_are_the_same_model(tmp_path, family, renames):
    skeleton, table, state = make_model(family)
    save_weights(state, table, tmp_path / "old")
    (tmp_path / "new").mkdir()
    tensors = load_file(tmp_path / "old" / "model.safetensors")
    renamed = {}
    for name, tensor in tensors.items():
        old, new = next(((o, n) for o, n in renames if name.startswith(o)), ("", ""))
        renamed[new + name.removeprefix(old)] = tensor
    assert renamed.keys() != tensors.keys()
    save_file(renamed, tmp_path / "new" / "model.safetensors")
    assert_equal(load_weights(tmp_path / "new", skeleton, table), state)


def test_both_namings_in_one_file_are_refused(saved):
    skeleton, table, directory = saved
    path = directory / "model.safetensors"
    tensors = load_file(path)
    tensors["model.visual.merger.ln_q.bias"] = tensors["visual.merger.ln_q.bias"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="are the same parameter"):
        load_weights(directory, skeleton, table)


def test_everything_wrong_with_the_keys_is_one_line(saved):
    skeleton, table, directory = saved
    path = directory / "model.safetensors"
    tensors = load_file(path)
    for layer in range(3):
        del tensors[f"model.layers.{layer}.self_attn.q_proj.bias"]
    tensors["visual.merger.ln_q.scale"] = tensors.pop("visual.merger.ln_q.weight")
    tensors["model.norm.weight"] = np.zeros(17, np.float32)
    tensors["model.embed_tokens.weight"] = np.zeros((24, 16), np.int8)
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as error:
        load_weights(directory, skeleton, table)
    assert str(error.value) == (
        f"{directory}: "
        "4 missing: visual.merger.ln_q.weight (the file has visual.merger.ln_q.scale?), "
        "model.layers.{0..2}.self_attn.q_proj.bias; "
        "1 unexpected: visual.merger.ln_q.scale (did you mean visual.merger.ln_q.weight?); "
        "1 of the wrong shape: model.norm.weight is (17,), the configuration says (16,); "
        "1 of a type that is no parameter (have F32, F16, BF16; quantised weights are not read): "
        "model.embed_tokens.weight (I8)."
    )


def test_keys_that_hold_no_parameter_are_passed_over(saved):
    skeleton, table, directory = saved
    path = directory / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(2, np.float32)
    expected = load_weights(directory, skeleton, table)
    save_file(tensors, path)
    assert_equal(load_weights(directory, skeleton, table), expected)


def test_a_tied_head_may_be_repeated_but_not_differ(tmp_path):
    skeleton, table, state = make_model(tied=True)
    save_weights(state, table, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    save_file(tensors, path)
    assert_equal(load_weights(tmp_path / "model", skeleton, table), state)
    tensors["lm_head.weight"][3, 5] += 1
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"config\.json ties lm_head\.weight to model"):
        load_weights(tmp_path / "model", skeleton, table)


def test_a_value_that_the_type_cannot_hold_is_refused(saved):
    skeleton, table, directory = saved
    path = directory / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][2] = 70_000.0
    save_file(tensors, path)
    load_weights(directory, skeleton, table, dtype=jnp.bfloat16)
    with pytest.raises(CheckpointError, match=r"model.norm.weight: 1 values up to 7e\+04 do"):
        load_weights(directory, skeleton, table, dtype=np.float16)


def test_layers_of_mixed_types_meet_in_one_that_holds_both(saved):
    skeleton, table, directory = saved
    path = directory / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.1.input_layernorm.weight"
    tensors[name] = tensors[name].astype(jnp.bfloat16)
    save_file(tensors, path)
    loaded = flatten(load_weights(directory, skeleton, table, dtype="stored"))
    scale = loaded["text.layers.input_norm.scale"]
    assert scale.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(scale[1]), tensors[name].astype(np.float32))


def test_the_host_holds_one_stacked_parameter_beyond_the_result(tmp_path):
    config = Qwen2VLConfig(
        vision_config=VisionConfig(depth=8, embed_dim=64, num_heads=4, hidden_size=16),
        text_config=TextConfig(**TEXT, mrope_section=(1, 1, 0)),
    )
    skeleton, table = family_of(config).skeleton(config), family_of(config).key_table(config)
    leaves = flatten(skeleton)
    zeros = [(p, v.replace(np.zeros(v.shape, np.float32))) for p, v in variables(skeleton)]
    save_weights(nnx.from_flat_state(zeros), table, tmp_path / "model")
    total = 4 * sum(math.prod(leaf.shape) for leaf in leaves.values())
    largest = 4 * max(math.prod(leaf.shape) for leaf in leaves.values())
    load_weights(tmp_path / "model", skeleton, table)  # what stays in caches is not counted
    tracemalloc.start()
    state = load_weights(tmp_path / "model", skeleton, table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # jax may share numpy's memory on CPU, so the result counts once; names and views are small.
    assert peak < total + largest + 400_000
    assert len(jax.tree.leaves(state)) == len(leaves)


def test_a_rule_places_every_parameter(saved):
    skeleton, table, directory = saved
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    rule = fully_sharded(mesh)
    for name, array in flatten(load_weights(directory, skeleton, table, sharding=rule)).items():
        assert array.sharding == rule(name, array.shape)


def test_full_sharding_splits_the_largest_divisible_axis():
    rule = fully_sharded(AbstractMesh((4,), ("data",)))
    assert rule("a", (6, 8, 16)).spec == PartitionSpec(None, None, ("data",))
    assert rule("b", (24, 6, 6)).spec == PartitionSpec(("data",), None, None)
    assert rule("c", (3, 7)).spec == PartitionSpec(None, None)


def spoil_pickle(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def spoil_nothing(directory):
    (directory / "model.safetensors").unlink()


def spoil_loose_shards(directory):
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    (directory / "model-00002-of-00002.safetensors").write_bytes(b"")


def spoil_truncated(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def spoil_header(directory):
    path = directory / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + path.read_bytes()[8:])


def spoil_overlap(directory):
    path = directory / "model.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def write_index(directory, weight_map):
    (directory / "model.safetensors").unlink(missing_ok=True)
    text = json.dumps({"weight_map": weight_map})
    (directory / "model.safetensors.index.json").write_text(text)


def spoil_parent_path(directory):
    write_index(directory, {"lm_head.weight": "../secret.safetensors"})


def spoil_absolute_path(directory):
    write_index(directory, {"lm_head.weight": "/etc/secret.safetensors"})


def spoil_shard_type(directory):
    write_index(directory, {"lm_head.weight": "shard.bin"})


def spoil_missing_shard(directory):
    write_index(directory, {"lm_head.weight": "model-00001-of-00001.safetensors"})


def spoil_index_json(directory):
    write_index(directory, {})
    (directory / "model.safetensors.index.json").write_text("[" * 100_000)


def spoil_two_files(directory):
    (directory / "model.safetensors.index.json").write_text("{}")


def spoil_index_disagrees(directory):
    (directory / "model.safetensors").rename(directory / "a.safetensors")
    write_index(directory, {"lm_head.bias": "a.safetensors"})


def spoil_two_shards(directory):
    tensors = load_file(directory / "model.safetensors")
    save_file(tensors, directory / "a.safetensors")
    save_file({"lm_head.weight": tensors["lm_head.weight"]}, directory / "b.safetensors")
    names = {name: "a.safetensors" for name in tensors} | {"model.norm.weight": "b.safetensors"}
    write_index(directory, names)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_pickle, "weights only as pytorch_model.bin; a pickle runs code when it is read"),
        (spoil_nothing, "no model.safetensors and no model.safetensors.index.json"),
        (spoil_loose_shards, "2 safetensors files .* but no model.safetensors.index.json"),
        (spoil_truncated, "model.safetensors: not a whole safetensors file"),
        (spoil_header, "model.safetensors: not a whole safetensors file"),
        (spoil_overlap, "model.safetensors: not a whole safetensors file"),
        (spoil_parent_path, r"'\.\./secret.safetensors'; a shard is a bare file name"),
        (spoil_absolute_path, "'/etc/secret.safetensors'; a shard is a bare file name"),
        (spoil_shard_type, "'shard.bin', not a safetensors file"),
        (spoil_missing_shard, "1 of 1 shards are missing: model-00001-of-00001.safetensors"),
        (spoil_index_json, "not valid JSON"),
        (spoil_two_files, "holds model.safetensors and model.safetensors.index.json"),
        (spoil_index_disagrees, "disagree about .* tensors: lm_head.bias"),
        (spoil_two_shards, "lm_head.weight is in a.safetensors and in b.safetensors"),
    ],
)
def test_a_bad_directory_is_one_clear_line(saved, spoil, message):
    skeleton, table, directory = saved
    spoil(directory)
    with pytest.raises(CheckpointError, match=message) as error:
        load_weights(directory, skeleton, table)
    assert "\n" not in str(error.value)
    assert not re.search("0x[0-9a-f]{6}", str(error.value))


def test_a_directory_that_holds_something_is_not_overwritten(saved):
    _, table, directory = saved
    before = (directory / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="is not empty"):
        save_weights(make_model(seed=1)[2], table, directory)
    assert (directory / "model.safetensors").read_bytes() == before


def test_a_full_disk_leaves_nothing(tmp_path, limited_files):
    _, table, state = make_model()
    with limited_files(10_000), pytest.raises(RunError, match=r"save .*/model: File too large; no"):
        save_weights(state, table, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_disk_known_to_be_too_small_is_not_touched(tmp_path, monkeypatch):
    _, table, state = make_model()
    usage = type("Usage", (), {"free": 1_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(RunError, match=r"save .*/model: needs 0.0 MB, but 0.0 MB are free"):
        save_weights(state, table, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_every_parameter_has_a_key():
    skeleton, table, _ = make_model()
    short = type(table)(keys=table.keys[1:])
    with pytest.raises(CheckpointError, match="no file key is known for vision"):
        expected_shapes(flatten(skeleton), short)

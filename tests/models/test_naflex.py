"""NativeRes-LLaVA on SigLIP2-NaFlex: sizes, files, bad input. Live transformers: tests/parity."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, strategies as st
from safetensors.numpy import load_file, save_file

from mres_jax import testing
from mres_jax.errors import CheckpointError
from mres_jax.geometry import Size, naflex_size
from mres_jax.models.key_table import Key, expected_shapes, flatten
from mres_jax.models.nativeres_llava.presets import nativeres_llava
from mres_jax.models.registry import FAMILIES, LoadedModel, export_hf, load_model
from mres_jax.models.siglip.config import NAFLEX
from mres_jax.resolution.policies import parse_policy

FAMILY = FAMILIES["llava_qwen"]
TOWER = "model.vision_tower.vision_tower.vision_model."


@given(st.integers(1, 5_000), st.integers(1, 5_000), st.integers(1, 1_024))
def test_a_picture_fills_the_budget_and_never_more(height, width, most):
    size = naflex_size(height, width, stride=16, max_tokens=most)
    rows, columns = size.height // 16, size.width // 16
    assert size == (16 * rows, 16 * columns)
    assert min(rows, columns) >= 1
    assert rows * columns <= most
    if max(height, width) <= 50 * min(height, width) and most >= 64 and min(height, width) > 16:
        assert rows * columns > most / 2  # one more row or column each would not fit


@pytest.mark.parametrize("merge", [1, 2])
def test_the_rule_is_the_processor_s_where_there_is_one(merge):
    ours = testing.tiny_naflex(spatial_merge_size=merge).spec
    theirs = testing.tiny_naflex(spatial_merge_size=merge, max_num_patches=36).spec
    assert (ours.resize_rule, theirs.resize_rule) == ("fit", "naflex")
    assert (theirs.resample, theirs.stride) == ("bilinear", 4 * merge)
    native = parse_policy("native")
    sizes = [native([Size(12, 16)], "", spec)[0].size for spec in (ours, theirs)]
    assert sizes == [(12, 16) if merge == 1 else (16, 16), (20, 28) if merge == 1 else (24, 24)]
    (small,) = parse_policy("budget:4")([Size(12, 16)], "", theirs)
    assert theirs.num_visual_tokens(theirs.grid(small.size)) <= 4


def made(**changes) -> LoadedModel:
    tiny = testing.tiny_naflex(**changes)
    return LoadedModel(**tiny._asdict())


def same(left, right) -> bool:
    ours, theirs = flatten(left), flatten(right)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name]) for name in ours
    )


@pytest.mark.parametrize("changes", [{"max_num_patches": 36}, {"spatial_merge_size": 2}], ids=str)
def test_a_directory_comes_back_bit_for_bit(changes, tmp_path):
    model = made(**changes)
    export_hf(model, tmp_path / "out")
    again = load_model(tmp_path / "out")
    assert (again.config, again.spec) == (model.config, model.spec)
    assert same(again.model, model.model)


def test_a_tower_from_the_hub_is_read_from_beside(tmp_path):
    """With the pooling head and the text tower that such a file has."""
    model = made()
    export_hf(model, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    tower = {n.removeprefix(TOWER): t for n, t in tensors.items() if n.startswith(TOWER)}
    assert len(tower) == 37
    rest = {n: t for n, t in tensors.items() if not n.startswith(TOWER)}
    save_file(rest, tmp_path / "out" / "model.safetensors")
    (tmp_path / "out" / "vision_tower").mkdir()
    more = {"vision_model.head.probe": np.zeros((1, 1, 16), np.float32)}
    more |= {
        "text_model.head.bias": np.zeros(3, np.float32),
        "logit_scale": np.zeros(1, np.float32),
    }
    released = more | {f"vision_model.{name}": tensor for name, tensor in tower.items()}
    save_file(released, tmp_path / "out" / "vision_tower" / "model.safetensors")
    assert same(load_model(tmp_path / "out").model, model.model)
    shutil.rmtree(tmp_path / "out" / "vision_tower")
    with pytest.raises(
        CheckpointError, match="the vision tower is missing: none of its 37 tensors"
    ):
        load_model(tmp_path / "out")


def test_rows_of_pixels_become_rows_of_channels_and_back():
    """The released tower embeds patches as (row, column, channel)."""
    key = Key(hf="a", ours="b", transform="transpose_pixels", tail=(2, 2, 3))
    tensor = np.arange(24.0, dtype=np.float32).reshape(2, 12)  # pixel by pixel
    kernel = key.to_ours(tensor)
    assert kernel[:, 0].tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    np.testing.assert_array_equal(key.to_hf(kernel), tensor)
    assert key.hf_shape(kernel.shape) == (2, 12)


@pytest.mark.parametrize(("size", "parameters"), [("base", 85_843_200), ("so400m", 412_649_712)])
def test_released_towers_by_name(size, parameters):
    """Parameters as `Siglip2VisionModel` of transformers 5.23 has them without its head."""
    config = nativeres_llava("0.5b", tower=f"siglip2-{size}")
    content = FAMILY.config_to_hf(config)
    assert content["mm_vision_tower"] == f"siglip2-{size}-patch16-naflex"
    assert FAMILY.config_from_hf(content) == config
    named = {k: v for k, v in content.items() if k not in ("vision_config", "mm_hidden_size")}
    assert FAMILY.config_from_hf(named).vision_config == NAFLEX[size]
    shapes = expected_shapes(flatten(FAMILY.skeleton(config)), FAMILY.key_table(config))
    tower = {n: s for n, s in shapes.items() if n.startswith(TOWER)}
    assert sum(int(np.prod(shape)) for shape in tower.values()) == parameters
    width = NAFLEX[size].hidden_size
    assert tower[f"{TOWER}embeddings.patch_embedding.weight"] == (width, 768)
    assert tower[f"{TOWER}embeddings.position_embedding.weight"] == (256, width)
    assert shapes["model.mm_projector.0.weight"] == (896, 4 * width)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_patches": 24}, "num_patches=24 is no square"),
        ({"num_attention_heads": 3}, "num_attention_heads=3 does not divide hidden_size=16"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
    ],
)
def test_a_tower_that_cannot_be_is_refused(change, message, tmp_path):
    content = FAMILY.config_to_hf(made().config)
    content["vision_config"] |= change
    with pytest.raises(CheckpointError, match=message):
        FAMILY.config_from_hf(json.loads(json.dumps(content)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_num_patches": 3}, "max_num_patches=3 is less than one visual token of 4 patches"),
        ({"max_num_patches": 0}, "max_num_patches is 0, not 1 to"),
        ({"resize_rule": "square"}, "resize_rule is 'square'; have fit, hf, naflex"),
    ],
)
def test_a_processor_that_cannot_be_is_refused(settings, message):
    with pytest.raises(CheckpointError, match=message):
        testing.tiny_naflex(spatial_merge_size=2, **settings)

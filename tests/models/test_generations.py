"""Qwen2.5-VL and Qwen3-VL: released configurations and sizes, files there and back."""

import json
import math

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings, strategies as st

from mres_jax import testing
from mres_jax.data.packing import empty_pack
from mres_jax.data.types import Rung
from mres_jax.errors import CheckpointError
from mres_jax.models import registry
from mres_jax.models.key_table import expected_shapes, flatten
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2_5_vl.config import (
    Qwen2_5VLConfig,
    VisionConfig as WindowedConfig,
    qwen2_5_vl,
)
from mres_jax.models.qwen3.config import TextConfig as Qwen3TextConfig
from mres_jax.models.qwen3_vl.config import (
    Qwen3VLConfig,
    VisionConfig as DeepStackConfig,
    qwen3_vl,
)

QWEN2_5, QWEN3 = registry.FAMILIES["qwen2_5_vl"], registry.FAMILIES["qwen3_vl"]
IDS = {
    "image_token_id": 151_655,
    "video_token_id": 151_656,
    "vision_start_token_id": 151_652,
    "vision_end_token_id": 151_653,
}
TEXT_7B = {
    "vocab_size": 152_064,
    "hidden_size": 3_584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "hidden_act": "silu",
    "max_position_embeddings": 128_000,
    "max_window_layers": 28,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "use_sliding_window": False,
}
TOWER_7B = {
    "depth": 32,
    "hidden_act": "silu",
    "hidden_size": 1_280,
    "intermediate_size": 3_420,
    "num_heads": 16,
    "in_chans": 3,
    "out_hidden_size": 3_584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
    "temporal_patch_size": 2,
}
# As the hub has it: flat, as 4.49 wrote.
FLAT_7B = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "bos_token_id": 151_643,
    "eos_token_id": 151_645,
    "vision_token_id": 151_654,
    "model_type": "qwen2_5_vl",
    **IDS,
    **TEXT_7B,
    "rope_theta": 1_000_000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "sliding_window": 32_768,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.2",
    "vision_config": TOWER_7B,
}
# As 4.53 wrote it: everything twice.
TWICE_7B = {
    **FLAT_7B,
    "rope_scaling": {"type": "default", "rope_type": "default", "mrope_section": [16, 24, 24]},
    "text_config": {
        **TEXT_7B,
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "image_token_id": None,
        "layer_types": ["full_attention"] * 28,
        "model_type": "qwen2_5_vl_text",
        "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"},
        "rope_theta": 1_000_000.0,
        "sliding_window": None,
        "video_token_id": None,
        "vision_end_token_id": 151_653,
        "vision_start_token_id": 151_652,
        "vision_token_id": 151_654,
    },
    "vision_config": {**TOWER_7B, "in_channels": 3, "model_type": "qwen2_5_vl"},
}
# As 5.x writes it.
NESTED_7B = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "dtype": "bfloat16",
    "model_type": "qwen2_5_vl",
    **IDS,
    "text_config": {
        **TEXT_7B,
        "model_type": "qwen2_5_vl_text",
        "layer_types": ["full_attention"] * 28,
        "rope_parameters": {
            "mrope_section": [16, 24, 24],
            "rope_theta": 1_000_000.0,
            "rope_type": "default",
            "type": "default",
        },
    },
    "tie_word_embeddings": False,
    "vision_config": {
        **TOWER_7B,
        "in_channels": 3,
        "model_type": "qwen2_5_vl_vision",
        "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "axial"},
    },
}
# As the hub has it, written by 4.57.
HUB_4B = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    **IDS,
    "text_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151_643,
        "dtype": "bfloat16",
        "eos_token_id": 151_645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2_560,
        "initializer_range": 0.02,
        "intermediate_size": 9_728,
        "max_position_embeddings": 262_144,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [24, 20, 20],
            "rope_type": "default",
        },
        "rope_theta": 5_000_000,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": 151_936,
    },
    "tie_word_embeddings": True,
    "transformers_version": "4.57.0.dev0",
    "vision_config": {
        "deepstack_visual_indexes": [5, 11, 17],
        "depth": 24,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1_024,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": 4_096,
        "model_type": "qwen3_vl",
        "num_heads": 16,
        "num_position_embeddings": 2_304,
        "out_hidden_size": 2_560,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}


def changed(content: dict, path: str, value) -> dict:
    """A copy with another value at a dotted path."""
    outer, _, inner = path.partition(".")
    return {**content, outer: changed(content[outer], inner, value) if inner else value}


@pytest.mark.parametrize("content", [FLAT_7B, TWICE_7B, NESTED_7B], ids=["flat", "twice", "nested"])
def test_files_of_every_version_are_the_same_qwen2_5_vl(content):
    assert QWEN2_5.config_from_hf(content) == qwen2_5_vl("7b")


def test_the_file_on_the_hub_is_the_preset_and_so_is_what_5_x_makes_of_it():
    assert QWEN3.config_from_hf(HUB_4B) == qwen3_vl("4b")
    text = dict(HUB_4B["text_config"])
    rope = text.pop("rope_scaling") | {"rope_theta": float(text.pop("rope_theta"))}
    newer = changed(HUB_4B, "text_config", {**text, "rope_parameters": rope})
    newer = changed(newer, "vision_config.model_type", "qwen3_vl_vision")
    assert QWEN3.config_from_hf(newer) == qwen3_vl("4b")


@pytest.mark.parametrize(
    ("config", "tensors", "parameters"),
    [
        (qwen2_5_vl("3b"), 390, 668_684_288),
        (qwen2_5_vl("7b"), 390, 676_550_144),
        (qwen3_vl("2b"), 315, 406_957_056),
        (qwen3_vl("8b"), 351, 576_388_336),
    ],
    ids=["2.5 3B", "2.5 7B", "3 2B", "3 8B"],
)
def test_released_towers_have_their_published_size(config, tensors, parameters):
    family = registry.family_of(config)
    tower = nnx.eval_shape(lambda: family.Model.TOWER(config.vision_config, rngs=nnx.Rngs(0)))
    leaves = {f"vision.{name}": leaf for name, leaf in flatten(tower).items()}
    shapes = expected_shapes(leaves, family.key_table(config))
    assert len(shapes) == tensors
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters


def test_other_presets_differ_where_the_releases_do():
    assert [qwen2_5_vl(size).text_config.head_dim for size in ("3b", "32b", "72b")] == [128] * 3
    assert qwen2_5_vl("3b").text_config.tie_word_embeddings
    assert not qwen2_5_vl("32b").text_config.tie_word_embeddings
    assert qwen2_5_vl("72b").vision_config.intermediate_size == 3_456
    large = qwen3_vl("32b").text_config
    assert (large.head_dim, large.hidden_size // large.num_attention_heads) == (128, 80)
    assert [qwen3_vl(s).text_config.tie_word_embeddings for s in ("2b", "4b", "8b", "32b")] == [
        *(True, True, False, False)
    ]


@st.composite
def towers(draw) -> dict:
    """Fields of a tower, with some of its layers by their usual name in `layers`."""
    heads, depth = draw(st.integers(1, 4)), draw(st.integers(1, 40))
    return {
        "depth": depth,
        "num_heads": heads,
        "hidden_size": 4 * heads * draw(st.integers(1, 4)),
        "intermediate_size": draw(st.integers(1, 64)),
        "out_hidden_size": 16,
        "patch_size": draw(st.integers(1, 32)),
        "spatial_merge_size": draw(st.integers(1, 3)),
        "image_mean": draw(st.tuples(*3 * [st.floats(0.1, 0.9)])),
        "layers": tuple(sorted(draw(st.sets(st.integers(0, depth - 1), max_size=4)))),
    }


TEXT = dict(
    vocab_size=99,
    hidden_size=16,
    intermediate_size=8,
    num_hidden_layers=4,
    num_attention_heads=2,
    num_key_value_heads=1,
)


@given(towers(), st.booleans())
@settings(max_examples=25)
def test_a_qwen2_5_vl_survives_the_way_out_and_back(fields, tied):
    text = TextConfig(**TEXT, tie_word_embeddings=tied, mrope_section=(2, 1, 1))
    vision = WindowedConfig(fullatt_block_indexes=fields.pop("layers"), **fields)
    config = Qwen2_5VLConfig(vision_config=vision, text_config=text, image_token_id=7)
    assert QWEN2_5.config_from_hf(json.loads(json.dumps(QWEN2_5.config_to_hf(config)))) == config


@given(towers())
@settings(max_examples=25)
def test_a_qwen3_vl_survives_the_way_out_and_back(fields):
    text = Qwen3TextConfig(**TEXT, head_dim=20, rope_theta=1e5, mrope_section=(4, 3, 3))
    layers = fields.pop("layers")
    vision = DeepStackConfig(num_position_embeddings=49, deepstack_visual_indexes=layers, **fields)
    config = Qwen3VLConfig(vision_config=vision, text_config=text, image_token_id=7)
    assert QWEN3.config_from_hf(json.loads(json.dumps(QWEN3.config_to_hf(config)))) == config


@pytest.mark.parametrize(
    ("family", "content", "message"),
    [
        (QWEN2_5, changed(FLAT_7B, "vision_config.hidden_act", "gelu"), "hidden_act is 'gelu'"),
        (QWEN2_5, changed(FLAT_7B, "vision_config.out_hidden_size", 9), "visual tokens have 9 ch"),
        (QWEN2_5, changed(FLAT_7B, "vision_config.window_size", 27), "less than one visual token"),
        (
            QWEN2_5,
            changed(FLAT_7B, "vision_config.fullatt_block_indexes", [7, 32]),
            r"fullatt_block_indexes=\[7, 32\] must name layers 0 to 31",
        ),
        (
            QWEN2_5,
            changed(FLAT_7B, "vision_config.fullatt_block_indexes", ["7"]),
            "is .'7'., not a list of layers",
        ),
        (QWEN3, changed(HUB_4B, "text_config.attention_bias", True), "attention_bias is True"),
        (
            QWEN3,
            changed(HUB_4B, "text_config.rope_scaling.mrope_interleaved", False),
            "mrope_interleaved is False, have True",
        ),
        (
            QWEN3,
            changed(HUB_4B, "vision_config.num_position_embeddings", 2_305),
            "num_position_embeddings=2305 is no square",
        ),
        (
            QWEN3,
            changed(HUB_4B, "vision_config.deepstack_visual_indexes", [11, 5]),
            r"deepstack_visual_indexes=\[11, 5\] must name layers 0 to 23, in order",
        ),
        (QWEN3, changed(HUB_4B, "text_config.num_hidden_layers", 2), "3 deepstack_visual_indexes"),
        (QWEN3, changed(HUB_4B, "text_config.head_dim", 7), "head_dim=7 is no even number"),
        (QWEN3, changed(HUB_4B, "model_type", "qwen3_vl_moe"), "model_type is 'qwen3_vl_moe'"),
    ],
)
def test_another_model_is_refused_by_name(family, content, message):
    with pytest.raises(CheckpointError, match=message) as error:
        family.config_from_hf(content)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("family", "content"), [(QWEN2_5, FLAT_7B), (QWEN3, HUB_4B)])
def test_unknown_fields_are_named(family, content):
    with pytest.warns(UserWarning, match="vision_config: unknown fields are ignored: gate"):
        family.config_from_hf(changed(content, "vision_config.gate", 1))


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def tiny(request) -> testing.TinyModel:
    return getattr(testing, f"tiny_{request.param}")()


def test_a_directory_comes_back_from_our_checkpoint_bit_for_bit(tiny, tmp_path):
    config = tiny.model.config
    loaded = registry.LoadedModel(**tiny._asdict())
    registry.export_hf(loaded, tmp_path / "hf")
    assert registry.convert(tmp_path / "hf", tmp_path / "ours") == "orbax"
    assert registry.convert(tmp_path / "ours", tmp_path / "back") == "huggingface"
    for file in sorted((tmp_path / "hf").iterdir()):
        assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes(), file.name
    again = registry.load_model(tmp_path / "back")
    assert (again.config, again.spec) == (config, tiny.spec)
    assert jax.tree.all(jax.tree.map(np.array_equal, nnx.state(again.model), nnx.state(tiny.model)))


def test_a_pack_of_another_model_is_refused(tiny):
    rung = Rung(max_patches=16, max_tokens=16, max_views=1, max_examples=1)
    spec = testing.tiny_spec(tiny.tokenizer)
    name = "windows" if tiny.spec.window_side else "position_weights"
    with pytest.raises(ValueError, match=f"the pack has no {name}. Assemble it with this model's"):
        tiny.model.vision(empty_pack(rung, spec))

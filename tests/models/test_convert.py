"""Configurations of strangers: read exactly, or refused by name."""

import dataclasses
import math
import warnings

import pytest
from hypothesis import given, strategies as st

from mres_jax import testing
from mres_jax.errors import CheckpointError
from mres_jax.models.key_table import expected_shapes, flatten
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.qwen2.config import TextConfig
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig, VisionConfig
from mres_jax.models.registry import FAMILIES, family_of

QWEN2_VL, NATIVERES = FAMILIES["qwen2_vl"], FAMILIES["llava_qwen"]
TEXT_2B = dict(
    vocab_size=151_936,
    hidden_size=1_536,
    intermediate_size=8_960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    rms_norm_eps=1e-6,
)
# As files on the hub have it: flat, with the fields that 4.x wrote.
FLAT_2B = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "model_type": "qwen2_vl",
    "attention_dropout": 0.0,
    "bos_token_id": 151_643,
    "eos_token_id": 151_645,
    "vision_start_token_id": 151_652,
    "vision_end_token_id": 151_653,
    "vision_token_id": 151_654,
    "image_token_id": 151_655,
    "video_token_id": 151_656,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 32_768,
    "max_window_layers": 28,
    **TEXT_2B,
    "rope_theta": 1_000_000.0,
    "sliding_window": 32_768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "embed_dim": 1_280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": 1_536,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
}
# As 5.x writes it: the decoder in `text_config`, rotary fields in `rope_parameters`.
NESTED_2B = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "dtype": "bfloat16",
    "image_token_id": 151_655,
    "model_type": "qwen2_vl",
    "text_config": {
        **TEXT_2B,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "layer_types": ["full_attention"] * 28,
        "max_position_embeddings": 32_768,
        "model_type": "qwen2_vl_text",
        "rope_parameters": {
            "mrope_section": [16, 24, 24],
            "rope_theta": 1_000_000.0,
            "rope_type": "default",
            "type": "mrope",
        },
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "tie_word_embeddings": True,
    "vision_config": {
        **FLAT_2B["vision_config"],
        "hidden_act": "quick_gelu",
        "in_channels": 3,
        "model_type": "qwen2_vl_vision",
        "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "axial"},
    },
}
CONFIG_2B = Qwen2VLConfig(
    vision_config=VisionConfig(depth=32, embed_dim=1_280, num_heads=16, hidden_size=1_536),
    text_config=TextConfig(**TEXT_2B, tie_word_embeddings=True, mrope_section=(16, 24, 24)),
)
# As the released NativeRes-LLaVA has it: the tower by name only.
LLAVA = {
    "architectures": ["LlavaQwenForCausalLM"],
    "model_type": "llava_qwen",
    **TEXT_2B,
    "hidden_act": "silu",
    "max_position_embeddings": 32_768,
    "rope_theta": 1_000_000.0,
    "rope_scaling": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "mm_vision_tower": "/data/checkpoints/qwen2vit-665m-patch14-native",
    "mm_hidden_size": 1_536,
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -1,
    "mm_use_im_start_end": False,
    "mm_vision_tower_lr": 2e-6,
    "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
    "tokenizer_model_max_length": 5_120,
}


def changed(content: dict, **fields) -> dict:
    """A copy with other fields; `vision_config__depth` is nested."""
    out = dict(content)
    for name, value in fields.items():
        outer, _, inner = name.partition("__")
        out[outer] = {**out[outer], inner: value} if inner else value
    return out


@pytest.mark.parametrize("content", [FLAT_2B, NESTED_2B])
def test_flat_and_nested_files_are_the_same_model(content):
    assert QWEN2_VL.config_from_hf(content) == CONFIG_2B


def test_tied_embeddings_are_found_at_either_place():
    nested = changed(NESTED_2B, tie_word_embeddings=False, text_config__tie_word_embeddings=True)
    assert QWEN2_VL.config_from_hf(nested) == CONFIG_2B
    neither = changed(NESTED_2B, tie_word_embeddings=False)
    assert not QWEN2_VL.config_from_hf(neither).text_config.tie_word_embeddings


def test_the_released_tower_is_known_by_name():
    config = NATIVERES.config_from_hf(LLAVA)
    assert config.vision_config == CONFIG_2B.vision_config
    assert config.text_config == dataclasses.replace(CONFIG_2B.text_config, mrope_section=None)


def test_the_released_tower_has_its_published_size():
    """391 tensors, 665,271,296 parameters, of which 34,087,936 in the merger."""
    skeleton = QWEN2_VL.skeleton(CONFIG_2B)
    shapes = expected_shapes(flatten(skeleton), QWEN2_VL.key_table(CONFIG_2B))
    tower = {name: math.prod(s) for name, s in shapes.items() if name.startswith("visual.")}
    assert len(tower) == 391
    assert sum(tower.values()) == 665_271_296
    merger = sum(size for name, size in tower.items() if name.startswith("visual.merger."))
    assert merger == 34_087_936
    assert shapes["visual.patch_embed.proj.weight"] == (1_280, 3, 2, 14, 14)
    assert shapes["visual.blocks.31.attn.qkv.weight"] == (3_840, 1_280)
    assert shapes["model.layers.27.self_attn.k_proj.weight"] == (256, 1_536)
    assert "lm_head.weight" not in shapes  # tied


def test_keys_of_nativeres_llava_are_the_released_ones():
    config = NATIVERES.config_from_hf(LLAVA)
    shapes = expected_shapes(flatten(NATIVERES.skeleton(config)), NATIVERES.key_table(config))
    assert shapes["model.vision_tower.vision_tower.merger.mlp.2.weight"] == (1_536, 5_120)
    assert shapes["model.mm_projector.0.weight"] == (1_536, 1_536)
    assert shapes["model.mm_projector.2.bias"] == (1_536,)
    assert shapes["model.embed_tokens.weight"] == (151_936, 1_536)


def test_pixel_statistics_come_from_the_preprocessor():
    preprocessor = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.5]}
    vision = QWEN2_VL.config_from_hf(FLAT_2B, preprocessor).vision_config
    assert vision.image_mean == (0.5, 0.5, 0.5)
    assert vision.image_std == (0.25, 0.25, 0.5)


@st.composite
def text_configs(draw, *, mrope: bool):
    heads, groups = draw(st.sampled_from([(1, 1), (2, 1), (6, 3)]))
    half = draw(st.integers(2, 8))
    first = draw(st.integers(0, half))
    return TextConfig(
        vocab_size=draw(st.integers(1, 200_000)),
        hidden_size=heads * 2 * half,
        intermediate_size=draw(st.integers(1, 99)),
        num_hidden_layers=draw(st.integers(1, 99)),
        num_attention_heads=heads,
        num_key_value_heads=groups,
        rms_norm_eps=draw(st.sampled_from([1e-5, 1e-6])),
        rope_theta=draw(st.sampled_from([1e4, 1e6])),
        tie_word_embeddings=draw(st.booleans()),
        max_position_embeddings=draw(st.integers(1, 2**20)),
        mrope_section=(first, half - first, 0) if mrope and draw(st.booleans()) else None,
    )


@st.composite
def vision_configs(draw, *, width: int | None = None):
    heads = draw(st.integers(1, 4))
    embed_dim = 4 * heads * draw(st.integers(1, 4))
    pooled = width in (None, embed_dim) and draw(st.booleans())
    channels = st.tuples(*3 * [st.floats(0.1, 0.9)])
    return VisionConfig(
        depth=draw(st.integers(1, 40)),
        embed_dim=embed_dim,
        num_heads=heads,
        hidden_size=embed_dim if pooled else width or draw(st.integers(1, 64)),
        mlp_ratio=draw(st.sampled_from([2.0, 4.0, 3.5])),
        patch_size=draw(st.integers(1, 32)),
        spatial_merge_size=draw(st.integers(1, 4)),
        temporal_patch_size=draw(st.integers(1, 4)),
        merge="avgpool" if pooled else "patch_merger",
        num_position_embeddings=draw(st.sampled_from([0, 0, 1, 16, 2_304])),
        image_mean=draw(channels),
        image_std=draw(channels),
    )


@given(st.data())
def test_a_configuration_survives_the_way_out_and_back(data):
    text = data.draw(text_configs(mrope=True))
    vision = data.draw(vision_configs(width=text.hidden_size))
    config = Qwen2VLConfig(vision_config=vision, text_config=text, image_token_id=7)
    assert QWEN2_VL.config_from_hf(QWEN2_VL.config_to_hf(config)) == config


@given(text_configs(mrope=False), vision_configs(), st.integers(1, 99))
def test_a_nativeres_configuration_survives_the_way_out_and_back(text, vision, tokens):
    config = NativeResLlavaConfig(vision_config=vision, text_config=text, min_image_tokens=tokens)
    assert NATIVERES.config_from_hf(NATIVERES.config_to_hf(config)) == config
    assert family_of(config) is NATIVERES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(FLAT_2B, hidden_act="gelu"), "hidden_act is 'gelu', have 'silu'"),
        (changed(FLAT_2B, use_sliding_window=True), "use_sliding_window is True, have False"),
        (changed(FLAT_2B, head_dim=64), "head_dim is 64, have 128"),
        (changed(FLAT_2B, layer_types=["sliding_attention"]), "layer_types has 'sliding"),
        (changed(FLAT_2B, rope_scaling={"type": "yarn", "factor": 4.0}), "type is 'yarn', have"),
        (changed(FLAT_2B, rope_scaling={"type": "mrope"}), "there is no mrope_section"),
        (changed(FLAT_2B, rope_scaling__mrope_section=[16, 24]), "not three channel counts"),
        (changed(FLAT_2B, rope_scaling__mrope_section=[1, 2, 3]), "must sum to half the head"),
        (changed(FLAT_2B, auto_map={"AutoModel": "x.Y"}), "auto_map points at code"),
        (changed(FLAT_2B, quantization_config={"bits": 4}), "quantised weights are not read"),
        (changed(FLAT_2B, hidden_size=None), "config.json: has no hidden_size"),
        (changed(FLAT_2B, hidden_size="1536"), "hidden_size is '1536', not int"),
        (changed(FLAT_2B, hidden_size=0), "hidden_size is 0, not 1 to"),
        (changed(FLAT_2B, num_hidden_layers=10**12), "num_hidden_layers is 10+, not 1 to"),
        (changed(FLAT_2B, num_attention_heads=7), "num_attention_heads=7 does not divide 1536"),
        (changed(FLAT_2B, num_attention_heads=True), "num_attention_heads is True, not int"),
        (changed(FLAT_2B, rope_theta=None), "has no rope_theta"),
        (changed(FLAT_2B, vision_config=[]), "vision_config is .*, not dict"),
        (changed(FLAT_2B, vision_config__depth=None), "vision_config: has no depth"),
        (changed(FLAT_2B, vision_config__patch_size=[14, 16]), "patch_size is .*, not one size"),
        (changed(FLAT_2B, vision_config__hidden_act="relu"), "hidden_act is 'relu', have"),
        (changed(FLAT_2B, vision_config__hidden_size=99), "visual tokens have 99 channels"),
        (
            changed(NESTED_2B, hidden_size=99),
            "is 99 at the top and 1536 in text_config",
        ),
    ],
)
def test_another_model_is_refused_by_name(content, message):
    with pytest.raises(CheckpointError, match=message) as error:
        QWEN2_VL.config_from_hf(content)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(LLAVA, mm_vision_tower="google/siglip-so400m"), "only the Qwen2-VL tower"),
        (changed(LLAVA, mm_vision_tower="x/qwen2_5_vit-668m"), "only the Qwen2-VL tower"),
        (changed(LLAVA, mm_projector_type="linear"), "mm_projector_type='linear'; have mlp2x_gelu"),
        (changed(LLAVA, mm_hidden_size=2_048), "mm_hidden_size is 2048, have 1536"),
        (changed(LLAVA, mm_use_im_start_end=True), "mm_use_im_start_end is True, have False"),
        (
            changed(LLAVA, rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]}),
            "the decoder has plain rotary",
        ),
    ],
)
def test_another_nativeres_is_refused_by_name(content, message):
    with pytest.raises(CheckpointError, match=message):
        NATIVERES.config_from_hf(content)


@pytest.mark.parametrize(
    ("preprocessor", "message"),
    [
        ({"min_pixels": "3136"}, "min_pixels is '3136', not int"),
        ({"max_pixels": True}, "max_pixels is True, not int"),
        ({"max_pixels": -1}, "max_pixels is -1, not 1 to"),
        ({"size": [56, 56]}, r"size is \[56, 56\], not dict"),
        ({"size": {"longest_edge": 1e6}}, "size: longest_edge is 1000000.0, not int"),
        ({"min_pixels": 9, "max_pixels": 4}, "min_pixels is 9, above max_pixels 4"),
        ({"resize_rule": "crop"}, "resize_rule is 'crop'; have fit, hf"),
    ],
)
def test_impossible_pixel_settings_are_refused_by_name(preprocessor, message):
    ids = testing.tiny_tokenizer().token_id
    for family, config in [(QWEN2_VL, CONFIG_2B), (NATIVERES, NATIVERES.config_from_hf(LLAVA))]:
        with pytest.raises(CheckpointError, match=f"^preprocessor_config.json: {message}"):
            family.make_spec(config, ids, preprocessor=preprocessor)


def test_several_problems_are_one_line():
    content = changed(FLAT_2B, hidden_act="gelu", use_sliding_window=True)
    with pytest.raises(CheckpointError) as error:
        QWEN2_VL.config_from_hf(content)
    assert str(error.value) == (
        "config.json: hidden_act is 'gelu', have 'silu'; use_sliding_window is True, have False."
    )


def test_unknown_fields_are_named_in_one_warning():
    content = changed(FLAT_2B, vision_gate=1, deep_fusion=True, nothing=None)
    with pytest.warns(UserWarning, match="unknown fields are ignored: deep_fusion, vision_gate"):
        assert QWEN2_VL.config_from_hf(content) == CONFIG_2B


def test_harmless_fields_pass_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = changed(FLAT_2B, top_k=50, num_beams=1, _name_or_path="x")
        assert QWEN2_VL.config_from_hf(content) == CONFIG_2B

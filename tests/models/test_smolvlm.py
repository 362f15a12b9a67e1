"""SmolVLM2: files, released sizes, features for an allocator. Live transformers: tests/parity."""

import dataclasses
import functools
import json
import pathlib

import jax
import jinja2
import numpy as np
import pytest
from flax import nnx

from mres_jax import testing
from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import Message
from mres_jax.data.packing import pack
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import Rung
from mres_jax.data.video import clip_of
from mres_jax.errors import CheckpointError, PolicyError
from mres_jax.geometry import Size
from mres_jax.inference.eyes import Eyes
from mres_jax.models.key_table import expected_shapes, flatten
from mres_jax.models.registry import (
    FAMILIES,
    LoadedModel,
    convert,
    export_hf,
    load_model,
    load_processor,
)
from mres_jax.models.smolvlm.config import smolvlm2
from mres_jax.models.smolvlm.processor import make_spec, preprocessor_to_hf
from mres_jax.protocols import extent_of
from mres_jax.resolution.policies import parse_policy

FAMILY = FAMILIES["smolvlm"]
# As on the hub (SmolVLM2-256M-Video-Instruct), fields that change nothing included.
RELEASED = {
    "architectures": ["SmolVLMForConditionalGeneration"],
    "image_token_id": 49_190,
    "model_type": "smolvlm",
    "pad_token_id": 128_002,
    "scale_factor": 4,
    "text_config": {
        "_flash_attn_2_enabled": True,
        "_name_or_path": "None",
        "architectures": ["VLlama3ForCausalLM"],
        "head_dim": 64,
        "hidden_size": 576,
        "intermediate_size": 1_536,
        "is_llama_config": True,
        "max_position_embeddings": 8_192,
        "model_type": "llama",
        "neftune_noise_alpha": 0.0,
        "num_attention_heads": 9,
        "num_hidden_layers": 30,
        "num_key_value_heads": 3,
        "pad_token_id": 2,
        "pixel_shuffle_factor": 4,
        "qk_layer_norms": False,
        "rms_norm_eps": 1e-5,
        "rope_interleaved": False,
        "rope_theta": 100_000,
        "torch_dtype": "bfloat16",
        "use_resampler": False,
        "vocab_size": 49_280,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": False,
    "use_reentrant_checkpointing": False,
    "vision_config": {
        "hidden_size": 768,
        "image_size": 512,
        "max_image_size": {"longest_edge": 512},
        "model_type": "smolvlm_vision",
        "num_attention_heads": 12,
        "patch_size": 16,
        "size": {"longest_edge": 2_048},
        "tie_word_embeddings": False,
        "use_base_siglip": False,
    },
    "vocab_size": 49_280,
}
SHAPES = """
model.vision_model.embeddings.patch_embedding.weight [768,3,16,16]
model.vision_model.embeddings.patch_embedding.bias [768]
model.vision_model.embeddings.position_embedding.weight [1024,768]
model.vision_model.encoder.layers.11.self_attn.out_proj.weight [768,768]
model.vision_model.encoder.layers.0.mlp.fc1.weight [3072,768]
model.vision_model.post_layernorm.bias [768]
model.connector.modality_projection.proj.weight [576,12288]
model.text_model.embed_tokens.weight [49280,576]
model.text_model.layers.29.self_attn.k_proj.weight [192,576]
model.text_model.norm.weight [576]
lm_head.weight [49280,576]
"""


@pytest.fixture(scope="module")
def tiny() -> testing.TinyModel:
    return testing.tiny_smolvlm()


@pytest.fixture(scope="module")
def directory(tiny, tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("smolvlm") / "hf"
    loaded = LoadedModel(**tiny._asdict())
    export_hf(loaded, path)
    return path


def assert_same(tiny: testing.TinyModel, directory: pathlib.Path) -> None:
    again = load_model(directory)
    assert again.config == tiny.model.config
    assert again.spec == tiny.spec
    ours, theirs = flatten(tiny.model), flatten(again.model)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_directory_comes_back_bit_for_bit(tiny, directory):
    assert_same(tiny, directory)
    assert json.loads((directory / "processor_config.json").read_text())["image_seq_len"] == 9


@pytest.mark.slow
def test_a_directory_comes_back_bit_for_bit_through_a_checkpoint_of_ours(tiny, directory, tmp_path):
    assert convert(directory, tmp_path / "ours") == "orbax"
    assert convert(tmp_path / "ours", tmp_path / "back") == "huggingface"
    assert_same(tiny, tmp_path / "ours")
    first, second = ((p / "model.safetensors").read_bytes() for p in (directory, tmp_path / "back"))
    assert first == second


@pytest.mark.parametrize(
    ("size", "parameters", "visual_tokens"),
    [("256m", 256_484_928, 64), ("500m", 507_482_304, 64), ("2.2b", 2_246_784_880, 81)],
)
def test_released_sizes(size, parameters, visual_tokens):
    """Parameters as the hub counts them, visual tokens of a square as the article says."""
    config = smolvlm2(size)
    leaves = flatten(FAMILY.skeleton(config))
    assert sum(leaf.size for leaf in leaves.values()) == parameters
    assert (config.vision_config.table_side // config.scale_factor) ** 2 == visual_tokens
    assert FAMILY.config_from_hf(FAMILY.config_to_hf(config)) == config
    if size == "256m":
        shapes = expected_shapes(leaves, FAMILY.key_table(config))
        for line in SHAPES.split("\n")[1:-1]:
            name, shape = line.split()
            assert shapes[name] == tuple(json.loads(shape)), name


def test_the_released_file_is_read():
    assert FAMILY.config_from_hf(RELEASED) == smolvlm2("256m")


def test_fields_that_are_unknown_are_named():
    text = RELEASED["text_config"] | {"sink_tokens": 4}
    with pytest.warns(UserWarning, match="text_config: unknown fields are ignored: sink_tokens"):
        FAMILY.config_from_hf(RELEASED | {"text_config": text})


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("text_config", {"qk_layer_norms": True}, "text_config: qk_layer_norms is True"),
        ("text_config", {"rope_interleaved": True}, "text_config: rope_interleaved is True"),
        ("vision_config", {"patch_size": 12}, "42 patches of 12 px a side, not whole blocks of 4"),
        ("vision_config", {"hidden_act": "relu"}, "vision_config: hidden_act is 'relu'"),
        (None, {"scale_factor": 0}, "scale_factor is 0, not 1 to"),
    ],
)
def test_what_would_be_another_model_is_refused(part, change, message):
    content = RELEASED | (change if part is None else {part: RELEASED[part] | change})
    with pytest.raises(CheckpointError, match=message):
        FAMILY.config_from_hf(content)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"max_image_size": {"longest_edge": 32}},
            "max_image_size is 32 px, but the tower takes 24",
        ),
        (
            {"size": {"longest_edge": 100}},
            "size is 100 px, 5 squares of 24 px a side, .* numbers 3",
        ),
        ({"size": {"longest_edge": 9_999}}, "longest_edge is 9999, not 1 to 4096"),
        ({"video_sampling": {"fps": 0}}, "fps=0, max_frames=64 cannot be"),
        ({"video_sampling": {"max_frames": 1}}, "fps=1, max_frames=1 cannot be"),
        (
            {"video_processor": {"max_image_size": {"longest_edge": 9}}},
            "video_processor: frames of 9 px, but pictures of 24",
        ),
    ],
)
def test_a_processor_that_does_not_suit_is_refused(settings, message):
    with pytest.raises(CheckpointError, match=message):
        testing.tiny_smolvlm(**settings)


def test_settings_for_clips_are_the_image_processor_s_or_of_a_file_of_their_own(tiny):
    """As on the hub, where `size` goes before `video_sampling`, and as saved by 5.x."""
    make = functools.partial(make_spec, tiny.model.config, tiny.tokenizer.token_id)
    released = {"fps": 2, "max_frames": 9, "video_size": {"longest_edge": 24}}
    hub = make(preprocessor={"size": {"longest_edge": 48}, "video_sampling": released})
    assert (hub.video.fps, hub.video.max_frames, hub.split.frame_longest) == (2, 9, 48)
    alone = make(preprocessor={"video_sampling": released})
    assert (alone.split.longest, alone.split.frame_longest) == (72, 24)
    own = {"fps": 3, "num_frames": 5, "size": {"longest_edge": 30}}
    saved = make(preprocessor={"size": {"longest_edge": 48}, "video_processor": own})
    assert (saved.video.fps, saved.video.max_frames) == (3, 5)
    assert (saved.split.longest, saved.split.frame_longest) == (48, 30)
    assert (make().video.fps, make().video.max_frames) == (1, 64)
    assert make(preprocessor=preprocessor_to_hf(hub)) == hub


def test_a_vocabulary_without_numbers_is_refused(tiny):
    plain = testing.tiny_tokenizer()
    with pytest.raises(CheckpointError, match="no token '<row_1_col_1>'"):
        make_spec(tiny.model.config, plain.token_id)


def test_pixels_that_are_no_whole_patch_are_not_shown(tiny):
    """As in 2.2B, whose squares of 384 px are 27 patches of 14 px."""
    vision = dataclasses.replace(tiny.model.config.vision_config, image_size=27)
    config = dataclasses.replace(tiny.model.config, vision_config=vision)
    spec = make_spec(config, tiny.tokenizer.token_id, preprocessor={"size": {"longest_edge": 54}})
    views = parse_policy("split")([Size(50, 50)], "", spec)
    assert [view.window[:2] for view in views] == [(0, 0), (0, 27), (27, 0), (27, 27), (0, 0)]
    assert {view.encoded_size for view in views} == {(24, 24)}
    assert preprocessor_to_hf(spec)["max_image_size"] == {"longest_edge": 27}


def test_the_template_that_is_written_is_the_one_that_is_used(tiny, directory):
    """With the placeholder of a picture alone: their processor adds the rest."""
    template = jinja2.Template((directory / "chat_template.jinja").read_text())
    turns = [
        ("user", [{"type": "image"}, {"type": "text", "text": "what is"}]),
        ("assistant", [{"type": "text", "text": "blue"}]),
        ("user", [{"type": "text", "text": "total"}]),
    ]
    clip = template.render(messages=[{"role": "user", "content": [{"type": "video"}]}])
    assert clip == "<|im_start|>User: <video><end_of_utterance>\n"
    written = template.render(
        messages=[{"role": role, "content": content} for role, content in turns],
        add_generation_prompt=True,
    )
    messages = [
        Message(role=role, parts=tuple(part.get("text", 0) for part in content))
        for role, content in turns
    ]
    views = parse_policy("fixed:24")([Size(9, 9)], "", tiny.spec)
    example = assemble(
        [np.zeros((9, 9, 3), np.uint8)],
        views,
        messages,
        tiny.spec,
        tiny.tokenizer,
        generation_prompt=True,
    )
    text = tiny.tokenizer.decode(example.tokens.tolist(), skip_special=False)
    whole = f"{tiny.spec.template.image_open}{'<image>' * 9}{tiny.spec.template.image_close}"
    assert text == written.replace("<image>", whole)


def test_a_frame_of_a_clip_is_encoded_as_that_picture_by_the_same_program(tiny):
    rng = np.random.default_rng(0)
    frames = list(rng.integers(0, 256, (2, 20, 30, 3), np.uint8))
    rung, packs = Rung(max_patches=128, max_tokens=512, max_views=4, max_examples=1), []
    for items in ([clip_of(frames)], frames):
        views = parse_policy("split,mode=whole")([extent_of(item) for item in items], "", tiny.spec)
        messages = [Message(role="user", parts=(*range(len(items)), "total"))]
        packs.append(pack([assemble(items, views, messages, tiny.spec, tiny.tokenizer)], rung))
    encode = nnx.jit(lambda model, packed: model.encode(packed).tokens)
    moving, still = (np.asarray(encode(tiny.model, packed)) for packed in packs)
    np.testing.assert_array_equal(moving, still)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), packed) for packed in packs]
    assert shapes[0] == shapes[1]  # one compile for both


@pytest.mark.slow
def test_it_gives_an_allocator_64_features_a_frame():
    tiny = testing.tiny_smolvlm(image_size=64, size={"longest_edge": 64})
    eyes = Eyes("smol", *tiny)
    frames = [np.full((20, 30, 3), value, np.uint8) for value in (0, 255)]
    seen, asked = eyes.features(frames, "what is red")
    assert seen.shape == (2, 64, 32)
    assert asked.shape == (len(tiny.tokenizer.encode_text("what is red")), 32)
    assert np.abs(seen[0] - seen[1]).max() > 1e-2
    assert eyes.flops(2, "what is red") > 0


def test_squares_of_another_number_of_tokens_are_no_eyes(tiny):
    with pytest.raises(PolicyError, match="smol cannot look at 64 x 64 px"):
        Eyes("smol", *tiny)


def test_the_host_side_is_loaded_without_weights(tiny, directory):
    processor = load_processor(directory)
    assert processor.spec == tiny.spec
    assert isinstance(processor.tokenizer, Tokenizer)

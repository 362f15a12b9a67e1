"""Live transformers loads what we export, and we load what it saves, tensor for tensor."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from mres_jax import testing
from mres_jax.data.conversations import Message, tokenize_messages
from mres_jax.models.key_table import flatten
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig
from mres_jax.models.registry import (
    FAMILIES,
    LoadedModel,
    convert,
    export_hf,
    family_of,
    load_model,
)
from mres_jax.models.weights import load_weights, write_weights

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("chatter")]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
QWEN2_VL = FAMILIES["qwen2_vl"]


def make_loaded(*, tied: bool) -> LoadedModel:
    tokenizer = testing.tiny_tokenizer()
    ids = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    text = testing.tiny_text_config(tokenizer, mrope_section=(1, 1, 2))
    config = Qwen2VLConfig(
        vision_config=testing.tiny_vision_config(hidden_size=32),
        text_config=type(text)(**{**vars(text), "tie_word_embeddings": tied}),
        **{field: tokenizer.token_id(name) for field, name in ids.items()},
    )
    family = family_of(config)
    graphdef, abstract = nnx.split(family.skeleton(config))
    draw = np.random.default_rng(0)
    filled = jax.tree.map(
        lambda x: jax.device_put(draw.normal(size=x.shape).astype(x.dtype)), abstract
    )
    return LoadedModel(
        model=nnx.merge(graphdef, filled),
        spec=family.make_spec(config, tokenizer.token_id),
        tokenizer=tokenizer,
    )


def theirs(model) -> dict[str, np.ndarray]:
    """Parameters of a live model in the names of hub files."""
    out = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
        out[name] = tensor.detach().float().numpy()
    return out


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("max_shard_bytes", [5e9, 20_000])
def test_transformers_loads_what_we_export(tmp_path, tied, dtype, max_shard_bytes):
    loaded = make_loaded(tied=tied)
    export_hf(loaded, tmp_path / "model", dtype=dtype, max_shard_bytes=max_shard_bytes)
    model, report = transformers.Qwen2VLForConditionalGeneration.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not any(report.values()), report
    expected = {}
    for file in (tmp_path / "model").glob("*.safetensors"):
        expected |= load_file(file)
    if tied:
        expected["lm_head.weight"] = expected["model.embed_tokens.weight"]
    found = theirs(model)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.astype(np.float32), err_msg=name)
    assert str(model.dtype) == f"torch.{jnp.dtype(dtype).name}"
    assert model.config.tie_word_embeddings == tied
    text = model.config.text_config
    assert text.rope_parameters["mrope_section"] == [1, 1, 2]
    assert text.rope_parameters["rope_theta"] == loaded.config.text_config.rope_theta
    assert text.rms_norm_eps == loaded.config.text_config.rms_norm_eps
    assert model.generation_config.eos_token_id == list(loaded.spec.eos_token_ids)


def test_transformers_reads_tokenizer_template_and_pixel_limits(tmp_path):
    loaded = make_loaded(tied=False)
    export_hf(loaded, tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer("what is the total 7A").input_ids == loaded.tokenizer.encode_text(
        "what is the total 7A"
    )
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"
    chat = [{"role": "user", "content": [{"type": "text", "text": "what is the total"}]}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    pieces = tokenize_messages(
        [Message(role="user", parts=("what is the total",))],
        loaded.spec.template,
        loaded.tokenizer,
        generation_prompt=True,
    )
    assert prompt == [token for piece in pieces for token in piece.token_ids]
    processor = transformers.models.qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil
    pixels = processor.from_pretrained(tmp_path / "model")
    assert dict(pixels.size) == {
        "shortest_edge": loaded.spec.min_pixels,
        "longest_edge": loaded.spec.max_pixels,
    }
    assert (pixels.patch_size, pixels.merge_size) == (4, 2)
    assert tuple(pixels.image_mean) == loaded.spec.mean


def test_we_read_the_pixel_limits_of_a_processor_that_transformers_saved(tmp_path):
    loaded = make_loaded(tied=False)
    export_hf(loaded, tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    module = transformers.models.qwen2_vl.image_processing_pil_qwen2_vl
    pixels = module.Qwen2VLImageProcessorPil(
        size={"shortest_edge": 256, "longest_edge": 640}, patch_size=4, image_mean=[0.1, 0.2, 0.3]
    )

    class Processor(transformers.ProcessorMixin):  # Qwen2VLProcessor without its video half
        def __init__(self, image_processor, tokenizer):
            super().__init__(image_processor, tokenizer)

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    Processor(pixels, tokenizer).save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    spec = load_model(tmp_path).spec
    assert (spec.min_pixels, spec.max_pixels) == (256, 640)
    assert spec.mean == (0.1, 0.2, 0.3)
    convert(tmp_path, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back")
    again = module.Qwen2VLImageProcessorPil.from_pretrained(tmp_path / "back")
    assert again.to_dict() == pixels.to_dict()


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def released(request, tmp_path_factory):
    """A directory that transformers itself saved, nested configuration and all."""
    config = transformers.Qwen2VLConfig(
        text_config=dict(
            vocab_size=160,
            eos_token_id=3,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=11,
            num_attention_heads=4,
            num_key_value_heads=2,
            rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2]},
        ),
        vision_config=dict(depth=2, embed_dim=32, num_heads=2, hidden_size=32, mlp_ratio=2),
        image_token_id=150,
        tie_word_embeddings=request.param,
    )
    directory = tmp_path_factory.mktemp("released") / "model"
    model = transformers.Qwen2VLForConditionalGeneration(config)
    model.to(torch.bfloat16).save_pretrained(directory, max_shard_size="100KB")
    return model, directory


def test_we_load_what_transformers_saved_and_give_it_back_bit_for_bit(released, tmp_path):
    model, directory = released
    config = QWEN2_VL.config_from_hf(json.loads((directory / "config.json").read_text()))
    skeleton, table = QWEN2_VL.skeleton(config), QWEN2_VL.key_table(config)
    state = load_weights(directory, skeleton, table, dtype="stored")
    live, ours = theirs(model), flatten(state)
    gate = np.asarray(ours["text.layers.mlp.gate.kernel"].astype(np.float32))
    for layer in range(11):  # the tenth stands after the ninth, not after the first
        name = f"model.layers.{layer}.mlp.gate_proj.weight"
        np.testing.assert_array_equal(gate[layer].T, live[name])
    (tmp_path / "back").mkdir()
    write_weights(state, table, tmp_path / "back")
    before = {}
    for file in directory.glob("*.safetensors"):
        before |= load_file(file)
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        np.testing.assert_array_equal(
            after[name].view(np.uint16), tensor.view(np.uint16), err_msg=name
        )


def test_its_directory_survives_our_checkpoint(released, tmp_path):
    """transformers -> ours -> back: the same tensors, and its own config.json kept."""
    model, directory = released
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    vocabulary = testing.tiny_tokenizer()
    (tmp_path / "tokenizer.json").write_bytes(vocabulary.to_bytes())
    convert(tmp_path, tmp_path / "ours")
    assert load_model(tmp_path / "ours").config == load_model(tmp_path).config
    convert(tmp_path / "ours", tmp_path / "back")
    again, report = transformers.Qwen2VLForConditionalGeneration.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(report.values()), report
    configs = [json.loads((d / "config.json").read_text()) for d in (directory, tmp_path / "back")]
    assert configs[0] == configs[1]
    found = theirs(again)
    for name, tensor in theirs(model).items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)

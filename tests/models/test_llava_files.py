"""Files of LLaVA-1.5, -NeXT and -HR: every naming read, nothing lost, or one clear line."""

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from mres_jax import testing
from mres_jax.errors import CheckpointError
from mres_jax.models.key_table import expected_shapes, flatten
from mres_jax.models.llava_hr.presets import llava_hr, mres_tiny_hr
from mres_jax.models.registry import LoadedModel, export_hf, family_of, load_model, load_part
from mres_jax.nn import MRAdapterOptions

MODELS = {
    "llava": testing.tiny_llava,
    "llava_next": testing.tiny_llava_next,
    "llava_hr": testing.tiny_llava_hr,
}
# The keys that the facts about the released code list, one of each kind.
HR_KEYS = """
fast_vision_tower.vision_tower.vision_model.embeddings.class_embedding [1024]
fast_vision_tower.vision_tower.vision_model.embeddings.patch_embedding.weight [1024,3,14,14]
fast_vision_tower.vision_tower.vision_model.embeddings.position_embedding.weight [577,1024]
fast_vision_tower.vision_tower.vision_model.pre_layrnorm.bias [1024]
fast_vision_tower.vision_tower.vision_model.post_layernorm.weight [1024]
fast_vision_tower.vision_tower.vision_model.encoder.layers.23.self_attn.out_proj.weight [1024,1024]
fast_vision_tower.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.bias [1024]
fast_vision_tower.vision_tower.vision_model.encoder.layers.7.layer_norm2.weight [1024]
fast_vision_tower.vision_tower.vision_model.encoder.layers.7.mlp.fc1.weight [4096,1024]
slow_vision_tower.vision_tower.stem.0.weight [192,3,4,4]
slow_vision_tower.vision_tower.stem.1.bias [192]
slow_vision_tower.vision_tower.stages.1.downsample.0.weight [192]
slow_vision_tower.vision_tower.stages.3.downsample.1.weight [1536,768,2,2]
slow_vision_tower.vision_tower.stages.2.blocks.26.weight [768]
slow_vision_tower.vision_tower.stages.0.blocks.2.conv_dw.weight [192,1,7,7]
slow_vision_tower.vision_tower.stages.0.blocks.2.norm.bias [192]
slow_vision_tower.vision_tower.stages.0.blocks.0.mlp.fc2.weight [192,768]
align_stages_latent.2.slow_conv.weight [1536,1536,1,1]
align_stages_latent.0.slow_proj.weight [1024,1536,1,1]
align_stages_latent.1.fast_conv.weight [1024,1,7,7]
align_stages_latent.1.fast_proj.weight [1024,1024,1,1]
align_stages_latent.1.gate.0.weight [512,2048]
align_stages_latent.1.gate.2.weight [1,512]
align_stages_latent.1.gate.2.bias [1]
align_stages.0.fast_proj.weight [1024,1024]
align_stages.0.slow_proj.weight [1024,1536]
"""


@pytest.fixture(scope="module", params=MODELS)
def tiny(request) -> testing.TinyModel:
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def hr() -> testing.TinyModel:
    return testing.tiny_llava_hr()


def loaded(tiny: testing.TinyModel) -> LoadedModel:
    return LoadedModel(**tiny._asdict())


def written(tiny: testing.TinyModel, directory: pathlib.Path) -> dict[str, np.ndarray]:
    export_hf(loaded(tiny), directory)
    return load_file(directory / "model.safetensors")


def same(tiny: testing.TinyModel, directory: pathlib.Path) -> bool:
    ours, theirs = flatten(tiny.model), flatten(load_model(directory).model)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name]) for name in ours
    )


def test_a_directory_comes_back_bit_for_bit(tiny, tmp_path):
    written(tiny, tmp_path / "out")
    again = load_model(tmp_path / "out")
    assert again.config == tiny.model.config
    assert again.spec == tiny.spec
    assert same(tiny, tmp_path / "out")


def rewritten(directory: pathlib.Path, *renames: tuple[str, str]) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    for pattern, replacement in renames:
        tensors = {re.sub(pattern, replacement, name): t for name, t in tensors.items()}
    save_file(tensors, file)


@pytest.mark.parametrize("name", ["llava", "llava_next"])
@pytest.mark.parametrize(
    "renames",
    [
        (
            (r"^language_model\.model\.", "model.language_model."),
            (r"^language_model\.lm_head", "lm_head"),
            (r"^multi_modal", "model.multi_modal"),
            (r"^vision_tower\.vision_model\.", "model.vision_tower."),
            (r"^image_newline", "model.image_newline"),
        ),
        (
            (r"^language_model\.", ""),
            (r"^multi_modal_projector\.linear_1", "model.mm_projector.0"),
            (r"^multi_modal_projector\.linear_2", "model.mm_projector.2"),
            (r"^vision_tower\.", "model.vision_tower.vision_tower."),
            (r"^image_newline", "model.image_newline"),
        ),
    ],
    ids=["transformers in memory", "LLaVA's own code"],
)
def test_other_namings_are_read(name, renames, tmp_path):
    tiny = MODELS[name]()
    written(tiny, tmp_path / "out")
    rewritten(tmp_path / "out", *renames)
    assert same(tiny, tmp_path / "out")


def move_out(directory: pathlib.Path, prefix: str, folder: str, *renames: tuple[str, str]) -> None:
    """Puts the tensors under `prefix` into a folder of their own, under other names."""
    tensors = load_file(directory / "model.safetensors")
    part = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    for pattern, replacement in renames:
        part = {re.sub(pattern, replacement, name): t for name, t in part.items()}
    (directory / folder).mkdir()
    save_file(part, directory / folder / "model.safetensors")
    rest = {n: t for n, t in tensors.items() if not n.startswith(prefix)}
    save_file(rest, directory / "model.safetensors")


LOW = "model.vision_tower.fast_vision_tower.vision_tower."
HIGH = "model.vision_tower.slow_vision_tower.vision_tower."
GAMMA = (r"(blocks\.\d+)\.weight$", r"\1.gamma")


@pytest.mark.parametrize(
    "naming",
    [
        (GAMMA,),
        (GAMMA, ("^", "visual.trunk.")),
        (
            (r"^stem\.0", "embeddings.patch_embeddings"),
            (r"^stem\.1", "embeddings.layernorm"),
            (r"^stages", "encoder.stages"),
            (r"downsample", "downsampling_layer"),
            (r"blocks\.(\d+)\.weight$", r"layers.\1.layer_scale_parameter"),
            (r"blocks\.(\d+)\.conv_dw", r"layers.\1.dwconv"),
            (r"blocks\.(\d+)\.norm", r"layers.\1.layernorm"),
            (r"blocks\.(\d+)\.mlp\.fc", r"layers.\1.pwconv"),
        ),
    ],
    ids=["timm", "open_clip", "transformers"],
)
def test_towers_beside_the_checkpoint_are_read(naming, hr, tmp_path):
    written(hr, tmp_path / "out")
    move_out(tmp_path / "out", LOW, "vision_tower")
    move_out(tmp_path / "out", HIGH, "vision_tower_slow", *naming)
    assert same(hr, tmp_path / "out")


@pytest.mark.parametrize(
    ("prefix", "folder", "words"),
    [
        (LOW, "vision_tower", "the low-resolution tower is missing: none of its"),
        (HIGH, "vision_tower_slow", "the high-resolution tower is missing: none of its"),
    ],
)
def test_a_tower_that_is_nowhere_is_one_clear_line(prefix, folder, words, hr, tmp_path):
    written(hr, tmp_path / "out")
    move_out(tmp_path / "out", prefix, "elsewhere")
    with pytest.raises(CheckpointError, match=f"{words}.*Put its safetensors into .*{folder}"):
        load_model(tmp_path / "out")


def test_a_number_of_adapters_that_is_another_is_named(hr, tmp_path):
    written(hr, tmp_path / "out")
    file = tmp_path / "out" / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"freeze_vision": True, "adapter": None}))
    with pytest.raises(CheckpointError, match=r"36 unexpected: .*align_stages_latent\.\{0..2\}"):
        load_model(tmp_path / "out")
    rewritten(tmp_path / "out", (r"align_stages_latent\.2", "head.norm.spare"))
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"12 missing: .*align_stages_latent\.2\."):
        load_model(tmp_path / "out")


def test_every_key_of_the_released_model_is_there_in_its_shape():
    config = llava_hr("7b")
    family = family_of(config)
    shapes = expected_shapes(flatten(family.skeleton(config)), family.key_table(config))
    for line in HR_KEYS.split("\n")[1:-1]:
        name, shape = line.split()
        assert shapes[f"model.vision_tower.{name}"] == tuple(json.loads(shape)), name
    assert shapes["model.mm_projector.0.weight"] == (4_096, 1_024)
    assert shapes["lm_head.weight"] == (32_000, 4_096)
    total = sum(np.prod(shape) for shape in shapes.values())
    assert total == pytest.approx(7.28e9, rel=2e-3)


@pytest.mark.parametrize("config", [*map(llava_hr, ("7b", "13b", "7b-x", "13b-x")), mres_tiny_hr()])
def test_a_configuration_is_read_and_written(config):
    family = family_of(config)
    assert family.config_from_hf(family.config_to_hf(config)) == config


def test_a_model_on_mistral_stays_one():
    config = testing.tiny_llava_next().model.config
    text = dataclasses.replace(config.text_config, model_type="mistral")
    config = dataclasses.replace(config, text_config=text)
    family = family_of(config)
    content = family.config_to_hf(config)
    assert content["text_config"]["model_type"] == "mistral"
    assert family.config_from_hf(content) == config


def test_the_released_file_of_llava_hr_x_is_read():
    """Fields as seen on the hub (favor123/llava-hr-13b-x-sft-1024)."""
    content = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "delay_load": False,
        "freeze_vision": False,
        "hidden_size": 5_120,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 40,
        "intermediate_size": 13_824,
        "max_position_embeddings": 4_096,
        "rms_norm_eps": 1e-5,
        "vocab_size": 32_000,
        "hidden_act": "silu",
        "image_aspect_ratio": "pad",
        "input_image_size": 1_024,
        "is_multipath_encoder": True,
        "mm_hidden_size": 1_024,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "vision_tower_slow": "convnext_xxlarge.clip_laion2b_soup",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.31.0",
    }
    assert family_of(llava_hr("13b-x")).config_from_hf(content) == llava_hr("13b-x")


def test_variants_that_the_released_code_lacks_stay_ours(hr):
    vision = dataclasses.replace(
        hr.model.config.vision_config, adapter=MRAdapterOptions(gate_width="channel")
    )
    config = dataclasses.replace(hr.model.config, vision_config=vision)
    family = family_of(config)
    assert family.config_from_hf(family.config_to_hf(config)) == config
    with pytest.raises(CheckpointError, match=r"of LLaVA-HR has no gate_width=channel. Keep this"):
        family.check_export(config)


def test_parts_come_from_files_of_either_tower_alone(hr, tmp_path):
    written(hr, tmp_path / "out")
    move_out(tmp_path / "out", LOW, "clip")
    config = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4}
    config |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 4}
    (tmp_path / "out" / "clip" / "config.json").write_text(
        json.dumps({"model_type": "clip_vision_model", **config})
    )
    state = nnx.state(hr.model, nnx.Param)
    flat = [(path, x) for path, x in nnx.to_flat_state(state) if path[:2] == ("vision", "low")]
    found = load_part(str(tmp_path / "out" / "clip"), nnx.from_flat_state(flat))
    for path, variable in nnx.to_flat_state(found):
        expected = dict(flat)[path]
        np.testing.assert_array_equal(variable.get_value(), expected.get_value())

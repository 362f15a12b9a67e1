"""Qwen2.5-VL and Qwen3-VL: what transformers saved comes back bit for bit, what we export loads."""

import copy
import json
import pathlib

import numpy as np
import pytest
from peers import FAMILIES, Peer, torch, transformers
from safetensors.numpy import load_file

from mres_jax import testing
from mres_jax.models import registry
from mres_jax.models.weights import load_weights, write_weights

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("chatter")]


@pytest.fixture(
    scope="module",
    params=[(f, shape) for f in ("Qwen2.5-VL", "Qwen3-VL") for shape in FAMILIES[f].shapes],
    ids=", ".join,
)
def peer(request, tmp_path_factory) -> Peer:
    family, shape = request.param
    make, shapes = FAMILIES[family]
    return make(shapes[shape], tmp_path_factory.mktemp("peer") / "model")


def tensors(directory: pathlib.Path) -> dict[str, np.ndarray]:
    out = {}
    for file in directory.glob("*.safetensors"):
        out |= load_file(file)
    return out


def test_what_transformers_saved_comes_back_bit_for_bit(peer, tmp_path):
    directory, back = tmp_path / "theirs", tmp_path / "back"
    rounded = copy.deepcopy(peer.model).to(torch.bfloat16)
    rounded.save_pretrained(directory, max_shard_size="50KB")
    content = json.loads((directory / "config.json").read_text())
    family = registry.FAMILIES[content["model_type"]]
    config = family.config_from_hf(content)
    table = family.key_table(config)
    state = load_weights(directory, family.skeleton(config), table, dtype="stored")
    back.mkdir()
    write_weights(state, table, back)
    before, after = tensors(directory), tensors(back)
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        np.testing.assert_array_equal(
            after[name].view(np.uint16), tensor.view(np.uint16), err_msg=name
        )


def test_transformers_loads_what_we_export_of_a_model_made_here(peer, tmp_path):
    """Without any file of theirs: our own config.json, template and processor settings."""
    ours = peer.ours
    loaded = registry.LoadedModel(
        model=ours.model, spec=ours.spec, tokenizer=testing.tiny_tokenizer()
    )
    registry.export_hf(loaded, tmp_path / "model")
    model, report = type(peer.model).from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(report.values()), report
    theirs = peer.model.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    for part in ("vision_config", "text_config"):
        found, expected = (getattr(m.config, part).to_dict() for m in (model, peer.model))
        unlike = {"rope_parameters", "dtype", "initializer_range"}  # see below; of no effect
        unlike |= {"eos_token_id"}  # stands in generation_config.json
        assert {n for n in expected if found.get(n) != expected[n]} <= unlike
    rope = model.config.text_config.rope_parameters
    assert rope["mrope_section"] == list(peer.shape.mrope_section)
    assert rope["rope_theta"] == 5_000.0
    pixels = transformers.models.qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil
    again = pixels.from_pretrained(tmp_path / "model")
    assert tuple(again.image_mean) == ours.spec.mean
    assert again.patch_size == peer.shape.patch_size

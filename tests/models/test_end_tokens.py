"""Where answers end: at the template's own token and at those that a directory names."""

import json
import re

import pytest

from mres_jax import testing
from mres_jax.errors import CheckpointError
from mres_jax.models import registry

MODELS = {
    "qwen2_vl": testing.tiny_qwen2_vl,
    "nativeres_llava": testing.tiny_nativeres_llava,
    "llava": testing.tiny_llava,
    "smolvlm": testing.tiny_smolvlm,
}


@pytest.fixture(scope="module", params=MODELS)
def tiny(request):
    return MODELS[request.param]()


@pytest.fixture
def directory(tiny, tmp_path):
    registry.export_hf(registry.LoadedModel(**tiny._asdict()), tmp_path / "model")
    return tmp_path / "model"


def change(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def ends(directory):
    return registry.load_processor(directory).spec.eos_token_ids


@pytest.mark.parametrize(("said", "more"), [(7, (7,)), ([7, 8], (7, 8)), (None, ()), ([], ())])
def test_tokens_of_the_generation_settings_end_an_answer_too(tiny, directory, said, more):
    """Those of `config.json` then do not, as in `transformers`."""
    own = tiny.spec.eos_token_ids
    change(directory / "generation_config.json", eos_token_id=said)
    change(directory / "config.json", eos_token_id=9)
    assert ends(directory) == (*own, *more)
    change(directory / "generation_config.json", eos_token_id=[*own[::-1], *more])
    assert ends(directory) == (*own, *more)


def test_without_generation_settings_those_of_the_configuration_do(tiny, directory):
    own = tiny.spec.eos_token_ids
    (directory / "generation_config.json").unlink()
    assert ends(directory) == own
    content = json.loads((directory / "config.json").read_text())
    if "text_config" in content:
        inner = content["text_config"] | {"eos_token_id": [8, 9]}
        change(directory / "config.json", text_config=inner)
        assert ends(directory) == (*own, 8, 9)
    change(directory / "config.json", eos_token_id=7)
    assert ends(directory) == (*own, 7)


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_they_go_out_again(tiny, directory, tmp_path, file):
    change(directory / file, eos_token_id=[7, 8])
    if file == "config.json":
        (directory / "generation_config.json").unlink()
    before = (*tiny.spec.eos_token_ids, 7, 8)
    registry.convert(directory, tmp_path / "ours")
    registry.convert(tmp_path / "ours", tmp_path / "theirs")
    assert ends(tmp_path / "ours") == ends(tmp_path / "theirs") == before
    content = json.loads((tmp_path / "theirs/generation_config.json").read_text())
    came_along = file == "generation_config.json"
    assert content["eos_token_id"] == ([7, 8] if came_along else list(before))


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("wrong", ["</s>", -1, 10**6, True, 7.0, {"id": 7}])
def test_what_is_no_id_is_refused_with_its_file(tiny, directory, file, wrong):
    last = tiny.model.config.text_config.vocab_size - 1
    if file == "config.json":
        (directory / "generation_config.json").unlink()
    for said in (wrong, [7, wrong]):
        change(directory / file, eos_token_id=said)
        where = rf"/{file}: eos_token_id has {re.escape(repr(wrong))}, not an id from 0 to {last}; "
        with pytest.raises(CheckpointError, match=where):
            registry.load_processor(directory)

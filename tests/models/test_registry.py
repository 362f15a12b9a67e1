"""From a name to a model and back to a directory; every wrong directory is one line."""

import dataclasses
import errno
import functools
import json
import pathlib
import re
from typing import Any

import huggingface_hub
import jax
import jax.numpy as jnp
import jinja2.sandbox
import numpy as np
import pytest
from etils import epath
from flax import nnx
from huggingface_hub import errors as hub_errors

from mres_jax import testing
from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import Message, prompt_messages, tokenize_messages
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.errors import CheckpointError, RunError
from mres_jax.geometry import Box, Size, View
from mres_jax.models import registry
from mres_jax.models.checkpoint_io import write_checkpoint
from mres_jax.models.llava_hr.presets import mres_tiny_hr
from mres_jax.models.manifest import FILE as MANIFEST
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.qwen2_vl.config import Qwen2VLConfig
from mres_jax.models.vlm import PackedVLM
from mres_jax.models.weights import fully_sharded

COMPLETE = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@functools.cache
def make_config(family: str) -> Any:
    tokenizer = testing.tiny_tokenizer()
    ids = {"image_token_id": tokenizer.token_id("<|image_pad|>")}
    if family == "nativeres_llava":
        return NativeResLlavaConfig(
            vision_config=testing.tiny_vision_config(hidden_size=24),
            text_config=testing.tiny_text_config(tokenizer),
            **ids,
        )
    return Qwen2VLConfig(
        vision_config=testing.tiny_vision_config(hidden_size=32),
        text_config=testing.tiny_text_config(tokenizer, mrope_section=(1, 1, 2)),
        **ids,
    )


@functools.cache
def make_model(config: Any) -> PackedVLM:
    """Random parameters in a skeleton: nothing is compiled."""
    graphdef, abstract = nnx.split(registry.family_of(config).skeleton(config))
    draw = np.random.default_rng(0)
    filled = jax.tree.map(
        lambda x: jax.device_put(draw.normal(size=x.shape).astype(x.dtype)), abstract
    )
    return nnx.merge(graphdef, filled)


def make_loaded(family: str, **kwargs) -> registry.LoadedModel:
    config, tokenizer = make_config(family), testing.tiny_tokenizer()
    return registry.LoadedModel(
        model=make_model(config),
        spec=registry.family_of(config).make_spec(config, tokenizer.token_id),
        tokenizer=tokenizer,
        **kwargs,
    )


@pytest.fixture(scope="module", params=["qwen2_vl", "nativeres_llava"])
def loaded(request) -> registry.LoadedModel:
    return make_loaded(request.param, policy="budget:16", step=7, extra={"domain": "documents"})


@pytest.fixture(scope="module")
def exported(loaded, tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("hf") / "model"
    registry.export_hf(loaded, directory)
    return directory


@pytest.fixture
def copy(exported, tmp_path) -> pathlib.Path:
    """A directory to spoil."""
    target = tmp_path / "copy"
    target.mkdir()
    for file in exported.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def assert_same_model(one: registry.LoadedModel, other: registry.LoadedModel) -> None:
    assert one.config == other.config
    assert one.spec == other.spec
    assert (one.policy, one.step, one.extra) == (other.policy, other.step, other.extra)
    assert one.tokenizer.to_bytes() == other.tokenizer.to_bytes()
    states = (nnx.to_pure_dict(nnx.state(m.model, nnx.Param)) for m in (one, other))
    jax.tree.map(np.testing.assert_array_equal, *states)


def contents(directory: pathlib.Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_an_export_is_complete_and_loads_as_the_same_model(loaded, exported):
    of_clips = {"video_preprocessor_config.json"} if loaded.spec.video else set()
    assert {file.name for file in exported.iterdir()} == COMPLETE | {"mres.json"} | of_clips
    assert registry.detect(exported) == "huggingface"
    assert_same_model(registry.load_model(exported), loaded)


def test_there_and_back_gives_the_same_files(exported, tmp_path):
    assert registry.convert(exported, tmp_path / "ours") == "orbax"
    assert registry.detect(tmp_path / "ours") == "orbax"
    assert registry.convert(tmp_path / "ours", tmp_path / "theirs") == "huggingface"
    assert contents(tmp_path / "theirs") == contents(exported)


def test_relative_paths_will_do(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registry.convert(exported, "ours")
    assert registry.load_model("ours").step == 7


def write_released(directory: pathlib.Path, *, image_token_id: int, more_rows: int) -> None:
    """Writes what a released NativeRes-LLaVA has: three control tokens, no preprocessor."""
    vocabulary = json.loads(testing.tiny_tokenizer().to_bytes())
    vocabulary["added_tokens"] = vocabulary["added_tokens"][:3]
    tokenizer = Tokenizer.parse(json.dumps(vocabulary).encode(), "test")
    whole = make_loaded("nativeres_llava")
    rows = tokenizer.vocab_size + more_rows
    text = dataclasses.replace(whole.config.text_config, vocab_size=rows)
    config = dataclasses.replace(whole.config, text_config=text, image_token_id=image_token_id)
    released = dataclasses.replace(whole, model=make_model(config), tokenizer=tokenizer)
    registry.export_hf(released, directory)
    for name in ("preprocessor_config.json", "chat_template.jinja"):
        (directory / name).unlink()


@pytest.mark.parametrize(
    ("image_token_id", "more_rows", "reserved"),
    [(-200, 0, ()), (151_655, 0, ()), (282, 9, (282,))],
    ids=["released mark", "past the rows", "past the vocabulary"],
)
def test_a_vocabulary_without_placeholders_will_do(tmp_path, image_token_id, more_rows, reserved):
    write_released(tmp_path / "model", image_token_id=image_token_id, more_rows=more_rows)
    loaded = registry.load_model(tmp_path / "model")
    spec, rows = loaded.spec, loaded.config.text_config.vocab_size
    assert loaded.config.image_token_id == image_token_id
    assert spec.reserved_token_ids == reserved
    assert not {*spec.eos_token_ids} & {*spec.reserved_token_ids}
    side = spec.stride
    example = assemble(
        [np.zeros((side, side, 3), np.uint8)],
        [View(item=0, crop=Box(0, 0, side, side), size=Size(side, side))],
        prompt_messages("what", num_images=1),
        spec,
        loaded.tokenizer,
    )
    assert (example.slots >= 0).sum() == 1
    assert ((example.tokens >= 0) & (example.tokens < rows)).all()
    registry.export_hf(loaded, tmp_path / "again")
    assert "'<image>'" in (tmp_path / "again/chat_template.jinja").read_text()
    assert registry.load_model(tmp_path / "again").spec == spec


def test_weights_from_elsewhere_are_resized_like_theirs_and_ours_like_ours(tmp_path):
    """A step of a run keeps its tokenizer alone, and was trained with the rule of its run."""
    loaded = make_loaded("nativeres_llava")
    assert loaded.spec.resize_rule == "fit"
    write_checkpoint(
        epath.Path(tmp_path / "step"),
        {"model": nnx.state(loaded.model, nnx.Param)},
        config=loaded.family.config_to_hf(loaded.config),
        assets={"tokenizer.json": loaded.tokenizer.to_bytes()},
    )
    assert registry.load_model(tmp_path / "step").spec == loaded.spec
    registry.convert(tmp_path / "step", tmp_path / "model")
    assert registry.load_model(tmp_path / "model").spec == loaded.spec
    (tmp_path / "model/preprocessor_config.json").unlink()
    assert registry.load_model(tmp_path / "model").spec.resize_rule == "hf"


def test_both_kinds_load_as_the_same_model(loaded, exported, tmp_path):
    registry.convert(exported, tmp_path / "ours")
    assert_same_model(registry.load_model(tmp_path / "ours"), loaded)


def test_the_host_side_is_loaded_without_weights(loaded, exported, tmp_path):
    registry.convert(exported, tmp_path / "ours")
    for directory in (exported, tmp_path / "ours"):
        whole, processor = registry.load_model(directory), registry.load_processor(directory)
        assert processor.spec == whole.spec
        assert processor.tokenizer.to_bytes() == whole.tokenizer.to_bytes()
    (exported / "model.safetensors").rename(tmp_path / "away")
    registry.load_processor(exported)
    (tmp_path / "away").rename(exported / "model.safetensors")


@pytest.mark.parametrize("load", ["load_model", "load_processor", "load_config"])
def test_what_loads_takes_the_names_that_model_takes(load, exported, monkeypatch):
    """A hub id, whose weights are fetched where they are wanted, and the shipped model."""
    hub = Hub(monkeypatch, snapshot=exported)
    getattr(registry, load)("org/name")
    ((repo, kwargs),) = hub.asked
    assert repo == "org/name"
    assert ("*.safetensors" in kwargs["allow_patterns"]) == (load == "load_model")
    getattr(registry, load)("mres-tiny")
    with pytest.raises(CheckpointError, match="no such model: no such directory, and not a hub id"):
        getattr(registry, load)("no such model")


def test_conversion_keeps_the_stored_type(loaded, tmp_path):
    registry.export_hf(loaded, tmp_path / "half", dtype=jnp.bfloat16)
    assert json.loads((tmp_path / "half/config.json").read_text())["torch_dtype"] == "bfloat16"
    registry.convert(tmp_path / "half", tmp_path / "ours")
    registry.convert(tmp_path / "ours", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(tmp_path / "half")


def test_parameters_and_arithmetic_have_the_type_asked_for(exported, tmp_path):
    registry.convert(exported, tmp_path / "ours")
    for directory in (exported, tmp_path / "ours"):
        model = registry.load_model(directory, dtype=jnp.bfloat16).model
        assert {x.dtype for x in jax.tree.leaves(nnx.state(model))} == {jnp.dtype(jnp.bfloat16)}
        assert model.text.layers.mlp.gate.dtype == jnp.bfloat16
        wide = registry.load_model(directory, dtype=jnp.bfloat16, param_dtype=np.float32).model
        assert {x.dtype for x in jax.tree.leaves(nnx.state(wide))} == {jnp.dtype(np.float32)}


def test_a_mesh_places_both_kinds_alike(exported, tmp_path):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    registry.convert(exported, tmp_path / "ours")
    for directory in (exported, tmp_path / "ours"):
        model = registry.load_model(directory, mesh=mesh).model
        scale = model.text.norm.scale[...]
        assert scale.sharding == fully_sharded(mesh)("text.norm.scale", scale.shape)


def test_a_stranger_s_files_go_out_as_they_came(copy, tmp_path):
    """Fields that we do not use, and files that we do not read, are not lost."""
    config = json.loads((copy / "config.json").read_text()) | {"bos_token_id": 3}
    (copy / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (copy / "generation_config.json").write_text('{"top_k": 1}')
    (copy / "vocab.json").write_text("{}")
    registry.convert(copy, tmp_path / "ours")
    registry.convert(tmp_path / "ours", tmp_path / "back")
    before, after = contents(copy), contents(tmp_path / "back")
    assert json.loads(after["config.json"])["bos_token_id"] == 3
    assert after["generation_config.json"] == b'{"top_k": 1}'
    assert after.keys() == before.keys()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"min_pixels": 1, "max_pixels": 2}, {"min_pixels": 64, "max_pixels": 640}),
        (
            {"size": {"shortest_edge": 1, "longest_edge": 2}, "do_resize": True},
            {"size": {"shortest_edge": 64, "longest_edge": 640}, "do_resize": True},
        ),
        ({"do_resize": True}, {"do_resize": True, "min_pixels": 64, "max_pixels": 640}),
    ],
)
def test_pixel_limits_are_exported_in_the_spelling_they_came_in(tmp_path, before, after):
    loaded = make_loaded(
        "qwen2_vl", assets={"preprocessor_config.json": json.dumps(before).encode()}
    )
    spec = dataclasses.replace(loaded.spec, min_pixels=64, max_pixels=640)
    registry.export_hf(dataclasses.replace(loaded, spec=spec), tmp_path / "model")
    assert json.loads((tmp_path / "model/preprocessor_config.json").read_text()) == after
    reloaded = registry.load_model(tmp_path / "model").spec
    assert (reloaded.min_pixels, reloaded.max_pixels) == (64, 640)


def test_pixel_settings_nested_in_processor_config_are_read_and_kept(copy, tmp_path):
    """As transformers 5 saves a processor: one file, with the image processor inside."""
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    settings |= {"size": {"shortest_edge": 256, "longest_edge": 640}, "image_std": [0.5, 0.5, 0.5]}
    for name in ("min_pixels", "max_pixels"):
        settings.pop(name)
    (copy / "preprocessor_config.json").unlink()
    processor = {"image_processor": settings, "processor_class": "Qwen2VLProcessor"}
    (copy / "processor_config.json").write_text(json.dumps(processor))
    loaded = registry.load_model(copy)
    assert (loaded.spec.min_pixels, loaded.spec.max_pixels) == (256, 640)
    assert loaded.spec.std == (0.5, 0.5, 0.5)
    registry.convert(copy, tmp_path / "ours")
    assert_same_model(registry.load_model(tmp_path / "ours"), loaded)
    registry.convert(tmp_path / "ours", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(copy)
    capped = dataclasses.replace(loaded.spec, max_pixels=1_024)
    registry.export_hf(dataclasses.replace(loaded, spec=capped), tmp_path / "capped")
    assert registry.load_model(tmp_path / "capped").spec == capped


CHATS = (
    [Message(role="user", parts=("what is the total",))],
    [Message(role="user", parts=(0, 1, "what is the total"))],
    [
        Message(role="user", parts=("what", 0, "is", 1, "the total")),
        Message(role="assistant", parts=("red",)),
    ],
    [
        Message(role="system", parts=("the invoice",)),
        Message(role="user", parts=(0, 'what\'s \\ "this"\n')),
        Message(role="assistant", parts=("blue",)),
        Message(role="user", parts=("colour",)),
    ],
)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("prompt", [False, True])
def test_the_exported_chat_template_says_what_we_say(loaded, exported, chat, prompt):
    """Rendered as transformers does, then encoded, it is our own sequence of tokens."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((exported / "chat_template.jinja").read_text())
    content = [
        {
            "role": message.role,
            "content": [
                {"type": "image"} if isinstance(part, int) else {"type": "text", "text": part}
                for part in message.parts
            ],
        }
        for message in chat
    ]
    text = template.render(messages=content, add_generation_prompt=prompt)
    spec, tokenizer = loaded.spec, loaded.tokenizer
    pieces = tokenize_messages(chat, spec.template, tokenizer, generation_prompt=prompt)
    opening = tokenizer.encode_trusted(spec.template.image_open)
    closing = tokenizer.encode_trusted(spec.template.image_close)
    ours = []
    for piece in pieces:
        picture = [*opening, spec.image_token_id, *closing]
        ours += piece.token_ids if piece.item is None else picture
    # Bytes that two pieces share could merge when encoded as one text, so texts are compared.
    assert text == tokenizer.decode(ours, skip_special=False)


def test_a_variant_that_transformers_has_not_is_not_exported(tmp_path):
    loaded = make_loaded("qwen2_vl")
    text = dataclasses.replace(loaded.config.text_config, mrope_section=None)
    config = dataclasses.replace(loaded.config, text_config=text)
    plain = dataclasses.replace(loaded, model=make_model(config))
    with pytest.raises(CheckpointError, match="has no plain rotary positions"):
        registry.export_hf(plain, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_full_disk_leaves_no_directory(loaded, exported, tmp_path, limited_files):
    with limited_files(20_000), pytest.raises(RunError, match="File too large"):
        registry.export_hf(loaded, tmp_path / "theirs")
    with limited_files(20_000), pytest.raises(RunError, match="File too large; nothing was left"):
        registry.convert(exported, tmp_path / "ours")
    assert not list(tmp_path.iterdir())


def test_conversion_does_not_overwrite(exported, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for target in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(CheckpointError, match="choose the name of a new directory"):
            registry.convert(exported, target)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_hugging_face_directory_in_a_bucket_is_refused(loaded, exported, tmp_path, monkeypatch):
    """`pathlib` would take the name of the bucket for a folder here."""
    monkeypatch.chdir(tmp_path)
    registry.convert(exported, "ours")
    for write in (
        lambda: registry.convert("ours", "gs://bucket/x"),
        lambda: registry.export_hf(loaded, "gs://bucket/x"),
    ):
        with pytest.raises(CheckpointError, match=r"^gs://bucket/x: .* local disks only"):
            write()
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]
    monkeypatch.setattr("mres_jax.models._description.detect", lambda _: "huggingface")
    with pytest.raises(CheckpointError, match=r"^gs://bucket/x: .* local disks only"):
        registry.load_model("gs://bucket/x")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "is empty"),
        ({"notes.txt": ""}, "is no model directory: neither config.json nor mres_manifest.json"),
        ({"model.safetensors": ""}, "holds model.safetensors but no config.json"),
        ({"pytorch_model.bin": ""}, "holds pytorch_model.bin but no config.json"),
        ({"model.gguf": ""}, "GGUF is not read"),
        ({"adapter_config.json": "{}"}, "is an adapter"),
        ({"model_index.json": "{}"}, "is a diffusers pipeline"),
        ({"_CHECKPOINT_METADATA": "{}"}, "orbax checkpoint without mres_manifest.json"),
        ({"step_00000010/orbax/x": ""}, "no complete checkpoint: every save was cut short"),
        ({"config.json": "{"}, "config.json: not valid JSON"),
        ({"config.json": "[]"}, "config.json: holds a list, not a JSON object"),
        ({"config.json": "{}"}, "model_type None is not supported; have qwen2_vl, qwen2_5_vl"),
        (
            {"config.json": '{"model_type": "qwen2_v"}'},
            r"model_type 'qwen2_v' is not supported \(did you mean qwen2_vl\?\)",
        ),
    ],
)
def test_a_wrong_directory_says_what_it_is(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=message) as error:
        registry.load_model(tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_directory_and_a_file_are_named(exported):
    with pytest.raises(CheckpointError, match="/nowhere: no such directory"):
        registry.load_model("/nowhere")
    with pytest.raises(CheckpointError, match="is a file; a model is a directory"):
        registry.load_model(exported / "config.json")


def test_a_missing_tokenizer_is_one_line(copy):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer.json; copy it from the model"):
        registry.load_model(copy)


def test_a_huge_or_odd_file_beside_the_weights_is_refused(copy, monkeypatch):
    (copy / "mres.json").write_text('{"policy": 3}')
    with pytest.raises(CheckpointError, match=r"mres\.json: policy is 3, not str"):
        registry.load_model(copy)
    monkeypatch.setattr("mres_jax.models.files.MAX_SMALL_BYTES", 100)
    with pytest.raises(CheckpointError, match=r"config.json: \d+ bytes, more than 100"):
        registry.load_model(copy)


def test_the_newest_step_of_a_run_is_its_model(loaded, tmp_path):
    for step in (2, 10):
        folder = tmp_path / "checkpoints" / f"step_{step:08}"
        registry.save_model(dataclasses.replace(loaded, step=step), folder)
    (tmp_path / "checkpoints/step_00000011").mkdir()  # a save that was cut short
    for directory in (tmp_path, tmp_path / "checkpoints"):
        assert registry.load_model(directory).step == 10
    newest = registry.checkpoint_directory(tmp_path)
    assert newest.name == "step_00000010"
    assert (newest / MANIFEST).exists()


def test_every_family_is_complete():
    for model_type, family in registry.FAMILIES.items():
        assert family.model_type == model_type
        assert issubclass(family.Model, nnx.Module)
        for name in ("make_spec", "config_from_hf", "config_to_hf", "key_table", "check_export"):
            assert callable(getattr(family, name))


def test_paths_and_shipped_names_resolve(tmp_path, monkeypatch):
    assert registry.resolve(tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert registry.resolve("org/name") == pathlib.Path("org/name")  # a path wins over the hub
    shipped = pathlib.Path(registry.__file__).parent / "shipped" / "mres_tiny"
    if (shipped / "config.json").is_file():
        assert registry.resolve(None) == registry.resolve("mres-tiny") == shipped
    else:
        with pytest.raises(CheckpointError, match="not part of this installation"):
            registry.resolve(None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("http://localhost:8000/v1#m", "is the address of a server"),
        ("ftp://host/model", "no storage of that kind is read; have gs://"),
        ("no such model", "no such directory, and not a hub id"),
        ("../a/b", "no such directory, and not a hub id"),
        ("org/name@", "no such directory, and not a hub id"),
    ],
)
def test_a_name_that_can_be_nothing_is_refused(name, message):
    with pytest.raises(CheckpointError, match=re.escape(message)):
        registry.resolve(name)


class Hub:
    """What the hub would do, and what it was asked."""

    def __init__(self, monkeypatch, *, model_info=None, snapshot=None):
        self.asked = []
        self.model_info, self.snapshot = model_info, snapshot
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", self._model_info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self._snapshot)

    def _model_info(self, repo, *, revision=None, timeout=None):
        assert timeout
        if isinstance(self.model_info, Exception):
            raise self.model_info
        return type("Info", (), {"sha": "c" * 40})

    def _snapshot(self, repo, **kwargs):
        self.asked.append((repo, kwargs))
        if isinstance(self.snapshot, Exception):
            raise self.snapshot
        return self.snapshot or "/cache/snapshot"


def test_a_hub_id_is_fetched_at_one_commit_and_without_code(monkeypatch):
    hub = Hub(monkeypatch)
    assert registry.resolve("org/name@v1.0") == pathlib.Path("/cache/snapshot")
    ((repo, kwargs),) = hub.asked
    assert (repo, kwargs["revision"]) == ("org/name", "c" * 40)
    patterns = kwargs["allow_patterns"]
    for name in ("a.py", "model.bin", "model.pt", "rng_state.pth", "x.pkl"):
        assert not any(pathlib.PurePath(name).match(pattern) for pattern in patterns)
    for name in ("model-1.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        assert any(pathlib.PurePath(name).match(pattern) for pattern in patterns)


def test_a_pinned_commit_is_not_looked_up(monkeypatch):
    hub = Hub(monkeypatch, model_info=AssertionError("looked up"))
    registry.resolve(f"org/name@{'a' * 40}")
    assert hub.asked[0][1]["revision"] == "a" * 40


def test_without_a_network_the_cache_serves(monkeypatch):
    hub = Hub(monkeypatch, model_info=ConnectionError("no network"))
    assert registry.resolve("org/name") == pathlib.Path("/cache/snapshot")
    assert hub.asked[0][1]["local_files_only"]


def from_hub(kind: str) -> Exception:
    """One of the hub's own errors; their constructors want a response of its HTTP client."""
    error = getattr(hub_errors, kind)
    return error.__new__(error)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            ConnectionError("no network"),
            "org/name: no such directory here, not in the cache, and the hub cannot be reached "
            "(ConnectionError). Where there is a network run `hf download org/name` and give the "
            "directory that it prints.",
        ),
        (
            from_hub("RepositoryNotFoundError"),
            "org/name: no such directory here and no such repository on the hub (or it is "
            "private).",
        ),
        (
            from_hub("RevisionNotFoundError"),
            "org/name: the repository has no such revision.",
        ),
        (
            from_hub("GatedRepoError"),
            "org/name: its licence must be accepted on huggingface.co, then `hf auth login`.",
        ),
    ],
)
def test_an_unreachable_hub_is_one_line_with_the_cure(monkeypatch, failure, message):
    Hub(monkeypatch, model_info=failure, snapshot=FileNotFoundError("not cached"))
    with pytest.raises(CheckpointError) as error:
        registry.resolve("org/name")
    assert str(error.value) == message


def test_a_full_disk_while_downloading_is_said(monkeypatch):
    Hub(monkeypatch, snapshot=OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(RunError, match="org/name: No space left on device while downloading"):
        registry.resolve("org/name")


@pytest.mark.parametrize(
    "config",
    [
        *(
            testing.tiny_config(name, testing.tiny_tokenizer())
            for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_qwen")
        ),
        mres_tiny_hr(),
    ],
    ids=lambda config: type(config).__name__,
)
def test_fresh_parameters_have_the_type_that_trained_ones_have(config):
    """A weakly typed one is another type after the first step, which then compiles again."""
    model = registry.family_of(config).Model
    fresh = nnx.eval_shape(lambda: model(config, rngs=nnx.Rngs(0)))
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(fresh))
    assert not [jax.tree_util.keystr(path) for path, leaf in leaves if leaf.weak_type]

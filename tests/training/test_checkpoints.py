"""A step comes back bit for bit or is refused by name."""

import contextlib
import json
import re
import resource
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath
from flax import nnx

from mres_jax import testing
from mres_jax.config import (
    CheckpointConfig,
    Documents,
    OptimizerConfig,
    Run,
    Schedule,
    to_json,
)
from mres_jax.data.types import Rung
from mres_jax.errors import CheckpointError, RunError
from mres_jax.models import checkpoint_io
from mres_jax.models.manifest import DamagedError, list_files, list_steps, read_manifest
from mres_jax.models.nativeres_llava.config import NativeResLlavaConfig
from mres_jax.models.registry import FAMILIES, load_model
from mres_jax.training.checkpoints import Checkpoints, restore_checkpoint, save_checkpoint
from mres_jax.training.learner import TrainState

CONFIG = {"model_type": "llava_qwen"}


def make_trees(seed: int = 0) -> dict:
    """What a run keeps: parameters, optimiser state with named tuples, counters, random keys."""
    draw = np.random.default_rng(seed)

    def array(*shape, dtype=np.float32):
        return jax.device_put(draw.normal(size=shape).astype(dtype))

    params = {"up": {"kernel": array(3, 8, 4), "bias": array(3, 4, dtype=jnp.bfloat16)}}
    state = optax.ScaleByAdamState(
        count=jnp.int32(seed), mu=jax.tree.map(jnp.zeros_like, params), nu=params
    )
    return {
        "model": nnx.State(jax.tree.map(nnx.Param, params)),
        "training": {
            "opt_state": (optax.EmptyState(), state),
            "step": jnp.int32(5 + seed),
            "key": jax.random.key(seed),
            "scalar": 0.5,
        },
    }


def abstract(trees: dict) -> dict:
    """The same structure without values."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), trees)


def words(leaf) -> np.ndarray:
    is_key = jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_equal(one, other) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert jnp.result_type(a) == jnp.result_type(b)
        np.testing.assert_array_equal(words(a), words(b))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Three steps of a run."""
    root = tmp_path_factory.mktemp("run")
    for step in (10, 20, 30):
        save_checkpoint(
            root,
            make_trees(step),
            step=step,
            config=CONFIG,
            policy="budget:64",
            extra={"position": {"epoch": 1}},
            assets={"tokenizer.json": b"{}"},
        )
    return root


@pytest.fixture
def copy(saved, tmp_path):
    """A run to spoil."""
    for file in saved.rglob("*"):
        if file.is_file():
            target = tmp_path / "run" / file.relative_to(saved)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return tmp_path / "run"


@pytest.mark.parametrize("template", [make_trees, lambda: abstract(make_trees())])
def test_a_step_comes_back_bit_for_bit(saved, template):
    restored = restore_checkpoint(saved, template())
    assert restored.step == 30
    assert_equal(restored.trees, make_trees(30) | {})
    assert restored.manifest.policy == "budget:64"
    assert restored.manifest.extra == {"position": {"epoch": 1}}
    assert restored.manifest.config == CONFIG


def test_a_named_step_and_a_single_tree_can_be_asked_for(saved):
    wanted = {"model": make_trees()["model"]}
    restored = restore_checkpoint(saved, wanted, step=10)
    assert_equal(restored.trees["model"], make_trees(10)["model"])
    with pytest.raises(CheckpointError, match="no complete step 15; have 10, 20, 30"):
        restore_checkpoint(saved, wanted, step=15)


def test_one_flipped_bit_in_any_file_is_refused_by_name(copy):
    """Orbax alone loads such files, with other weights; every file is tried at random places."""
    draw = np.random.default_rng(0)
    step = copy / "step_00000030"
    files = [file for file in sorted(step.rglob("*")) if file.is_file() and file.stat().st_size]
    assert len(files) > 10
    for file in files:
        content = file.read_bytes()
        name = file.relative_to(step).as_posix()
        for place in draw.integers(0, 8 * len(content), 4):
            spoiled = bytearray(content)
            spoiled[place // 8] ^= 1 << (place % 8)
            file.write_bytes(bytes(spoiled))
            with pytest.raises(DamagedError, match=f"file {re.escape(name)}: ") as error:
                restore_checkpoint(copy, make_trees())
            assert "\n" not in str(error.value)
        file.write_bytes(content)
    assert restore_checkpoint(copy, make_trees()).step == 30


def spoil(file, offset: int = 3) -> None:
    content = bytearray(file.read_bytes())
    content[offset] ^= 4
    file.write_bytes(bytes(content))


def test_the_step_before_is_used_only_if_asked_for(copy):
    file = next((copy / "step_00000030/orbax/model/d").iterdir())
    spoil(file)
    name = f"file {file.relative_to(copy / 'step_00000030')}: crc32 [0-9a-f]{{8}}, expected "
    with pytest.raises(DamagedError, match=name) as error:
        restore_checkpoint(copy, make_trees())
    cure = (
        "Step 20 stands before it: ask for it by its number or with fallback=True "
        "(of a run: --checkpoint.fallback=true)."
    )
    assert str(error.value).endswith(cure)
    with pytest.warns(UserWarning, match=f"{name}.* Taking step 20 instead"):
        restored = restore_checkpoint(copy, make_trees(), fallback=True)
    assert restored.step == 20
    assert_equal(restored.trees, make_trees(20) | {})
    assert list_steps(epath.Path(copy)) == [10, 20, 30], "the damaged step stays for a look"


def test_nothing_is_left_when_every_step_is_damaged(copy):
    for step in (10, 20, 30):
        spoil(copy / f"step_000000{step}/assets/tokenizer.json", 0)
    with (
        pytest.warns(UserWarning, match="Taking step [12]0 instead"),
        pytest.raises(DamagedError, match="step_00000010"),
    ):
        restore_checkpoint(copy, make_trees(), fallback=True)


def test_missing_and_foreign_files_are_named(copy):
    step = copy / "step_00000030"
    (step / "orbax/training/_METADATA").unlink()
    (step / "orbax/model/d/extra").write_bytes(b"x")
    with pytest.raises(DamagedError) as error:
        restore_checkpoint(copy, make_trees())
    assert "file orbax/training/_METADATA: missing" in str(error.value)
    assert "file orbax/model/d/extra: not part of what was saved" in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", " ", 1),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace('"step": 30', '"step": 3,\n "step": 30'),
        lambda text: text.replace('"crc32"', '"crc31"', 1),
        lambda text: "[]",
    ],
)
def test_a_manifest_with_other_bytes_is_refused_even_if_it_says_the_same(copy, change):
    file = copy / "step_00000030/mres_manifest.json"
    text = file.read_text()
    assert change(text) != text
    file.write_text(change(text))
    with pytest.raises(DamagedError, match=r"file mres_manifest.json: "):
        restore_checkpoint(copy, make_trees())


def test_a_longer_or_shorter_file_is_told_by_its_size(copy):
    file = copy / "step_00000030/assets/tokenizer.json"
    file.write_bytes(b"{}\n")
    with pytest.raises(DamagedError, match=r"file assets/tokenizer.json: 3 bytes, expected 2"):
        restore_checkpoint(copy, make_trees())


def test_saves_that_were_cut_short_are_passed_over_and_cleared(copy):
    (copy / "step_00000040/orbax.orbax-checkpoint-tmp").mkdir(parents=True)
    (copy / "step_00000035").mkdir()
    (copy / ".step_00000050.tmp").mkdir()
    assert restore_checkpoint(copy, make_trees()).step == 30
    save_checkpoint(copy, make_trees(), step=60, config=CONFIG)
    assert list_steps(epath.Path(copy)) == [10, 20, 30, 60]
    assert list_steps(epath.Path(copy), complete=False) == []


def test_no_process_makes_a_folder_that_process_0_may_still_clear(tmp_path, monkeypatch):
    target, seen = tmp_path / "step_00000001", []
    monkeypatch.setattr(
        checkpoint_io, "_barrier", lambda name: seen.append((name, target.exists()))
    )
    save_checkpoint(tmp_path, make_trees(), step=1, config=CONFIG)
    assert seen == [("cleared", False), ("saved", True)]


def test_the_last_steps_are_kept(tmp_path):
    trees = {"model": make_trees()["model"]}
    for step in (1, 2, 3, 11):
        save_checkpoint(tmp_path, trees, step=step, config=CONFIG, keep=2)
    assert list_steps(epath.Path(tmp_path)) == [3, 11]


def test_a_step_saved_again_replaces_the_old_one(copy):
    spoil(copy / "step_00000030/assets/tokenizer.json", 0)
    save_checkpoint(copy, make_trees(99), step=30, config=CONFIG)
    assert_equal(restore_checkpoint(copy, make_trees()).trees, make_trees(99) | {})


def test_an_empty_directory_has_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        restore_checkpoint(tmp_path, make_trees())


def test_arrays_that_do_not_match_are_listed_in_one_line(saved):
    wanted = make_trees()
    up = wanted["model"]["up"]
    up["kernel"] = nnx.Param(jnp.zeros((3, 8, 5)))
    up["bias"] = nnx.Param(jnp.zeros((3, 4)))
    up["gate"] = nnx.Param(jnp.zeros(1))
    del wanted["training"]["scalar"]
    with pytest.raises(CheckpointError) as error:
        restore_checkpoint(saved, wanted)
    assert not isinstance(error.value, DamagedError)
    assert str(error.value) == (
        f"{saved}/step_00000030: 4 arrays differ from the model: "
        "model.up.bias: expected float32 (3, 4); found bfloat16 (3, 4); "
        "model.up.gate: expected, not found; "
        "model.up.kernel: expected float32 (3, 8, 5); found float32 (3, 8, 4); "
        "training.scalar: found, not expected."
    )
    with pytest.raises(CheckpointError, match="no tree 'ema' in the checkpoint; have model, train"):
        restore_checkpoint(saved, {"ema": wanted["model"]})


def test_a_mismatch_is_no_damage_and_does_not_fall_back(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CheckpointError, match="step_00000030: 2 arrays differ"):
            restore_checkpoint(saved, {"model": {"up": {}}}, fallback=True)


def test_the_manifest_lists_every_file_with_its_shapes(saved):
    directory = epath.Path(saved) / "step_00000030"
    manifest = read_manifest(directory)
    assert manifest.files.keys() == list_files(directory).keys()
    assert manifest.arrays["model"]["up.bias"] == [[3, 4], "bfloat16"]
    assert manifest.step == 30


@contextlib.contextmanager
def limited_files(size: int):
    """No file can grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line_and_leaves_the_earlier_steps(copy, capfd):
    trees = {"model": {"w": jax.device_put(np.random.default_rng(0).normal(size=9_000))}}
    trees = jax.tree.map(lambda x: x.astype(np.float32), trees)
    with limited_files(10_000), pytest.raises(RunError) as error:
        save_checkpoint(copy, trees, step=40, config=CONFIG)
    step = copy / "step_00000040"
    assert str(error.value) == (
        f"save {step}: File too large; nothing was left behind. Free space or choose another disk."
    )
    assert not step.exists()
    assert restore_checkpoint(copy, make_trees()).step == 30
    assert "Traceback" not in capfd.readouterr().err


def make_run(directory) -> Run:
    tokenizer = testing.tiny_tokenizer()
    return Run(
        name="tiny",
        model=NativeResLlavaConfig(
            vision_config=testing.tiny_vision_config(hidden_size=24),
            text_config=testing.tiny_text_config(tokenizer),
            image_token_id=tokenizer.token_id("<|image_pad|>"),
        ),
        data=(Documents(),),
        policies={"native": 1.0, "scale:0.5": 2.0},
        ladder=(Rung(max_patches=64, max_tokens=64, max_views=4, max_examples=2),),
        optimizer=OptimizerConfig(),
        schedule=Schedule(num_steps=10),
        checkpoint=CheckpointConfig(dir=str(directory)),
    )


def test_steps_of_before_skips_were_counted_have_none(copy):
    zero = {"skipped": {"skipped": jnp.int32(0)}}
    trees = restore_checkpoint(copy, make_trees() | zero, defaults=zero).trees
    assert_equal(trees, make_trees(30) | zero)
    with pytest.raises(CheckpointError, match="no tree 'skipped' in the checkpoint"):
        restore_checkpoint(copy, make_trees() | zero)


def test_a_run_goes_on_from_its_newest_step_and_can_be_asked(tmp_path):
    """The training state returns whole; the same directory loads as a model with its policy."""
    run = make_run(tmp_path)
    family = FAMILIES["llava_qwen"]
    model = jax.tree.map(
        lambda x: jax.device_put(np.full(x.shape, 0.5, x.dtype)),
        nnx.state(family.skeleton(run.model), nnx.Param),
    )
    flat = [(("model", *path), leaf) for path, leaf in nnx.to_flat_state(model)]
    params = nnx.from_flat_state([*flat, (("heads", "kernel"), nnx.Param(jnp.ones(3)))])
    opt_state = optax.adam(1e-3).init(nnx.to_pure_dict(params))
    state = TrainState(
        step=jnp.int32(4),
        params=params,
        frozen=nnx.State({}),
        opt_state=opt_state,
        skipped=jnp.int32(3),
        skipped_in_row=jnp.int32(2),
    )
    assets = {"tokenizer.json": testing.tiny_tokenizer().to_bytes()}
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1, assets=assets)
    assert checkpoints.restore_latest(state) is None
    checkpoints.save(state, step=4, run=run, progress={"epoch": 3, "pack": 1})
    zeros = jax.tree.map(jnp.zeros_like, state)
    restored = checkpoints.restore_latest(zeros)
    assert restored is not None
    assert_equal(restored[0], state)
    assert restored[1] == {"epoch": 3, "pack": 1, "run": json.loads(to_json(run))}
    loaded = load_model(tmp_path)
    assert (loaded.step, loaded.policy, loaded.config) == (4, "scale:0.5", run.model)
    assert_equal(nnx.state(loaded.model, nnx.Param), model)
    assert json.dumps(loaded.extra["run"]["policies"])

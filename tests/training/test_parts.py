"""What is frozen stays bit for bit and costs nothing; what is adapted goes on and out exactly."""

import dataclasses
import re
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx

from mres_jax import nn
from mres_jax.config import LoRA, OptimizerConfig, Schedule, apply_overrides
from mres_jax.errors import CheckpointError, ConfigError
from mres_jax.models.checkpoint_io import read_checkpoint, stored_arrays
from mres_jax.models.manifest import DamagedError, read_manifest
from mres_jax.models.nativeres_llava.model import NativeResLlava
from mres_jax.models.registry import convert, load_model
from mres_jax.testing import tiny_nativeres_llava, tiny_run
from mres_jax.training.learner import Learner
from mres_jax.training.loop import train
from mres_jax.training.optimizer import make_optimizer
from mres_jax.training.parts import adapt, match_targets, trained_rates

NAMES = ["text.layers.attn.q", "text.layers.mlp.up", "vision.blocks.attn.qkv", "projector.up"]


@pytest.fixture(autouse=True)
def promotion_as_optax_needs_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


def make_learner(peft: LoRA | None = None) -> Learner:
    """Shapes of a tiny model and one auxiliary head."""
    config = tiny_nativeres_llava().model.config

    def make() -> Learner:
        rngs = nnx.Rngs(0)
        model = NativeResLlava(config, rngs=rngs)
        if peft is not None:
            adapt(model, peft, rngs=rngs)
        return Learner(model, patch_classes={"char0": 3}, auxiliary_weight=1.0, rngs=rngs)

    return nnx.eval_shape(make)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return make_learner()


def by_part(rates) -> dict[str, set[float]]:
    found: dict[str, set[float]] = {}
    for path, rate in rates.items():
        found.setdefault(".".join(path[:3]), set()).add(rate)
    return found


def test_the_longest_prefix_wins_and_what_none_names_is_left_out(learner):
    rates = trained_rates(learner, {"vision": 0.2, "vision.merger": 1.0, "text.layers.attn": 3.0})
    assert by_part(rates) == {
        "model.vision.patch_embed": {0.2},
        "model.vision.blocks": {0.2},
        "model.vision.merger": {1.0},
        "model.text.layers": {3.0},
        "heads.patch.heads": {1.0},
        "heads.token.heads": {1.0},
    }
    assert {path[4] for path in rates if path[1] == "text"} == {"q", "k", "v", "o"}


def test_by_default_all_is_trained_and_beside_adapters_nothing_else(learner):
    everything = {tuple(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(learner))}
    assert trained_rates(learner, None) == dict.fromkeys(everything, 1.0)
    assert trained_rates(learner, {"": 1.0}) == dict.fromkeys(everything, 1.0)
    adapted = make_learner(LoRA(targets=("*.q",)))
    assert {path[-1] for path in trained_rates(adapted, None) if path[0] == "model"} == {
        "lora_a",
        "lora_b",
    }
    beside = trained_rates(adapted, {"projector": 0.5})
    assert by_part(beside)["model.projector.up"] == {0.5}


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            {"projecter": 1.0},
            "run: train: 'projecter' fits no parameter. Did you mean 'projector'? The model has "
            "projector, text, vision.",
        ),
        (
            {"vision": 1.0, "vision.mergr": 1.0},
            "run: train: 'vision.mergr' fits no parameter. Did you mean 'vision.merger'? vision "
            "has vision.blocks, vision.merger, vision.patch_embed.",
        ),
        ({"visio": 1.0}, "run: train: 'visio' fits no parameter. Did you mean 'vision'?"),
    ],
)
def test_an_unknown_part_is_named_with_those_that_are_there(learner, train, message):
    with pytest.raises(ConfigError) as error:
        trained_rates(learner, train)
    assert str(error.value).startswith(message)


def test_a_kernel_is_trained_in_full_or_adapted():
    adapted = make_learner(LoRA(targets=("text.layers.attn.q",)))
    with pytest.raises(ConfigError, match=r"names text\.layers\.attn\.q\.kernel and `peft`"):
        trained_rates(adapted, {"text": 1.0})


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("text.layers.attn.q", NAMES[:1]),
        ("text.layers", NAMES[:2]),
        ("*.attn.*", [NAMES[0], NAMES[2]]),
        ("*", NAMES),
    ],
)
def test_a_pattern_fits_a_name_what_is_below_it_or_a_glob(pattern, fits):
    assert match_targets(NAMES, [pattern]) == fits


def test_a_pattern_that_fits_nothing_is_refused_with_near_names():
    with pytest.raises(ConfigError) as error:
        match_targets(NAMES, ["text", "vision.blocks.attn.qvk"])
    assert str(error.value) == (
        "peft: 'vision.blocks.attn.qvk' fits no linear layer. Did you mean "
        f"'vision.blocks.attn.qkv'? Have {', '.join(NAMES)}."
    )


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_multiplier_scales_the_whole_update_of_its_part(name):
    params = {part: {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)} for part in ("a", "b")}
    rates = {(part, leaf): r for part, r in {"a": 1.0, "b": 0.2}.items() for leaf in params["a"]}
    config = OptimizerConfig(name=name, weight_decay=0.1)
    optimizer = make_optimizer(config, Schedule(num_steps=2), rates)
    draw = np.random.default_rng(0)
    grads = {"kernel": jnp.asarray(draw.normal(size=(4, 4)), jnp.float32), "bias": jnp.ones(4)}
    updates: Any = {}
    state = optimizer.init(params)
    for _ in range(2):  # the first step of the warm-up has no rate
        updates, state = optimizer.update({"a": grads, "b": grads}, state, params)
    for leaf in grads:
        assert np.abs(updates["a"][leaf]).min() > 0
        # one float32 product
        np.testing.assert_allclose(updates["b"][leaf], 0.2 * updates["a"][leaf], rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_all_but_biases_and_norms_decays(name):
    """Nothing else moves a parameter here: gradients are zero."""
    adapted = make_learner(LoRA(targets=("*.q",)))
    shapes = nnx.state(adapted, nnx.Param)
    params = nnx.to_pure_dict(jax.tree.map(lambda x: jnp.ones(x.shape), shapes))
    config = OptimizerConfig(name=name, learning_rate=0.5, weight_decay=0.1)
    optimizer = make_optimizer(config, Schedule(num_steps=2, kind="constant"))
    state = optimizer.init(params)
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(optimizer.update)(still, state, params)
    moved: dict[str, set[float]] = {}
    for path, update in nnx.to_flat_state(nnx.State(updates)):
        moved.setdefault(str(path[-1]), set()).update(np.unique(update).tolist())
    decayed = {"kernel", "embedding", "lora_a", "lora_b"}
    assert moved.keys() == decayed | {"bias", "scale"}
    for leaf, values in moved.items():
        assert values == {float(np.float32(-0.05)) if leaf in decayed else 0.0}, leaf


PEFT = LoRA(targets=("text.layers", "vision.blocks.attn.qkv"), rank=2, alpha=8.0)


def quiet(line: str) -> None:
    del line


def flat(model) -> dict[str, np.ndarray]:
    leaves = nnx.to_flat_state(nnx.state(model))
    return {".".join(map(str, path)): np.asarray(x.get_value()) for path, x in leaves}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run of the whole model, one step long, that the others start from."""
    with jax.numpy_dtype_promotion("standard"):
        run = tiny_run(tmp_path_factory.mktemp("base"), steps=1, aux_loss_weight=0.0)
        return run, train(run, log=quiet)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, base):
    """Four steps with adapters and the projector, saved after two and four; what it logged."""
    directory, lines = tmp_path_factory.mktemp("adapted"), []
    run = tiny_run(
        directory,
        aux_loss_weight=0.0,
        init=base[0].checkpoint.dir,
        peft=PEFT,
        train={"projector": 0.5},
    )
    with jax.numpy_dtype_promotion("standard"):
        return run, train(run, log=lines.append), lines


def step_of(run, number: int) -> epath.Path:
    return epath.Path(run.checkpoint.dir) / "checkpoints" / f"step_{number:08d}"


def test_what_is_frozen_stays_bit_for_bit_and_the_rest_moves(base, adapted):
    before, after = flat(base[1].model), flat(adapted[1].model)
    for name, value in before.items():
        if name.startswith("projector"):
            assert after[name].dtype == np.float32
            assert (after[name] != value).any()
        else:
            assert after[name].dtype == jnp.bfloat16
            np.testing.assert_array_equal(after[name], value.astype(jnp.bfloat16))
    for name in after.keys() - before.keys():
        assert np.abs(after[name]).max() > 0, name  # the second factor began as zeros


def test_nothing_is_kept_by_the_optimiser_for_what_is_frozen(adapted):
    run, trained, lines = adapted
    sizes = {name: x.size for name, x in flat(trained.model).items()}
    moving = [n for n in sizes if n.startswith("projector") or n.endswith(nn.LORA_FACTORS)]
    arrays = read_manifest(step_of(run, 4)).arrays
    moments = [shape for name, (shape, _) in arrays["training"].items() if ".mu." in name]
    moments += [shape for name, (shape, _) in arrays["training"].items() if ".nu." in name]
    assert sum(int(np.prod(shape)) for shape in moments) == 2 * sum(sizes[n] for n in moving)
    (line,) = [line for line in lines if "trains" in line]
    assert re.search(r"trains .*projector x0\.5 \(.*adapters x1 \(.*; frozen .*in bfloat16", line)


def test_frozen_parameters_are_saved_once_and_a_step_holds_the_rest(adapted):
    run, trained, _ = adapted
    for number in (2, 4):
        arrays = read_manifest(step_of(run, number)).arrays
        assert {name.split(".")[0] for name in arrays["model"]} == {"projector"}
        assert set(arrays) == {"model", "adapters", "training", "skipped"}
    frozen = read_manifest(step_of(run, 4).parent / "frozen").arrays
    held = flat(trained.model)
    assert set(frozen["model"]) == {
        n for n in held if not n.startswith("projector") and not n.endswith(nn.LORA_FACTORS)
    }


def test_two_steps_and_two_more_are_four_bit_for_bit(adapted, tmp_path):
    run, whole, _ = adapted
    copy = tmp_path / "copy"
    shutil.copytree(run.checkpoint.dir, copy)
    shutil.rmtree(copy / "checkpoints" / "step_00000004")
    changed = dataclasses.replace(run.checkpoint, dir=str(copy))
    frozen = copy / "checkpoints" / "frozen" / "mres_manifest.json"
    written = frozen.stat().st_mtime_ns
    again = train(dataclasses.replace(run, checkpoint=changed), log=quiet)
    assert again.step == whole.step == 4
    assert frozen.stat().st_mtime_ns == written  # the steps before lean on it
    once, resumed = stored(step_of(run, 4)), stored(copy / "checkpoints" / "step_00000004")
    assert any(".mu." in name for name in once)
    assert once.keys() == resumed.keys()
    for name, value in once.items():
        np.testing.assert_array_equal(value, resumed[name], err_msg=name)


def stored(directory) -> dict[str, np.ndarray]:
    """Every array of a step and of what it leans on."""
    abstract = {
        tree: {name: jax.ShapeDtypeStruct(tuple(shape), kind) for name, (shape, kind) in a.items()}
        for tree, a in stored_arrays(epath.Path(directory)).items()
    }
    trees = read_checkpoint(epath.Path(directory), abstract)
    return {f"{t}.{name}": np.asarray(x) for t, tree in trees.items() for name, x in tree.items()}


def test_a_step_loads_and_converts_as_the_merged_model(adapted, tmp_path):
    run, trained, _ = adapted
    merged = flat(nn.merge_lora(trained.model))
    loaded = load_model(run.checkpoint.dir)
    for name, value in flat(loaded.model).items():
        np.testing.assert_array_equal(value, merged[name].astype(np.float32), err_msg=name)
    assert "adapters" not in loaded.extra
    assert convert(run.checkpoint.dir, tmp_path / "out") == "huggingface"
    back = load_model(tmp_path / "out", param_dtype="stored")
    for name, value in flat(back.model).items():
        assert value.dtype == merged[name].dtype
        np.testing.assert_array_equal(value, merged[name], err_msg=name)


def test_a_step_without_what_it_leans_on_is_refused_by_name(adapted, tmp_path):
    run, _, _ = adapted
    alone = tmp_path / "step_00000004"
    shutil.copytree(step_of(run, 4), alone)
    with pytest.raises(CheckpointError, match=r"stood in .*frozen, which is gone.*mres convert"):
        load_model(alone)
    shutil.copytree(step_of(run, 4), tmp_path / "frozen")
    with pytest.raises(DamagedError, match=r"frozen: mres_manifest\.json: crc32"):
        load_model(alone)


def test_another_choice_of_parts_is_refused_with_the_difference(adapted):
    run, _, _ = adapted
    other = apply_overrides(run, ["--peft.rank=4"])
    with pytest.raises(ConfigError, match=r"peft: .*rank=2.*rank=4.*checkpoint\.dir"):
        train(other, log=quiet)


@pytest.mark.slow
def test_a_run_starts_from_the_merged_model_of_another_with_fresh_adapters(adapted, tmp_path):
    run, trained, _ = adapted
    at_rest = OptimizerConfig(learning_rate=1e-30)
    start = dataclasses.replace(
        tiny_run(tmp_path, steps=1, optimizer=at_rest, aux_loss_weight=0.0),
        init=run.checkpoint.dir,
    )
    merged = flat(nn.merge_lora(trained.model))
    for name, value in flat(train(start, log=quiet).model).items():
        np.testing.assert_array_equal(value, merged[name].astype(np.float32), err_msg=name)

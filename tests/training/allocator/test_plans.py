"""What `mres plan` says of training by rewards: how often, how much, and what it refuses."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from mres_jax.cli import main
from mres_jax.config import BackboneTraining, MeshConfig
from mres_jax.data.types import Rung
from mres_jax.errors import ConfigError, RunError
from mres_jax.geometry import Size
from mres_jax.models.registry import family_of, load_config
from mres_jax.training.allocator.parts import set_up_allocator
from mres_jax.training.meshes import mesh_of
from mres_jax.training.planning import allocator as planning, compiled
from mres_jax.training.planning.allocator import fitted_allocator, plan_allocator
from mres_jax.training.planning.asking import ask, mean_scale
from mres_jax.training.planning.drawing import compile_drawing
from mres_jax.training.planning.hlo import Work
from mres_jax.training.planning.plan import spec_for_shapes
from mres_jax.training.planning.topologies import parse_topology

FRAME = Size(32, 48)
LADDER = (Rung(max_patches=1_024, max_tokens=768, max_views=8, max_examples=2),)


@pytest.fixture
def config(parts):
    return parts.model.config


@pytest.fixture
def make(make_run):
    """A run about clips of four frames."""

    def short(*name, **changes):
        run = make_run(*name, **{"ladder": LADDER, "wire": "stills", **changes})
        return dataclasses.replace(run, data=dataclasses.replace(run.data, max_frames=4))

    return short


def test_what_is_asked_is_counted_by_hand(make, parts, config):
    run = make(prompts=3, allocations=2, rollouts=4)
    stride = parts.spec.stride
    whole = ask(run, parts.spec, config, FRAME, 1.0)
    assert whole.visual_tokens == 4 * (32 // stride) * (48 // stride)
    assert len(whole.grids) == 4
    assert whole.size.num_patches == whole.visual_tokens * parts.spec.merge_size**2
    assert sum(whole.packs) == 3 * 2
    assert sum(whole.trained) == 3 * 2 * 4
    half = ask(run, parts.spec, config, FRAME, 0.5)
    assert half.visual_tokens == whole.visual_tokens / 4
    small = (dataclasses.replace(LADDER[0], max_patches=64),)
    with pytest.raises(ConfigError, match=r"4 frames at scale 1, .* no rung: .*max_patches=64"):
        ask(dataclasses.replace(run, ladder=small), parts.spec, config, FRAME, 1.0)


def test_a_run_without_a_mesh_gets_one_and_a_pack_for_each_rank(make):
    run = make(prompts=16, clips_per_pack=8)
    planned, notes = fitted_allocator(run, parse_topology("v5e-4"))
    assert planned.mesh == MeshConfig(fsdp=4)
    assert planned.clips_per_pack == 4
    assert notes == [
        "the run names no mesh; planned with fsdp=4",
        "clips_per_pack 8 -> 4: a pack for each rank",
    ]
    with pytest.raises(ConfigError, match="cannot be shared out over the 32 ranks"):
        fitted_allocator(run, parse_topology("v5e-32"))
    meshed = make("other", mesh=MeshConfig(fsdp=2), prompts=4, clips_per_pack=2)
    with pytest.raises(ConfigError, match="takes 2 devices, v5e:2x2 has 4"):
        fitted_allocator(meshed, parse_topology("v5e-4"))


def test_on_gpus_models_and_optimisers_are_counted_and_the_rest_is_said_to_be_unknown(make, config):
    topology = parse_topology("gpu:h200x1")
    frozen = plan_allocator(make("frozen"), topology, config, frame=FRAME)
    learns = make("learns", backbone_training=BackboneTraining())
    trained = plan_allocator(learns, topology, config, frame=FRAME)
    allocator = sum(x.nbytes for x in jax.tree.leaves(set_up_allocator(learns).state.params))
    backbone = frozen.memory.parameters - allocator
    assert trained.memory.parameters == frozen.memory.parameters
    assert frozen.memory.optimiser == pytest.approx(2 * allocator, rel=0.01)
    assert trained.memory.optimiser == pytest.approx(2 * (allocator + backbone), rel=0.01)
    assert (trained.phases, trained.step_s, trained.hours, trained.fits) == ((), None, None, None)
    json.dumps(trained.to_dict())


@pytest.mark.slow
def test_every_part_of_a_step_is_compiled_and_counted_as_often_as_it_runs(
    make, config, monkeypatch
):
    """For the CPU that is here, in place of a slice that is not."""
    monkeypatch.setattr(compiled, "load_compiler", lambda: None)
    monkeypatch.setattr(compiled, "mesh_on", lambda _, mesh: mesh_of(mesh, jax.devices()[:1]))
    work = Work(flops=1e9, memory_bytes=1e6, sent={}, kernels={})  # loops of a CPU say no counts
    monkeypatch.setattr(compiled, "read_work", lambda text, turns: work)
    run = make(
        prompts=4,
        updates=2,
        allocations=3,
        rollouts=2,
        clips_per_pack=2,
        max_new_tokens=5,
        backbone_training=BackboneTraining(every=2),
    )
    plan = plan_allocator(run, parse_topology("v5e:1x1"), config, frame=FRAME)
    packs = len(ask(run, spec_for_shapes(config), config, FRAME, mean_scale(run.network)).packs)
    assert {phase.name: phase.times for phase in plan.phases} == {
        "draw": 2,
        "allocator": 2,
        "backbone": 1,
        "prefill": packs,
        "decode": 5 * packs,
    }
    assert (plan.prompts, plan.rollouts) == (12, 24)
    assert plan.fits
    assert plan.step_s == pytest.approx(sum(p.times * p.step_s for p in plan.phases))
    assert plan.hours == pytest.approx(plan.steps * plan.step_s / 3600)
    for phase in plan.phases:
        assert phase.memory.parameters == plan.memory.parameters
        assert phase.memory.total > plan.memory.total
    json.dumps(plan.to_dict())


def test_the_drawing_of_allocations_is_a_part_of_the_step(make, config, monkeypatch):
    """Nothing is compiled: both parts are given the same numbers."""
    work = Work(flops=1e9, memory_bytes=1e6, sent={}, kernels={})
    part = compiled.Compiled(argument_bytes=10**6, temporary_bytes=10**5, work=work, sent={})
    monkeypatch.setattr(compiled, "load_compiler", lambda: None)
    monkeypatch.setattr(compiled, "mesh_on", lambda _, mesh: mesh_of(mesh, jax.devices()[:1]))
    monkeypatch.setattr(compiled, "compile_step", lambda *_, **__: part)
    monkeypatch.setattr(planning, "compile_drawing", lambda *_, **__: part)
    run = make(prompts=8, clips_per_pack=3, allocations=5)
    topology, phases = parse_topology("v5e:1x1"), ("train",)
    draw, update = plan_allocator(run, topology, config, frame=FRAME, phases=phases).phases
    assert (draw.name, draw.times, update.name) == ("draw", 3, "allocator")
    assert draw.contents == "5 allocations of 3 clips"
    assert draw.memory.other == 10**5
    assert draw.step_s


@pytest.mark.slow
def test_drawing_takes_what_its_packs_do_and_not_what_the_step_does(make):
    mesh, needs = mesh_of(MeshConfig(), jax.devices()[:1]), []
    for clips in (2, 8):
        run = make(prompts=8, clips_per_pack=clips)
        setup = planning._without_numbers(lambda run=run: set_up_allocator(run))
        needs.append(compile_drawing(setup, run, mesh).temporary_bytes)
    assert 3 * needs[0] < needs[1]


@pytest.mark.slow
def test_weights_that_are_gathered_once_are_a_part_of_the_step_and_a_copy_while_it_answers(
    make, config, monkeypatch
):
    """On one device, taken for two: what is counted, not what is sent."""
    monkeypatch.setattr(compiled, "load_compiler", lambda: None)
    monkeypatch.setattr(compiled, "mesh_on", lambda _, mesh: mesh_of(MeshConfig(), jax.devices()))
    work = Work(flops=1e9, memory_bytes=1e6, sent={}, kernels={})
    monkeypatch.setattr(compiled, "read_work", lambda text, turns: work)
    topology, phases = parse_topology("v5e-4"), ("prefill", "decode")
    changes = {"prompts": 4, "clips_per_pack": 1, "mesh": MeshConfig(fsdp=4), "max_new_tokens": 5}
    plans = [
        plan_allocator(
            make(gather_for_answers=gathers, **changes),
            topology,
            config,
            frame=FRAME,
            phases=phases,
        )
        for gathers in (False, True)
    ]
    names = [[phase.name for phase in plan.phases] for plan in plans]
    assert names == [["prefill", "decode"], ["gather", "prefill", "decode"]]
    assert plans[1].phases[0].times == 1
    model = family_of(config).skeleton(config, dtype=jnp.float32)
    copy = sum(x.size * 4 for x in jax.tree.leaves(nnx.state(model)))
    before, after = ({phase.name: phase.memory for phase in plan.phases} for plan in plans)
    for name in ("prefill", "decode"):
        assert after[name].parameters - before[name].parameters == copy
        assert after[name].packs == before[name].packs


def test_a_part_that_the_compiler_fails_on_is_noted_and_leaves_no_time(make, config, monkeypatch):
    monkeypatch.setattr(compiled, "load_compiler", lambda: None)
    monkeypatch.setattr(compiled, "mesh_on", lambda _, mesh: mesh_of(mesh, jax.devices()[:1]))

    def fail(*_, **__):
        raise RunError("plan: the compiler of this slice failed on the program")

    monkeypatch.setattr(planning, "compile_decode", fail)
    topology, phases = parse_topology("v5e:1x1"), ("decode",)
    plan = plan_allocator(make(), topology, config, frame=FRAME, phases=phases)
    assert (plan.phases, plan.step_s, plan.fits) == ((), None, None)
    assert "decode: plan: the compiler of this slice failed on the program" in plan.notes


def test_of_a_program_that_cannot_be_written_down_the_memory_is_known(make, config, monkeypatch):
    """As libtpu 0.0.51 does to the update of the paper's allocator for a v6e."""
    monkeypatch.setattr(compiled, "load_compiler", lambda: None)
    monkeypatch.setattr(compiled, "mesh_on", lambda _, mesh: mesh_of(mesh, jax.devices()[:1]))

    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("RET_CHECK failure async-update")

    monkeypatch.setattr(compiled, "read_work", fail)
    topology, phases = parse_topology("v5e:1x1"), ("decode",)
    plan = plan_allocator(make(), topology, config, frame=FRAME, phases=phases)
    (decode,) = plan.phases
    assert decode.memory.fits
    assert (decode.memory.other or 0) > 0
    assert (decode.step_s, decode.sent, plan.step_s) == (None, {}, None)
    assert f"decode: {compiled.UNREAD}" in plan.notes


def test_the_command_wants_options_of_the_kind_of_training(capsys):
    file = "configs/resadapt/tiny.py"
    for options, line in (
        (["-p", "native"], "--policy prices an epoch of supervised training"),
        (["--frame", "720p"], "--frame '720p' is no size; write WIDTHxHEIGHT, as 1280x720."),
    ):
        assert main(["plan", file, "--topology", "gpu:h200x1", *options]) == 2
        assert line in capsys.readouterr().err
    other = ["plan", "configs/tiny/pages.py", "--topology", "gpu:h200x1", "--scale", "0.5"]
    assert main(other) == 2
    assert "--frame and --scale are for training by rewards" in capsys.readouterr().err


def test_the_command_needs_no_weights_and_no_data(capsys, tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(family_of(config).config_to_hf(config)))
    assert load_config(tmp_path) == config
    command = ["plan", "configs/resadapt/tiny.py", "--topology", "gpu:h200x1", "--frame", "64x32"]
    assert main([*command, f"--backbone={tmp_path}", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"] is None
    assert plan["rollouts"] == 4 * 8
    assert "8 frames of 64 x 32 px" in plan["prompt"]


def test_frames_of_a_pair_share_their_tokens(make, parts, config):
    run = make()
    stills = ask(run, parts.spec, config, FRAME, 1.0)
    pairs = ask(dataclasses.replace(run, wire="pairs"), parts.spec, config, FRAME, 1.0)
    assert pairs.visual_tokens * parts.spec.temporal_patch_size == stills.visual_tokens

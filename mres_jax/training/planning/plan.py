"""What a training run takes of a slice: memory, exchanges, time; and what would fit."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from mres_jax.config import MeshConfig, Run
from mres_jax.data.packing import empty_pack
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import Pack
from mres_jax.errors import ConfigError
from mres_jax.models.registry import family_of
from mres_jax.training import meshes
from mres_jax.training.flops import passes
from mres_jax.training.input.documents import PATCH_CLASSES
from mres_jax.training.planning import compiled
from mres_jax.training.planning.answering import compile_decode, compile_prefill
from mres_jax.training.planning.contents import Contents, attention_flops, full_pack, model_flops
from mres_jax.training.planning.kept import kept_bytes
from mres_jax.training.planning.report import Memory, Phase, Plan
from mres_jax.training.planning.topologies import Topology, larger, smaller
from mres_jax.training.setup import Setup, set_up_abstractly

USABLE = 0.98  # of a chip's memory: the rest is the system's
PHASES = ("train", "prefill", "decode")
REMATS = ("none", "dots", "full")
UNCOMPILED = {
    "gpu": "GPU steps are counted, not compiled: gradients, temporaries, exchanges and times are "
    "not known here.",
    "tpu": "training was counted, not compiled, since it was not asked for.",
}


def plan_run(
    run: Run,
    topology: Topology,
    *,
    phases: Sequence[str] = PHASES[:1],
    log: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Compiles the steps of a run for a slice and says what they take.

    The largest rung of the ladder is compiled, as a full pack of equal views. On GPUs nothing is
    compiled: state and activations are counted.

    Args:
      run: its mesh is used where it fits the slice; a run without one gets fsdp over all devices.
      topology: where to.
      phases: of `PHASES`, those that are compiled; training is counted in any case.
      log: takes a line.

    Raises:
      ConfigError: a mesh that does not fit the slice or the model.
      RunError: the compiler is not installed.
    """
    run, notes = fitted(run, topology)
    meshes.check_model(run.mesh, run.model, run.ladder)
    setup, pack = _shapes(run)
    rung = max(run.ladder)
    held = full_pack(run, rung)
    start, step, answering = time.perf_counter(), None, ()
    if topology.platform == "tpu":
        compiled.load_compiler()
        mesh = compiled.mesh_on(topology, run.mesh)
        log(f"compiling {', '.join(phases)} for {topology.name}, {run.mesh}")
        if "train" in phases:
            step = compiled.compile_step(
                setup, pack, mesh, packs=run.accumulation, average=run.loss_average
            )
        answering = _answering(run, topology, pack, held, mesh, phases)
    memory = _memory(run, setup, pack, topology, step)
    factors = passes(setup.state.params, setup.state.frozen)
    flops = run.accumulation * model_flops(run, held, factors)
    attention = attention_flops(run, held, factors) / (run.mesh.tensor * run.mesh.sequence)
    turns = run.accumulation // run.mesh.ranks
    work = work_of(topology, step, attention, turns)
    longest = work["step_s"]
    peak = topology.chips * topology.chip.flops
    parts = [("train", memory, work["step_s"])] if step is not None else []
    parts += [(phase.name, phase.memory, phase.step_s) for phase in answering]
    notes += [f"{n}: {compiled.UNREAD}" for n, held, least in parts if held.fits and least is None]
    return Plan(
        name=run.name,
        topology=topology.name,
        slice_name=topology.slice_name,
        chips=topology.chips,
        devices=topology.devices,
        hosts=topology.hosts,
        mesh=run.mesh.sizes,
        packs_per_step=run.accumulation,
        rung=(rung.max_patches, rung.max_tokens),
        views=f"{len(held.grids)} views of {held.grids[0].num_patches} patches",
        memory=memory,
        model_flops=flops,
        **work,
        mfu=None if longest is None else flops / longest / peak,
        phases=answering,
        compile_s=time.perf_counter() - start,
        proposals=tuple(_proposals(run, topology, memory, setup, pack)),
        notes=(*notes, UNCOMPILED[topology.platform]) if step is None else tuple(notes),
    )


def _answering(
    run: Run, topology: Topology, pack: Pack, held: Contents, mesh: Any, phases: Sequence[str]
) -> tuple[Phase, ...]:
    makers = {
        "prefill": lambda: compile_prefill(run, pack, held, mesh),
        "decode": lambda: compile_decode(run, held, mesh),
    }
    found = []
    for name, compile_phase in makers.items():
        if name not in phases:
            continue
        part = compile_phase()
        work = work_of(topology, part.compiled, part.attention)
        memory = Memory(
            parameters=part.parameters,
            optimiser=0,
            packs=part.compiled.argument_bytes - part.parameters,
            activations=0,
            other=part.compiled.temporary_bytes,
            limit=memory_limit(topology),
        )
        found.append(Phase(name=name, contents=part.contents, memory=memory, **work))
    return tuple(found)


def fitted(run: Run, topology: Topology) -> tuple[Run, list[str]]:
    """The run with a mesh for the slice and packs for all its ranks, and what was changed.

    Raises:
      ConfigError: a mesh of the run's own that takes another number of devices.
    """
    mesh, notes = fitted_mesh(run.mesh, topology)
    packs = -(-run.accumulation // mesh.ranks) * mesh.ranks
    if packs != run.accumulation:
        notes.append(f"accumulation {run.accumulation} -> {packs}: a pack for each rank")
    return dataclasses.replace(run, mesh=mesh, accumulation=packs), notes


def fitted_mesh(mesh: MeshConfig, topology: Topology) -> tuple[MeshConfig, list[str]]:
    """The mesh, or fsdp over all devices in place of none, with a note of that.

    Raises:
      ConfigError: it takes another number of devices.
    """
    notes, devices = [], topology.devices
    if mesh.size == 1 and devices > 1:
        mesh = MeshConfig(fsdp=devices)
        notes.append(f"the run names no mesh; planned with fsdp={devices}")
    if mesh.size != devices:
        raise ConfigError(
            f"plan: the mesh {mesh} takes {mesh.size} devices, {topology.name} has {devices}. "
            f"{meshes.nearest(mesh, devices)}"
        )
    return mesh, notes


def _shapes(run: Run) -> tuple[Setup, Pack]:
    """State and largest pack, without numbers."""
    spec = spec_for_shapes(run.model)
    names = sorted(PATCH_CLASSES) if run.aux_loss_weight else ()
    pack = empty_pack(max(run.ladder), spec, label_names=names)
    return _set_up(run), pack


def spec_for_shapes(config: Any) -> ProcessorSpec:
    """A spec whose ids mean nothing: shapes need no tokenizer."""
    ids = itertools.count()
    return family_of(config).make_spec(config, lambda name: next(ids))


def _set_up(run: Run) -> Setup:
    """Abstract; shapes do not depend on the schedule, so any will do."""
    schedule = dataclasses.replace(run.schedule, num_steps=1_000, warmup_steps=0)
    return set_up_abstractly(run, schedule)


def _memory(
    run: Run, setup: Setup, pack: Pack, topology: Topology, step: compiled.Compiled | None
) -> Memory:
    mesh = meshes.abstract_mesh(run.mesh)
    state = setup.state
    parameters = compiled.device_bytes((state.params, state.frozen), mesh)
    optimiser = compiled.device_bytes(state.opt_state, mesh)
    packs = sum(x.nbytes for x in jax.tree.leaves(pack))
    kept, other = _kept(run, setup, pack), None
    if step is not None:
        packs = max(step.argument_bytes - parameters - optimiser, 0)
        kept = min(kept, step.temporary_bytes)  # the compiler may keep less
        other = step.temporary_bytes - kept
    return Memory(
        parameters=parameters,
        optimiser=optimiser,
        packs=packs,
        activations=kept,
        other=other,
        limit=memory_limit(topology),
    )


def _kept(run: Run, setup: Setup, pack: Pack) -> int:
    """Of one pack, on each of the devices that share it."""
    return kept_bytes(setup, pack) // (run.mesh.tensor * run.mesh.sequence)


def memory_limit(topology: Topology) -> int:
    """Bytes that a run may take of a device."""
    return int(USABLE * topology.chip.memory_bytes / topology.chip.devices)


def work_of(
    topology: Topology, step: compiled.Compiled | None, attention: float, turns: int = 1
) -> dict[str, Any]:
    """Fields of a plan: what a device does in a step, and how long that takes at the least.

    Args:
      topology, step: as above.
      attention: FLOPs of the kernels on a device in a turn, which the compiler does not know.
      turns: micro-batches of a step.
    """
    if step is None or step.work is None:
        return {
            "device_flops": None,
            "memory_traffic": None,
            "sent": {},
            "seconds": {},
            "step_s": None,
        }
    flops = turns * (step.work.flops + attention)
    traffic = turns * step.work.memory_bytes
    sent = {name: turns * size for name, size in step.sent.items()}
    chip = topology.chip
    seconds = {
        "products": flops / chip.flops,
        "memory": traffic / chip.memory_bandwidth,
        "exchanges": sum(sent.values()) / chip.link_bandwidth,
    }
    seconds = {name: chip.devices * least for name, least in seconds.items()}
    return {
        "device_flops": flops,
        "memory_traffic": traffic,
        "sent": sent,
        "seconds": seconds,
        "step_s": max(seconds.values()),
    }


def _proposals(run: Run, topology: Topology, memory: Memory, setup: Setup, pack: Pack) -> list[str]:
    """What would fit, by estimate: the next remat, half a pack, the smallest slice."""
    gradients = 4 * sum(math.prod(x.shape) for x in jax.tree.leaves(setup.state.params))
    split = memory.parameters + memory.optimiser + gradients // topology.devices
    whole = memory.total - split  # what other numbers of chips would not share

    def is_enough(other: Topology) -> bool:
        return whole + split * topology.devices / other.devices <= memory_limit(other)

    if memory.spare >= 0:
        less = next(filter(is_enough, smaller(topology)), None) if memory.other else None
        return [] if less is None else [_slice(less)]
    found = []
    for remat in REMATS[REMATS.index(run.remat) + 1 :]:
        less = _kept(run, _set_up(dataclasses.replace(run, remat=remat)), pack)
        if memory.total - memory.activations + less <= memory.limit:
            found.append(f"remat={remat}: {less / 1e9:.1f} GB of activations")
            break
    if split + whole // 2 <= memory.limit:
        rung = max(run.ladder)
        found.append(
            f"packs of {rung.max_patches // 2:,} patches and {rung.max_tokens // 2:,} tokens, "
            f"accumulation={2 * run.accumulation}: {(split + whole // 2) / 1e9:.1f} GB, by estimate"
        )
    other = next(filter(is_enough, larger(topology)), None)
    if other is not None:
        found.append(_slice(other))
    return found or [
        "no slice of this generation: fewer patches or tokens a pack, or a tensor axis"
    ]


def _slice(topology: Topology) -> str:
    return f"{topology.name} ({topology.slice_name}), by estimate: plan it to be sure"

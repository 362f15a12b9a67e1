"""What a step of training by rewards takes of a slice: answers to many prompts, then updates."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from mres_jax.config import AllocatorRun, Rows, Run
from mres_jax.data.packing import empty_pack
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import Pack, Rung
from mres_jax.errors import RunError
from mres_jax.geometry import Size
from mres_jax.inference.generate import ROWS
from mres_jax.models.registry import family_of
from mres_jax.training import meshes
from mres_jax.training.allocator.backbone import TokenDecisions
from mres_jax.training.allocator.features import cache_bytes
from mres_jax.training.allocator.parts import Learning, Parts, set_up_allocator, set_up_backbone
from mres_jax.training.allocator.prompts import limit_pixels
from mres_jax.training.flops import passes
from mres_jax.training.learner import Batch, TrainState
from mres_jax.training.planning import compiled
from mres_jax.training.planning.answering import (
    Answering,
    compile_decode,
    compile_gathering,
    compile_prefill,
)
from mres_jax.training.planning.asking import Asked, ask, mean_scale
from mres_jax.training.planning.contents import Contents, attention_flops
from mres_jax.training.planning.drawing import compile_drawing, decisions, temporal_flops
from mres_jax.training.planning.plan import (
    PHASES,
    fitted_mesh,
    memory_limit,
    spec_for_shapes,
    work_of,
)
from mres_jax.training.planning.report import AllocatorPlan, Memory, Phase
from mres_jax.training.planning.topologies import Topology
from mres_jax.training.setup import Setup

FRAME = Size(720, 1_280)  # px, of the clips that nobody has looked at
NOT_COUNTED = (
    "decoding of videos, the frozen eyes and rewards are not counted; the eyes see every frame of "
    "a clip once in a run and are kept."
)
GPU = "GPU steps are counted, not compiled: temporaries, exchanges and times are not known here."


def plan_allocator(
    run: AllocatorRun,
    topology: Topology,
    config: Any,
    *,
    frame: Size = FRAME,
    scale: float | None = None,
    phases: Sequence[str] = PHASES,
    log: Callable[[str], None] = lambda line: None,
) -> AllocatorPlan:
    """Compiles the parts of a step for a slice and says what they take.

    A step has `prompts` x `allocations` prompts of clips of `data.max_frames` frames, each answered
    `rollouts` times, and `updates` of the allocator and of a backbone that learns.

    Args:
      run: its mesh is used where it fits the slice; a run without one gets fsdp over all devices.
      topology: where to.
      config: of the backbone.
      frame: height and width of the clips, px.
      scale: that all frames are seen at, per side; None is that of a fresh allocator.
      phases: those that are compiled: `train` the drawing of allocations and all updates,
        `prefill`, `decode`. One that the compiler fails on is left out and noted.
      log: takes a line.

    Raises:
      ConfigError: a mesh that does not fit the slice, the backbone or the run; a prompt that the
        ladder has no rung for.
      RunError: the compiler is not installed.
    """
    run, notes = fitted_allocator(run, topology)
    meshes.check_model(run.mesh, config, run.rungs)
    start, spec = time.perf_counter(), limit_pixels(spec_for_shapes(config), run.data.max_pixels)
    scale = mean_scale(run.network) if scale is None else scale
    asked = ask(run, spec, config, frame, scale)
    allocator, backbone = _abstract(run, config, spec)
    held = _held(run, config, allocator, backbone)
    found: list[Phase] = []
    parts = _parts(run, trains=backbone is not None)
    if topology.platform == "tpu":
        compiled.load_compiler()
        work = _Work(run, topology, config, spec, asked, held, allocator, backbone)
        for phase in phases:
            for name in parts[phase]:
                log(f"compiling {name} for {topology.name}, {run.mesh}")
                try:
                    found.append(work.part(name))
                except RunError as error:  # the others are worth knowing
                    notes.append(f"{name}: {error}")
    unread = [phase.name for phase in found if phase.memory.fits and phase.step_s is None]
    notes += [f"{name}: {compiled.UNREAD}" for name in unread]
    step_s = None
    if {phase.name for phase in found if phase.step_s is not None} == {
        name for names in parts.values() for name in names
    }:
        step_s = sum(phase.times * (phase.step_s or 0.0) for phase in found)
    memory = Memory(*held, packs=0, activations=0, other=None, limit=memory_limit(topology))
    return AllocatorPlan(
        name=run.name,
        topology=topology.name,
        slice_name=topology.slice_name,
        chips=topology.chips,
        devices=topology.devices,
        hosts=topology.hosts,
        mesh=run.mesh.sizes,
        prompts=run.prompts * run.allocations,
        rollouts=run.prompts * run.allocations * run.rollouts,
        prompt=(
            f"{run.data.max_frames} frames of {frame.width} x {frame.height} px at scale "
            f"{scale:g}: {asked.visual_tokens:,} visual tokens"
        ),
        memory=memory,
        phases=tuple(found),
        step_s=step_s,
        steps=run.schedule.num_steps or 0,
        feature_bytes=cache_bytes(run.data.max_frames, run.network.frame_size),
        compile_s=time.perf_counter() - start,
        notes=(*notes, NOT_COUNTED, *(() if topology.platform == "tpu" else (GPU,))),
    )


def _parts(run: AllocatorRun, *, trains: bool) -> dict[str, tuple[str, ...]]:
    """What is compiled for each phase."""
    gathers = run.gather_for_answers and run.mesh.fsdp > 1
    return {
        "train": ("draw", "allocator", "backbone") if trains else ("draw", "allocator"),
        "prefill": ("gather", "prefill") if gathers else ("prefill",),
        "decode": ("decode",),
    }


def fitted_allocator(run: AllocatorRun, topology: Topology) -> tuple[AllocatorRun, list[str]]:
    """The run with a mesh for the slice and packs for all its ranks, and what was changed.

    Raises:
      ConfigError: a mesh of another number of devices, or ranks that its questions cannot go round.
    """
    mesh, notes = fitted_mesh(run.mesh, topology)
    changes: dict[str, Any] = {"mesh": mesh}
    questions = run.prompts // run.updates
    clips = questions // mesh.ranks
    if -(-questions // run.clips_per_pack) % mesh.ranks and clips and not questions % mesh.ranks:
        changes["clips_per_pack"] = clips
        notes.append(f"clips_per_pack {run.clips_per_pack} -> {clips}: a pack for each rank")
    return dataclasses.replace(run, **changes), notes


class _Held(NamedTuple):
    """Bytes of a device that are there all the time."""

    parameters: int
    optimiser: int


def _abstract(run: AllocatorRun, config: Any, spec: ProcessorSpec) -> tuple[Setup, Setup | None]:
    """The two that may learn."""
    trains = run.backbone_training is not None

    def model() -> Any:
        made: Any = family_of(config).Model
        return made(config, dtype=run.dtype, rngs=nnx.Rngs(0))

    def backbone() -> Learning | None:
        nowhere: Any = None
        return set_up_backbone(run, Parts(model(), spec, nowhere, nowhere))

    return _without_numbers(lambda: set_up_allocator(run)), (
        _without_numbers(backbone) if trains else None
    )


def _without_numbers(make: Callable[[], Any]) -> Setup:
    kept: dict[str, Any] = {}

    def state() -> TrainState:
        kept["made"] = made = make()
        return made.state

    shapes = jax.eval_shape(state)
    return Setup(kept["made"].graphdef, shapes, kept["made"].step.optimizer, rates={})


def _held(run: AllocatorRun, config: Any, allocator: Setup, backbone: Setup | None) -> _Held:
    mesh = meshes.abstract_mesh(run.mesh)
    parts = [allocator] + ([backbone] if backbone is not None else [])
    parameters = sum(compiled.device_bytes((p.state.params, p.state.frozen), mesh) for p in parts)
    if backbone is None:
        parameters += compiled.device_bytes(_frozen(run, config), mesh)
    return _Held(parameters, sum(compiled.device_bytes(p.state.opt_state, mesh) for p in parts))


def _frozen(run: AllocatorRun, config: Any) -> Any:
    """Shapes of a backbone that does not learn, in the type that it computes in."""
    made: Any = family_of(config).Model
    model = nnx.eval_shape(lambda: made(config, dtype=run.dtype, rngs=nnx.Rngs(0)))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, run.dtype), nnx.state(model))


class _Work:
    """The parts of a step, compiled one after the other."""

    def __init__(
        self,
        run: AllocatorRun,
        topology: Topology,
        config: Any,
        spec: ProcessorSpec,
        asked: Asked,
        held: _Held,
        allocator: Setup,
        backbone: Setup | None,
    ):
        self.run, self.topology, self.spec = run, topology, spec
        self.asked, self.held = asked, held
        self.allocator, self.backbone = allocator, backbone
        self.mesh: Mesh = compiled.mesh_on(topology, run.mesh)
        self.answering = _answering_run(run, config, asked.rung)

    def part(self, name: str) -> Phase:
        """One of them.

        Raises:
          RunError: the compiler failed on it.
        """
        makers = {"allocator": self._allocator, "backbone": self._backbone, "draw": self._draw}
        makers |= {"prefill": self._prefill, "decode": self._decode, "gather": self._gather}
        return makers[name]()

    @property
    def gathered(self) -> bool:
        """Whether answers grow with weights that were gathered for all of them."""
        return "gather" in _parts(self.run, trains=False)["prefill"]

    def _gather(self) -> Phase:
        dtype = "float32" if self.backbone is not None else self.run.dtype
        part = compile_gathering(self.answering, self.mesh, dtype=dtype)
        work = work_of(self.topology, part.compiled, part.attention)
        memory = self._memory(part.compiled, 0)  # what it makes is with the temporaries
        return Phase(name="gather", contents=part.contents, memory=memory, **work)

    def _prefill(self) -> Phase:
        run, asked = self.run, self.asked
        contents = self._contents(asked.packs[0], asked.size.num_tokens)
        pack = _blank(asked.rung, self.spec, self.run)
        part = compile_prefill(self.answering, pack, contents, self.mesh, gathered=self.gathered)
        return self._answer("prefill", part, times=-(-len(asked.packs) // run.mesh.ranks))

    def _decode(self) -> Phase:
        run, asked = self.run, self.asked
        rows = min(asked.packs[0] * run.rollouts, ROWS[-1])
        contents = self._contents(rows, asked.size.num_tokens)
        part = compile_decode(
            self.answering,
            contents,
            self.mesh,
            new_tokens=run.max_new_tokens,
            gathered=self.gathered,
        )
        fullest = asked.packs[:: run.mesh.ranks]  # of those that are answered together
        turns = sum(-(-n * run.rollouts // ROWS[-1]) for n in fullest)
        return self._answer("decode", part, times=turns * run.max_new_tokens)

    def _draw(self) -> Phase:
        run, clips = self.run, self.run.clips_per_pack
        packs = -(-run.prompts // clips)
        part = compile_drawing(self.allocator, run, self.mesh)
        state = self.allocator.state
        inputs = part.argument_bytes - compiled.device_bytes(
            (state.params, state.frozen), self.mesh
        )
        ranks = run.mesh.ranks
        where = f" in each of {ranks} packs" if ranks > 1 else ""
        return Phase(
            name="draw",
            contents=f"{run.allocations} allocations of {clips} clips{where}",
            times=-(-packs // ranks),
            memory=self._memory(part, max(inputs, 0)),
            **work_of(self.topology, part, temporal_flops(run)),
        )

    def _allocator(self) -> Phase:
        run, clips = self.run, self.run.clips_per_pack
        packs = -(-run.prompts // run.updates // clips)
        return self._update(
            "allocator",
            self.allocator,
            decisions(run),
            packs=packs,
            contents=f"an update of {packs} packs of {clips} clips",
            attention=3 * temporal_flops(run),
            times=run.updates,
        )

    def _backbone(self) -> Phase:
        run, asked, settings = self.run, self.asked, self.run.backbone_training
        assert self.backbone is not None
        assert settings is not None
        packs = -(-len(asked.trained) // run.mesh.ranks) * run.mesh.ranks
        count, length = asked.trained[0], asked.size.num_tokens + run.max_new_tokens
        learning = dataclasses.replace(self.answering, remat=settings.remat)
        factors = passes(self.backbone.state.params, self.backbone.state.frozen)
        attention = attention_flops(learning, self._contents(count, length), factors)
        return self._update(
            "backbone",
            self.backbone,
            _rollouts(asked.trained_rung, self.spec, run),
            packs=packs,
            contents=f"an update of {packs} packs of {count} answers",
            attention=attention / (run.mesh.tensor * run.mesh.sequence),
            times=run.updates / settings.every,
        )

    def _contents(self, count: int, length: int) -> Contents:
        return Contents(grids=self.asked.grids * count, lengths=(length,) * count, scored=count)

    def _answer(self, name: str, part: Answering, *, times: float) -> Phase:
        inputs = part.compiled.argument_bytes - part.parameters
        work = work_of(self.topology, part.compiled, part.attention)
        memory = self._memory(part.compiled, inputs)
        if self.gathered:  # the shares stay beside the copy
            memory = memory._replace(parameters=memory.parameters + part.parameters)
        return Phase(name=name, contents=part.contents, times=times, memory=memory, **work)

    def _update(
        self,
        name: str,
        learner: Setup,
        batch: Batch,
        *,
        packs: int,
        contents: str,
        attention: float,
        times: float,
    ) -> Phase:
        step = compiled.compile_step(learner, batch, self.mesh, packs=packs)
        inputs = max(step.argument_bytes - compiled.device_bytes(learner.state, self.mesh), 0)
        work = work_of(self.topology, step, attention, packs // self.run.mesh.ranks)
        memory = self._memory(step, inputs)
        return Phase(name=name, contents=contents, times=times, memory=memory, **work)

    def _memory(self, part: compiled.Compiled, inputs: int) -> Memory:
        return Memory(
            *self.held,
            packs=inputs,
            activations=0,
            other=part.temporary_bytes,
            limit=memory_limit(self.topology),
        )


def _answering_run(run: AllocatorRun, config: Any, rung: Rung) -> Run:
    """The backbone of a run as supervised training would have it: model, types and mesh."""
    return Run(
        name=run.name,
        model=config,
        data=(Rows(path=run.data.path),),
        policies={"native": 1.0},
        ladder=(rung,),
        optimizer=run.optimizer,
        schedule=run.schedule,
        checkpoint=run.checkpoint,
        mesh=run.mesh,
        accumulation=run.mesh.ranks,
        dtype=run.dtype,
    )


def _blank(rung: Rung, spec: ProcessorSpec, run: AllocatorRun) -> Pack:
    """A pack of the shapes that prompts about clips have."""
    frames = spec.temporal_patch_size if run.wire == "pairs" else 1
    return empty_pack(rung, spec, frames=frames)


def _rollouts(rung: Rung, spec: ProcessorSpec, run: AllocatorRun) -> TokenDecisions:
    numbers = np.zeros(rung.max_tokens, np.float32)
    return TokenDecisions(_blank(rung, spec, run), numbers, numbers)

"""What a plan says.

Bytes are of one device; seconds and FLOPs are of one step.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple


class Memory(NamedTuple):
    """Bytes of one device.

    Attributes:
      parameters: trained and frozen.
      optimiser: its state.
      packs: what is read.
      activations: kept for the backward pass of one pack, before the compiler saves some.
      other: gradients and temporaries, what else the compiler asks for; None where nothing was
        compiled.
      limit: that there are.
    """

    parameters: int
    optimiser: int
    packs: int
    activations: int
    other: int | None
    limit: int

    @property
    def total(self) -> int:
        """Of all."""
        return sum(self[:4]) + (self.other or 0)

    @property
    def spare(self) -> int:
        """What is left; negative is what is missing."""
        return self.limit - self.total

    @property
    def fits(self) -> bool | None:
        """Whether it does; None where that is not known."""
        if self.spare < 0:
            return False
        return None if self.other is None else True

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        return self._asdict() | {"total": self.total, "spare": self.spare, "fits": self.fits}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """What a part of answering takes, or an update where a step has others beside it.

    Attributes:
      name: `prefill`, encoding included, `decode`; `allocator` or `backbone`, which learns;
        `gather`, of weights for all answers of a step.
      contents: what one run of it does.
      times: runs of it in a step, where a step has some.
      memory: of a device; packs are the prompts, or the cache.
      device_flops, memory_traffic, sent, seconds, step_s: of one run, as in `Plan`.
    """

    name: str
    contents: str
    times: float = 1.0
    memory: Memory
    device_flops: float | None
    memory_traffic: float | None
    sent: Mapping[str, float]
    seconds: Mapping[str, float]
    step_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        return dataclasses.asdict(self) | {"memory": self.memory.to_dict()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a step takes.

    Attributes:
      name: of the run.
      topology, slice_name: names of the machines.
      chips, devices, hosts: how many.
      mesh: devices along each axis.
      packs_per_step: of the run on that mesh.
      rung: patches and tokens of the pack that was compiled, the largest.
      views: that it is taken to hold.
      memory: of a device.
      model_flops: of a step on all chips, without what is computed again.
      device_flops: that a device computes in a step, attention included; None where nothing came
        out of the compiler, as below.
      memory_traffic: bytes that a device reads and writes in a step.
      sent: bytes that a device sends in a step, by kind of exchange and axes of the mesh.
      seconds: least time of products, memory and exchanges; the step takes the longest of them at
        least, and their sum at most as far as these are counted.
      step_s: the longest.
      mfu: model FLOPs of that time, as a share of the chips' peak.
      phases: of answering, those that were asked for.
      compile_s: what this took.
      proposals: what would fit, or nothing.
      notes: what is not counted.
    """

    name: str
    topology: str
    slice_name: str
    chips: int
    devices: int
    hosts: int
    mesh: Mapping[str, int]
    packs_per_step: int
    rung: tuple[int, int]
    views: str
    memory: Memory
    model_flops: float
    device_flops: float | None
    memory_traffic: float | None
    sent: Mapping[str, float]
    seconds: Mapping[str, float]
    step_s: float | None
    mfu: float | None
    phases: tuple[Phase, ...]
    compile_s: float
    proposals: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool | None:
        """Whether training does; None where that is not known."""
        return self.memory.fits

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        return dataclasses.asdict(self) | {
            "memory": self.memory.to_dict(),
            "phases": {phase.name: phase.to_dict() for phase in self.phases},
            "fits": self.fits,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllocatorPlan:
    """What a step of training by rewards takes.

    Attributes:
      name, topology, slice_name, chips, devices, hosts, mesh: as in `Plan`.
      prompts: of a step.
      rollouts: answers of a step.
      prompt: what each is taken to show.
      memory: of a device, what is there all the time: models and optimisers.
      phases: that were compiled; their memory has `memory` in it.
      step_s: least time of all of them, one after the other; None where one is missing.
      steps: of the run.
      feature_bytes: that the features of one such clip take on disk.
      compile_s: what this took.
      notes: what is not counted, and what was changed.
    """

    name: str
    topology: str
    slice_name: str
    chips: int
    devices: int
    hosts: int
    mesh: Mapping[str, int]
    prompts: int
    rollouts: int
    prompt: str
    memory: Memory
    phases: tuple[Phase, ...]
    step_s: float | None
    steps: int
    feature_bytes: int
    compile_s: float
    notes: tuple[str, ...]

    @property
    def hours(self) -> float | None:
        """Of the run, at the least."""
        return None if self.step_s is None else self.steps * self.step_s / 3600

    @property
    def fits(self) -> bool | None:
        """Whether all that was compiled does; None where that is not known."""
        verdicts = [self.memory.fits, *(phase.memory.fits for phase in self.phases)]
        if False in verdicts:
            return False
        return True if self.phases else None

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        return dataclasses.asdict(self) | {
            "memory": self.memory.to_dict(),
            "phases": {phase.name: phase.to_dict() for phase in self.phases},
            "hours": self.hours,
            "fits": self.fits,
        }

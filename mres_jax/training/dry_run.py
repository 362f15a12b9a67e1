"""What a run will take, before it is run: data, parameters, memory, FLOPs. Nothing is trained.

The data are planned and a few packs read; the model exists as shapes alone.
"""

import collections
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from mres_jax.config import Run
from mres_jax.data.packing import empty_pack
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import Pack, Rung
from mres_jax.training.flops import flops_counter, passes
from mres_jax.training.input.documents import PATCH_CLASSES
from mres_jax.training.input.epochs import Epoch
from mres_jax.training.input.held_out import open_held_out
from mres_jax.training.learner import Share, Step
from mres_jax.training.meshes import check_model
from mres_jax.training.setup import Setup, open_run, set_up_abstractly

READ = 4  # packs, for FLOPs and for the rate of reading
SMALL = 100e6  # parameters; of a larger model only the step of the largest rung is compiled


@dataclasses.dataclass(frozen=True, kw_only=True)
class RungUse:
    """A rung in the first epoch.

    Attributes:
      packs: of this rung.
      temporary_bytes: that its step needs beside the state and the pack, gradients included, as
        compiled for `device`; None where it was not compiled.
    """

    rung: Rung
    packs: int
    temporary_bytes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a run will take.

    Attributes:
      name: of the run.
      steps, packs_per_step: of the run.
      epochs: passes over the data that these are.
      examples, packs: of the first epoch.
      patches, tokens: that its examples have.
      patch_efficiency, token_efficiency: share of its buffers that they fill.
      flops_per_step: model FLOPs, a mean over the first packs.
      packs_per_s: read by one thread, measured on a few.
      parameters: by part, trained and frozen.
      state_bytes: of parameters, optimiser state and, where gradients of several packs are added
        up, of their sum.
      rungs: that occur.
      device: that the step was compiled for.
    """

    name: str
    steps: int
    packs_per_step: int
    epochs: float
    examples: int
    packs: int
    patches: int
    tokens: int
    patch_efficiency: float
    token_efficiency: float
    flops_per_step: float
    packs_per_s: float
    parameters: Mapping[str, Mapping[str, int]]
    state_bytes: Mapping[str, int]
    rungs: tuple[RungUse, ...]
    device: str

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        return dataclasses.asdict(self)

    @property
    def peak_bytes(self) -> int:
        """State and the largest temporaries that are known."""
        most = max((use.temporary_bytes or 0 for use in self.rungs), default=0)
        return sum(self.state_bytes.values()) + most


def dry_run(run: Run, *, log: Callable[[str], None] = lambda line: None) -> DryRun:
    """Plans a run and compiles its step for this process's device.

    Args:
      run: the settings.
      log: takes a line.

    Raises:
      ConfigError: what `train` would refuse; only a mesh need not fit the devices that are here.
    """
    check_model(run.mesh, run.model, run.ladder)
    tokenizer, spec, plan, schedule = open_run(run, log=log)
    epoch = plan(0)
    if run.evaluate is not None:
        limit = run.model.text_config.max_position_embeddings
        open_held_out(run, spec, tokenizer, max_context=limit, log=log)
    setup = set_up_abstractly(run, schedule)
    flops, rate = _read(run, setup, epoch)
    steps = schedule.num_steps or 0
    return DryRun(
        name=run.name,
        steps=steps,
        packs_per_step=run.accumulation,
        epochs=steps * run.accumulation / len(epoch),
        examples=sum(len(members) for members in epoch.members),
        packs=len(epoch),
        **_fullness(epoch),
        flops_per_step=run.accumulation * flops,
        packs_per_s=rate,
        parameters=_parameters(setup),
        state_bytes=_state_bytes(run, setup),
        rungs=tuple(_rungs(run, setup, epoch, spec, log)),
        device=jax.devices()[0].device_kind,
    )


def _fullness(epoch: Epoch) -> dict[str, Any]:
    patches, tokens = (int(sum(size[i] for size in epoch.sizes)) for i in (0, 1))
    patch_room = sum(rung.max_patches for rung in epoch.rungs)
    token_room = sum(rung.max_tokens for rung in epoch.rungs)
    return {
        "patches": patches,
        "tokens": tokens,
        "patch_efficiency": patches / max(patch_room, 1),
        "token_efficiency": tokens / max(token_room, 1),
    }


def _read(run: Run, setup: Setup, epoch: Epoch) -> tuple[float, float]:
    """Mean model FLOPs of the first packs, and packs/s."""
    count = flops_counter(run.model, passes(setup.state.params, setup.state.frozen))
    places = range(min(READ, len(epoch)))
    start = time.perf_counter()
    packs = [epoch[place].pack for place in places]
    seconds = time.perf_counter() - start
    return float(np.mean([count(pack) for pack in packs])), len(packs) / seconds


def _parameters(setup: Setup) -> dict[str, dict[str, int]]:
    """Part -> `trained` and `frozen`."""
    parts: dict[str, dict[str, int]] = collections.defaultdict(lambda: {"trained": 0, "frozen": 0})
    for kind, state in (("trained", setup.state.params), ("frozen", setup.state.frozen)):
        for path, variable in nnx.to_flat_state(state):
            part = str(path[1]) if path[0] == "model" else "auxiliary heads"
            parts[part][kind] += math.prod(variable.shape)
    return dict(parts)


def _state_bytes(run: Run, setup: Setup) -> dict[str, int]:
    state = setup.state
    sizes = {
        "trained parameters": _bytes(state.params),
        "frozen parameters": _bytes(state.frozen),
        "optimiser state": _bytes(state.opt_state),
    }
    if run.accumulation > 1:  # float32
        sizes["sum of gradients"] = 4 * sum(math.prod(x.shape) for x in _leaves(state.params))
    return sizes


def _rungs(
    run: Run, setup: Setup, epoch: Epoch, spec: ProcessorSpec, log: Callable[[str], None]
) -> Sequence[RungUse]:
    counts = sorted(collections.Counter(epoch.rungs).items())
    is_small = sum(math.prod(x.shape) for x in _leaves(setup.state[1:3])) < SMALL
    uses = []
    for rung, packs in counts:
        temporary = None
        if is_small or rung == counts[-1][0]:
            log(f"compiling the step of {rung.max_patches} patches, {rung.max_tokens} tokens")
            temporary = _temporary_bytes(run, setup, _shapes(run, rung, spec))
        uses.append(RungUse(rung=rung, packs=packs, temporary_bytes=temporary))
    return uses


def _shapes(run: Run, rung: Rung, spec: ProcessorSpec) -> Pack:
    names = sorted(PATCH_CLASSES) if run.aux_loss_weight else ()
    pack = empty_pack(rung, spec, label_names=names)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), pack)


def _temporary_bytes(run: Run, setup: Setup, pack: Pack) -> int | None:
    step = Step(setup.graphdef, setup.optimizer, average=run.loss_average)
    share = Share(np.float32(1), np.float32(1))
    lowered = step.lower(setup.state, pack, share, is_whole=run.accumulation == 1)
    memory = lowered.compile().memory_analysis()
    return None if memory is None else int(memory.temp_size_in_bytes)


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in _leaves(tree))


def _leaves(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree)

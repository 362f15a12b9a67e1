"""The step of a run, compiled for a slice that is not here."""

import collections
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from mres_jax.config import MeshConfig
from mres_jax.errors import RunError
from mres_jax.nn import pack_sharding, state_shardings
from mres_jax.training.learner import Average, Batch, Share, Step
from mres_jax.training.meshes import mesh_of
from mres_jax.training.planning.hlo import Work, read_work
from mres_jax.training.planning.topologies import Topology
from mres_jax.training.setup import Setup

INSTALL = "pip install 'mres-jax[aot]'"
# libtpu 0.0.51 does this to some programs for chips with SparseCores: v5p, v6e.
UNREAD = (
    "the compiler made the program but cannot write it down, so its FLOPs, exchanges and times are "
    "not known; its memory is."
)
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler says of a program, per device.

    Attributes:
      argument_bytes: state and packs, or a model and what it is asked.
      temporary_bytes: beside them while the step runs, with the sum of gradients that packs which
        follow each other are added to; what the compiler asks for where that is more than there is.
      work: of a training step, of one micro-batch: a pack for each rank; None where it does not
        fit, since nothing comes out then, and where it cannot be read.
      sent: of it, bytes by kind of exchange and axes of the mesh.
    """

    argument_bytes: int
    temporary_bytes: int
    work: Work | None
    sent: Mapping[str, float]


def load_compiler() -> None:
    """Makes the TPU compiler ready on a machine without TPU; before the first use of a device.

    Raises:
      RunError: it is not installed, with the command that installs it.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise RunError(
            f"plan: the TPU compiler is not installed. Install it with {INSTALL}; it needs no TPU."
        )
    os.environ |= {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",  # it would look for the machine's description in a cloud
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3",
    }
    jax.config.update("jax_platforms", "cpu")


def mesh_on(topology: Topology, config: MeshConfig) -> Mesh:
    """Returns the mesh over the devices of a slice that is not here."""
    from jax.experimental import topologies

    described = topologies.get_topology_desc(platform="tpu", topology_name=topology.name)
    return mesh_of(config, described.devices)


def compile_step(
    setup: Setup, pack: Batch, mesh: Mesh, *, packs: int, average: Average = "token"
) -> Compiled:
    """Compiles the training step for the devices of a mesh.

    Args:
      setup: abstract.
      pack: shapes of one pack.
      mesh: of devices that may not be here.
      packs: of a step, on all ranks.
      average: see `learner.shares`.
    """
    ranks = mesh.shape["data"] * mesh.shape["fsdp"]
    state = placed(setup.state, state_shardings(setup.state, mesh))
    share = Share(*(jax.ShapeDtypeStruct((), np.float32),) * 2)
    batches, parts = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((ranks, *x.shape), x.dtype, sharding=pack_sharding(mesh)),
        (pack, share),
    )
    step = Step(setup.graphdef, setup.optimizer, average=average, mesh=mesh)
    is_whole = packs == ranks
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        lowered = step.lower(state, batches, parts, is_whole=is_whole)
    arguments = bytes_on_device((state, batches))
    if is_whole:
        return compile_lowered(lowered, mesh, arguments=arguments)
    return compile_lowered(
        lowered,
        mesh,
        arguments=arguments,
        idle=bytes_on_device(state.opt_state),
        sums=device_bytes(_float32(setup.state.params), mesh),
    )


def compile_lowered(
    lowered: Any,
    mesh: Mesh,
    *,
    arguments: int,
    idle: int = 0,
    sums: int = 0,
    turns: int | None = None,
) -> Compiled:
    """Compiles a program for the devices of a mesh.

    Args:
      lowered: the program.
      mesh: that it is for.
      arguments: bytes on a device of what is there while it runs, `sums` left out.
      idle: of them, those that are no arguments of the program.
      sums: bytes on a device of arguments that count as temporaries.
      turns: see `read_work`.

    Raises:
      RunError: the compiler failed, for another reason than memory; or how long the program takes
        depends on data.
    """
    try:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        temporary = _asked_bytes(str(error), arguments=arguments - idle, sums=sums)
        if temporary is None:
            reason = str(error).strip().partition("\n")[0]
            raise RunError(
                f"plan: the compiler of this slice failed on the program, which says nothing about "
                f"whether it would fit: {reason[:200]} Try another topology, mesh or ladder."
            ) from error
        return Compiled(argument_bytes=arguments, temporary_bytes=temporary, work=None, sent={})
    memory: Any = program.memory_analysis()
    try:
        work = read_work(program.as_text() or "", turns=turns)
    except jax.errors.JaxRuntimeError:  # the program is there, but not its text: `UNREAD`
        work = None
    except ValueError as error:
        raise RunError(
            f"plan: {error} Attention turns as its data say where a pack is longer than the "
            "kernels take; a TPU would be slow at it. Give the run a ladder with shorter rungs, or "
            "plan it for smaller pictures."
        ) from error
    beside = memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    beside += max(memory.output_size_in_bytes - memory.alias_size_in_bytes, 0)
    return Compiled(
        argument_bytes=max(memory.argument_size_in_bytes + idle - sums, arguments),
        temporary_bytes=int(beside) + sums,
        work=work,
        sent={} if work is None else _by_axes(work, mesh),
    )


def placed(tree: Any, where: Any) -> Any:
    """Shapes of a tree with their shardings."""
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, where
    )


def device_bytes(tree: Any, mesh: Mesh | AbstractMesh) -> int:
    """Bytes that each device holds of a tree of parameters or optimiser state."""
    return bytes_on_device(placed(tree, state_shardings(tree, mesh)))


def bytes_on_device(tree: Any) -> int:
    """Bytes that each device holds of shapes with shardings."""

    def size(x: Any) -> int:
        return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize

    return sum(size(x) for x in jax.tree.leaves(tree))


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float32), tree)


def _asked_bytes(message: str, *, arguments: int, sums: int) -> int | None:
    """Temporaries that a program would need, out of the compiler's refusal, with `sums` in them.

    It names either all that the program holds, or the temporaries alone.
    """
    everything = re.search(r"Used ([\d.]+)([KMG]?) of [\d.]+[KMG]? hbm", message)
    if everything:
        return max(_bytes(everything) - arguments, 0)
    alone = re.search(r"required for HLO temporaries \(([\d.]+)([KMG]?)\)", message)
    return _bytes(alone) + sums if alone else None


def _bytes(found: re.Match[str]) -> int:
    return round(float(found[1]) * UNITS[found[2]])


def _by_axes(work: Work, mesh: Mesh) -> dict[str, float]:
    """`all-gather over fsdp` -> bytes."""
    sizes = tuple(mesh.shape.values())
    sent: dict[str, float] = collections.defaultdict(float)
    for (kind, group), size in work.sent.items():
        places = np.array(np.unravel_index(np.array(group), sizes))
        axes = [n for n, row in zip(mesh.axis_names, places, strict=True) if len(set(row)) > 1]
        sent[f"{kind} over {' x '.join(map(str, axes))}"] += size
    return dict(sent)

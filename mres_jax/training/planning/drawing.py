"""The drawing of allocations, compiled for a slice that is not here."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mres_jax.config import AllocatorRun
from mres_jax.nn import pack_sharding, state_shardings
from mres_jax.resolution.allocator.config import TOKENS_PER_FRAME
from mres_jax.resolution.allocator.features import ClipFeatures
from mres_jax.training.allocator.draws import FRAME_STEP, QUESTION_STEP, Clips, draw
from mres_jax.training.allocator.learner import Decisions
from mres_jax.training.planning.compiled import (
    Compiled,
    bytes_on_device,
    compile_lowered,
    placed,
)
from mres_jax.training.setup import Setup

REJECTIONS = 4  # turns of the loop that draws gamma variables again, until all are accepted


def compile_drawing(learner: Setup, run: AllocatorRun, mesh: Mesh) -> Compiled:
    """All allocations of a pack of clips, one pack for each rank of a mesh.

    Args:
      learner: the allocator, abstract.
      run: its settings.
      mesh: of devices that may not be here.

    Raises:
      RunError: the compiler failed.
    """
    state = (learner.state.params, learner.state.frozen)
    params, frozen = placed(state, state_shardings(state, mesh))
    words = jax.ShapeDtypeStruct((run.clips_per_pack, 2), np.uint32)
    clips = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            (run.mesh.ranks, *x.shape), x.dtype, sharding=pack_sharding(mesh)
        ),
        Clips(decisions(run).clips, words),
    )
    whole = NamedSharding(mesh, PartitionSpec())
    seed = jax.ShapeDtypeStruct((), np.uint32, sharding=whole)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        lowered = draw.lower(learner.graphdef, params, frozen, clips, seed, run.allocations, True)
    arguments = bytes_on_device((params, frozen, clips))
    return compile_lowered(lowered, mesh, arguments=arguments, turns=REJECTIONS)


def decisions(run: AllocatorRun) -> Decisions:
    """Shapes of a pack of clips; a question has as many tokens as questions come in."""
    network, clips = run.network, run.clips_per_pack
    frames = -(-clips * run.data.max_frames // FRAME_STEP) * FRAME_STEP
    features = ClipFeatures(
        frames=jax.ShapeDtypeStruct((frames, TOKENS_PER_FRAME, network.frame_size), np.float32),
        segment_ids=jax.ShapeDtypeStruct((frames,), np.int32),
        question=jax.ShapeDtypeStruct((clips, QUESTION_STEP, network.question_size), np.float32),
        question_mask=jax.ShapeDtypeStruct((clips, QUESTION_STEP), np.bool_),
    )
    numbers = jax.ShapeDtypeStruct((run.allocations, frames), np.float32)
    mask = jax.ShapeDtypeStruct((run.allocations, frames), np.bool_)
    return Decisions(features, numbers, numbers, numbers, mask)


def temporal_flops(run: AllocatorRun) -> float:
    """Of the kernels of one forward pass over a pack of clips; the compiler counts the rest."""
    network, frames = run.network, run.data.max_frames
    width = network.num_temporal_heads * network.head_dim
    pairs = run.clips_per_pack * TOKENS_PER_FRAME * frames**2
    return 4.0 * network.num_layers * width * pairs

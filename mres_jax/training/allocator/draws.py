"""Allocations drawn from an allocator, with the log-density that each was drawn with.

Axes: i clips, n packed frames, m allocations of a clip, q tokens of a question.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Key

from mres_jax.inference.sampling import request_words, row_keys
from mres_jax.nn import each_pack, gather, on_ranks
from mres_jax.resolution.allocator.beta import Beta
from mres_jax.resolution.allocator.features import ClipFeatures, pack_features
from mres_jax.resolution.allocator.network import AllocatorNetwork, frame_keys
from mres_jax.training.meshes import rank_count

FRAME_STEP, QUESTION_STEP = 8, 32  # lengths are multiples: few compiles
Features = tuple[np.ndarray, np.ndarray]  # of the frames of a clip, and of its question


class Drawn(NamedTuple):
    """What was drawn for the frames of some clips, one behind another.

    Attributes:
      logits: of the actions, `[m n]`.
      logprobs: log-density of each, nats, `[m n]`.
      scales: per side, `[m n]`.
      means: scale of each frame's mean action, `[n]`.
      alpha: of each frame's distribution, `[n]`.
      beta: likewise.
    """

    logits: Any
    logprobs: Any
    scales: Any
    means: Any
    alpha: Any
    beta: Any


class Clips(NamedTuple):
    """Clips that are looked at together; a pytree.

    Attributes:
      features: of them.
      words: of their names, `uint32 [i 2]`: random keys come from them.
    """

    features: ClipFeatures
    words: Any


def pack_clips(
    features: Sequence[Features], *, max_clips: int, least: tuple[int, int] = (0, 0)
) -> ClipFeatures:
    """Returns features in buffers whose lengths come in steps.

    Args:
      features: of clips.
      max_clips: that the buffers hold.
      least: frames, and tokens of a question, that they hold at the least.
    """
    frames, question = map(max, _lengths(features), least)
    return pack_features(
        features,
        max_frames=-(-frames // FRAME_STEP) * FRAME_STEP,
        max_clips=max_clips,
        max_question=-(-question // QUESTION_STEP) * QUESTION_STEP,
    )


def draw_allocations(
    learner: tuple[Any, Any, Any],
    features: Sequence[Features],
    names: Sequence[str],
    *,
    count: int,
    seed: int,
    clips_per_pack: int,
    mesh: Mesh | None = None,
) -> Drawn:
    """Returns `count` allocations of each clip, on the host, frames of all clips behind each other.

    Args:
      learner: graphdef, params and frozen of an `AllocatorLearner`.
      features: of the clips of the step.
      names: of the clips; what is drawn depends on (name, allocation, seed) and nothing beside it.
      count: allocations of each.
      seed: of the run.
      clips_per_pack: clips that are looked at together, on each rank of a mesh.
      mesh: where the learner lies, if not on one device.
    """
    packs = _packs(features, names, clips_per_pack)
    ranks, parts = 1 if mesh is None else rank_count(mesh), []
    for at in range(0, len(packs), ranks):
        some = packs[at : at + ranks]
        placed = some[0] if mesh is None else on_ranks(some, mesh)
        drawn = jax.device_get(draw(*learner, placed, np.uint32(seed), count, mesh is not None))
        for rank, pack in enumerate(some):
            frames = np.count_nonzero(pack.features.segment_ids)
            of_rank = drawn if mesh is None else jax.tree.map(lambda x, r=rank: x[r], drawn)
            parts.append(jax.tree.map(lambda x, n=frames: x[..., :n], of_rank))
    return jax.tree.map(lambda *x: np.concatenate(x, axis=-1), *parts)


@functools.partial(jax.jit, static_argnums=(0, 5, 6))
def draw(graphdef, params, frozen, clips: Clips, seed, count: int, over_ranks: bool) -> Drawn:
    """What the above does with a pack, or with one for each rank of a mesh on a leading axis."""
    network = nnx.merge(graphdef, params, frozen).network
    if over_ranks:
        gather(network)
        return each_pack(lambda clips: _drawn(network, clips, seed, count))(clips)
    return _drawn(network, clips, seed, count)


def _drawn(network: AllocatorNetwork, clips: Clips, seed: Array, count: int) -> Drawn:
    policy = network(clips.features).policy
    segment_ids = jnp.asarray(clips.features.segment_ids)

    def one(allocation: Array) -> tuple[Array, Array]:
        keys = _clip_keys(seed, clips.words, allocation)
        logits = policy.draw(frame_keys(keys, segment_ids))
        return logits, Beta(*policy).log_density(logits)

    logits, logprobs = jax.lax.map(one, jnp.arange(count, dtype=jnp.uint32))
    scales = network.scale(jax.nn.sigmoid(logits).reshape(-1)).reshape(logits.shape)
    means = network.scale(policy.mean())
    return Drawn(logits, logprobs, scales, means, policy.alpha, policy.beta)


def _packs(features: Sequence[Features], names: Sequence[str], size: int) -> list[Clips]:
    """Clips in their order, so many together, all packs of one shape."""
    starts = range(0, len(features), size)
    lengths = [_lengths(features[at : at + size]) for at in starts]
    least = max(frames for frames, _ in lengths), max(question for _, question in lengths)
    packs = []
    for at in starts:
        words = np.zeros((size, 2), np.uint32)
        some = [request_words(name) for name in names[at : at + size]]
        words[: len(some)] = some
        clips = pack_clips(features[at : at + size], max_clips=size, least=least)
        packs.append(Clips(clips, words))
    return packs


def _lengths(features: Sequence[Features]) -> tuple[int, int]:
    """Frames of some clips, and tokens of their longest question."""
    return sum(len(clip) for clip, _ in features), max(len(asked) for _, asked in features)


def _clip_keys(seed: Array, words: Array, allocation: Array) -> Key[Array, " i"]:
    samples = jnp.full(words.shape[0], allocation, jnp.uint32)
    return row_keys(jax.random.key(seed), words, samples)

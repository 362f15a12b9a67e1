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
from jaxtyping import Array, Key

from mres_jax.inference.sampling import request_words, row_keys
from mres_jax.resolution.allocator.beta import Beta
from mres_jax.resolution.allocator.features import ClipFeatures, pack_features
from mres_jax.resolution.allocator.network import frame_keys

FRAME_STEP, QUESTION_STEP = 8, 32  # lengths are multiples: few compiles
Features = tuple[np.ndarray, np.ndarray]  # of the frames of a clip, and of its question


class Drawn(NamedTuple):
    """What was drawn for the packed frames of some clips.

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


def pack_clips(features: Sequence[Features], *, max_clips: int) -> ClipFeatures:
    """Returns features in buffers whose lengths come in steps."""
    frames = sum(len(clip) for clip, _ in features)
    question = max(len(question) for _, question in features)
    return pack_features(
        features,
        max_frames=-(-frames // FRAME_STEP) * FRAME_STEP,
        max_clips=max_clips,
        max_question=-(-question // QUESTION_STEP) * QUESTION_STEP,
    )


def draw_allocations(
    learner: tuple[Any, Any, Any],
    clips: ClipFeatures,
    names: Sequence[str],
    *,
    count: int,
    seed: int,
) -> Drawn:
    """Returns `count` allocations of each clip, on the host.

    Args:
      learner: graphdef, params and frozen of an `AllocatorLearner`.
      clips: of the step.
      names: of the clips; what is drawn depends on (name, allocation, seed) and nothing beside it.
      count: allocations of each.
      seed: of the run.
    """
    rows = clips.question.shape[0]
    words = np.zeros((rows, 2), np.uint32)
    words[: len(names)] = [request_words(name) for name in names]
    return jax.device_get(_draw(*learner, clips, words, np.uint32(seed), count=count))


@functools.partial(jax.jit, static_argnums=0, static_argnames="count")
def _draw(graphdef, params, frozen, clips: ClipFeatures, words, seed, *, count: int) -> Drawn:
    network = nnx.merge(graphdef, params, frozen).network
    policy = network(clips).policy
    segment_ids = jnp.asarray(clips.segment_ids)

    def one(allocation: Array) -> tuple[Array, Array]:
        keys = _clip_keys(seed, words, allocation)
        logits = policy.draw(frame_keys(keys, segment_ids))
        return logits, Beta(*policy).log_density(logits)

    logits, logprobs = jax.lax.map(one, jnp.arange(count, dtype=jnp.uint32))
    scales = network.scale(jax.nn.sigmoid(logits).reshape(-1)).reshape(logits.shape)
    means = network.scale(policy.mean())
    return Drawn(logits, logprobs, scales, means, policy.alpha, policy.beta)


def _clip_keys(seed: Array, words: Array, allocation: Array) -> Key[Array, " i"]:
    samples = jnp.full(words.shape[0], allocation, jnp.uint32)
    return row_keys(jax.random.key(seed), words, samples)

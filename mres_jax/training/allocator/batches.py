"""A step's questions -> what the allocator learns from at a time.

Axes: m allocations, n packed frames.
"""

from collections.abc import Sequence

import numpy as np

from mres_jax.config import AllocatorRun
from mres_jax.training.allocator.advantages import Judged
from mres_jax.training.allocator.draws import Drawn, Features, pack_clips
from mres_jax.training.allocator.learner import Decisions
from mres_jax.training.allocator.measures import split_frames
from mres_jax.training.allocator.rollouts import Group


def pack_decisions(
    part: Sequence[int],
    groups: Sequence[Group],
    features: Sequence[Features],
    drawn: Drawn,
    judged: Judged,
    run: AllocatorRun,
) -> list[Decisions]:
    """Returns some questions in packs of so many clips; nothing is learnt from those not kept.

    These stay in their places, so that lengths do not depend on how many there are.

    Args:
      part: which questions.
      groups: all questions of the step.
      features: of them.
      drawn: their allocations.
      judged: their advantages.
      run: `clips_per_pack`.
    """
    logits, logprobs = split_frames(drawn.logits, groups), split_frames(drawn.logprobs, groups)
    batches = []
    for at in range(0, len(part), run.clips_per_pack):
        some = part[at : at + run.clips_per_pack]
        clips = pack_clips([features[i] for i in some], max_clips=run.clips_per_pack)
        width = len(clips.segment_ids)
        earned = judged.capo.allocations
        each = [np.broadcast_to(earned[i][:, None], logits[i].shape) for i in some]
        kept = [np.full(logits[i].shape, judged.kept[i], np.float32) for i in some]
        batches.append(
            Decisions(
                clips,
                _padded([logits[i] for i in some], width),
                _padded([logprobs[i] for i in some], width),
                _padded(each, width),
                _padded(kept, width) > 0,
            )
        )
    return batches


def _padded(parts: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Frames of several clips one behind another, `[m n]`."""
    whole = np.concatenate(parts, axis=1)
    return np.pad(whole, ((0, 0), (0, width - whole.shape[1]))).astype(np.float32)

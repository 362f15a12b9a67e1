"""Coarse features of clips and questions, packed into static buffers on the host.

Frames of all clips stand one behind another; questions have a row each, since they are short.
Axes: n packed frames, l tokens of a frame, d their width, i clips, q tokens of a question,
e their width.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mres_jax.errors import PackingError
from mres_jax.resolution.allocator.config import TOKENS_PER_FRAME


class ClipFeatures(NamedTuple):
    """What an allocator reads; a pytree, arrays of numpy or jax.

    Attributes:
      frames: float `[n l d]`.
      segment_ids: `int32 [n]`, clip of each frame, 1..i in order, 0 = padding.
      question: float `[i q e]`; row `j` belongs to clip `j + 1`.
      question_mask: `bool [i q]`, False where a question has ended.
    """

    frames: Any
    segment_ids: Any
    question: Any
    question_mask: Any


def pack_features(
    clips: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    max_frames: int | None = None,
    max_clips: int | None = None,
    max_question: int | None = None,
) -> ClipFeatures:
    """Returns features of several clips in one set of buffers.

    Args:
      clips: `(frames [t l d], question [q e])` of each clip, see `protocols.FeatureExtractor`.
      max_frames: frames that the buffers hold; as many as there are when None.
      max_clips: likewise clips.
      max_question: likewise tokens of a question.

    Raises:
      PackingError: features of the wrong shape, a clip without frames or question, or more than
        the buffers hold. `item` is the first at fault.
    """
    if not clips:
        raise PackingError("allocator: no clips to pack.")
    for index, (frames, question) in enumerate(clips):
        _check_clip(index, np.shape(frames), np.shape(question), clips)
    counts = [len(frames) for frames, _ in clips]
    lengths = [len(question) for _, question in clips]
    room = {
        "frames": (sum(counts), max_frames),
        "clips": (len(clips), max_clips),
        "question tokens": (max(lengths), max_question),
    }
    for name, (needed, most) in room.items():
        if most is not None and needed > most:
            raise PackingError(f"allocator: {needed} {name}, but the buffers hold {most}.")
    size, rows, columns = (needed if most is None else most for needed, most in room.values())
    first_frames, first_question = (np.asarray(x, np.float32) for x in clips[0])
    out = ClipFeatures(
        frames=np.zeros((size, *first_frames.shape[1:]), np.float32),
        segment_ids=np.zeros(size, np.int32),
        question=np.zeros((rows, columns, first_question.shape[1]), np.float32),
        question_mask=np.zeros((rows, columns), bool),
    )
    start = 0
    for index, (frames, question) in enumerate(clips):
        end = start + len(frames)
        out.frames[start:end], out.segment_ids[start:end] = frames, index + 1
        out.question[index, : len(question)] = question
        out.question_mask[index, : len(question)] = True
        start = end
    return out


def _check_clip(index: int, frames: tuple, question: tuple, clips: Sequence[Any]) -> None:
    first = tuple(np.shape(x)[1:] for x in clips[0])
    problem = None
    if len(frames) != 3 or len(question) != 2:
        problem = f"features {list(frames)} and {list(question)}; need [t l d] and [q e]"
    elif not frames[0] or not question[0]:
        problem = f"{frames[0]} frames and {question[0]} tokens of a question; need one of each"
    elif (frames[1:], question[1:]) != first:
        problem = f"features {list(frames)} and {list(question)} unlike those of clip 0"
    elif frames[1] != TOKENS_PER_FRAME:
        problem = f"{frames[1]} tokens per frame; an allocator reads {TOKENS_PER_FRAME}"
    if problem:
        error = PackingError(f"allocator: clip {index} has {problem}.")
        error.item = index
        raise error

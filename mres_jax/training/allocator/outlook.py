"""What a run will take, said before it starts: rollouts, features on disk, parameters."""

from collections.abc import Sequence
from typing import NamedTuple

from flax import nnx

from mres_jax.config import AllocatorRun, is_server
from mres_jax.data.rows import QuestionRow
from mres_jax.resolution.allocator.network import AllocatorNetwork
from mres_jax.resolution.allocator.store import num_parameters
from mres_jax.training.allocator.features import cache_bytes
from mres_jax.training.allocator.prompts import open_questions


class Outlook(NamedTuple):
    """Counts of a run.

    Attributes:
      questions: that are trained on.
      held_out: that are not.
      steps: of the run.
      rollouts_per_step: answers.
      parameters: of the allocator.
      max_frames: of all clips together at most; a video may turn out shorter.
      feature_bytes: of these on disk, float32.
      server: that answers; "" where the backbone is here.
    """

    questions: int
    held_out: int
    steps: int
    rollouts_per_step: int
    parameters: int
    max_frames: int
    feature_bytes: int
    server: str


def look_ahead(run: AllocatorRun) -> Outlook:
    """Returns the counts of a run, without its models and without decoding anything.

    Raises:
      MresError: rows that cannot be used.
    """
    rows = open_questions(run.data)
    frames = _frames([*rows.train, *rows.held_out], run.data.max_frames)
    network = nnx.eval_shape(lambda: AllocatorNetwork(run.network, rngs=nnx.Rngs(0)))
    return Outlook(
        questions=len(rows.train),
        held_out=len(rows.held_out),
        steps=run.schedule.num_steps or 0,
        rollouts_per_step=run.prompts * run.allocations * run.rollouts,
        parameters=num_parameters(network),
        max_frames=frames,
        feature_bytes=cache_bytes(frames, run.network.frame_size),
        server=str(run.backbone) if is_server(run.backbone) else "",
    )


def describe(name: str, outlook: Outlook) -> str:
    """Returns the counts as one line."""
    behind = f"; answered by {outlook.server}" if outlook.server else ""
    return (
        f"{name}: {outlook.questions:,} questions, {outlook.held_out:,} held out; "
        f"{outlook.steps:,} steps of {outlook.rollouts_per_step:,} rollouts; allocator of "
        f"{outlook.parameters:,} parameters; features of at most {outlook.max_frames:,} frames, "
        f"{outlook.feature_bytes / 1e6:,.1f} MB on disk{behind}"
    )


def _stills(row: QuestionRow, most: int) -> int:
    listed = (len(clip) for clip in row.clips if not isinstance(clip, str))
    return len(row.pictures) + sum(min(most, count) for count in listed)


def _frames(rows: Sequence[QuestionRow], most: int) -> int:
    files = (sum(isinstance(clip, str) for clip in row.clips) for row in rows)
    return sum(most * n + _stills(row, most) for n, row in zip(files, rows, strict=True))

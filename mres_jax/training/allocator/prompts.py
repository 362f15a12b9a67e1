"""Rows as an allocator and its backbone see them, and which of them a step asks."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from mres_jax.config import Questions
from mres_jax.data.rows import QuestionRow, read_questions
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.video import FrameSampling
from mres_jax.errors import ConfigError
from mres_jax.geometry import Extent
from mres_jax.protocols import Item, extent_of, frames_of
from mres_jax.resolution.allocator.units import Unit, units_of

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """One question with its pixels.

    Attributes:
      row: where it comes from.
      items: as the backbone gets them: under the wire format `stills` each frame is a picture.
      frames: all frames in order, as the eyes get them.
      units: what has a size of its own.
    """

    row: QuestionRow
    items: list[Item]
    frames: list[np.ndarray]
    units: list[Unit]

    @property
    def extents(self) -> list[Extent]:
        """Of the items."""
        return [extent_of(item) for item in self.items]

    @property
    def unit_extents(self) -> list[Extent]:
        """Of the units."""
        return [unit.extent for unit in self.units]


class Split(NamedTuple):
    """Rows that are trained on, and those that are not."""

    train: list[QuestionRow]
    held_out: list[QuestionRow]


def open_questions(data: Questions) -> Split:
    """Returns the rows of a run.

    Raises:
      ConfigError: none is left to train on.
      MresError: as `read_questions`.
    """
    rows = read_questions(data.path, folder=data.folder or None)
    left = len(rows) - data.held_out
    if left < 1:
        raise ConfigError(
            f"questions {data.path}: {len(rows)} rows, but held_out={data.held_out} leaves none to "
            "train on."
        )
    return Split(rows[:left], rows[left:])


def open_prompt(row: QuestionRow, data: Questions, spec: ProcessorSpec, *, wire: str) -> Prompt:
    """Returns a row with its pixels.

    Args:
      row: the question.
      data: how its clips are sampled.
      spec: of the backbone.
      wire: `stills` or `pairs`.

    Raises:
      BadRowError: a file that cannot be read.
    """
    sampling = FrameSampling.of(spec, fps=data.fps, max_frames=data.max_frames)
    items: list[Item] = row.items(sampling)
    frames = frames_of(items)
    if wire == "stills":
        items = [*frames]
    units = units_of([extent_of(item) for item in items], spec)
    return Prompt(row=row, items=items, frames=frames, units=units)


def rows_of_step(rows: Sequence[T], step: int, *, count: int, seed: int) -> list[T]:
    """Returns the rows of a step, from 1: a new order in every epoch, the same in every run.

    An epoch ends with its last whole step; where there are fewer rows than a step takes, each step
    has all of them, over and over.
    """
    if len(rows) < count:
        return [rows[i % len(rows)] for i in range(count)]
    steps = len(rows) // count
    epoch, place = divmod(step - 1, steps)
    order = np.random.default_rng([seed, epoch]).permutation(len(rows))
    return [rows[i] for i in order[place * count : (place + 1) * count]]

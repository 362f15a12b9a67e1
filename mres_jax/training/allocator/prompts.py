"""Rows as an allocator and its backbone see them, and which of them a step asks."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from mres_jax.config import Questions
from mres_jax.data.rows import QuestionRow, read_questions
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.video import FrameSampling
from mres_jax.errors import ConfigError, RunError
from mres_jax.geometry import Extent
from mres_jax.inference.chat import time_text
from mres_jax.protocols import Clip, Item, extent_of, frames_of
from mres_jax.resolution.allocator.units import Unit, units_of
from mres_jax.training.metrics import BAD_ROWS

T = TypeVar("T")
U = TypeVar("U")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """One question with its pixels.

    Attributes:
      row: where it comes from.
      items: as the backbone gets them: under the wire format `stills` each frame is a picture.
      frames: all frames in order, as the eyes get them.
      units: what has a size of its own.
      turns: as of a `Request`, where more than the question stands beside the items.
    """

    row: QuestionRow
    items: list[Item]
    frames: list[np.ndarray]
    units: list[Unit]
    turns: Sequence[tuple[str, tuple[str | int, ...]]] = ()

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


def open_prompt(
    row: QuestionRow, data: Questions, spec: ProcessorSpec, *, wire: str, times: bool = False
) -> Prompt:
    """Returns a row with its pixels.

    Args:
      row: the question.
      data: how its clips are sampled.
      spec: of the backbone.
      wire: `stills` or `pairs`.
      times: write the time of each frame of a clip before it, where it is a picture.

    Raises:
      BadRowError: a file that cannot be read.
    """
    sampling = FrameSampling.of(spec, fps=data.fps, max_frames=data.max_frames)
    items: list[Item] = row.items(sampling)
    frames, turns = frames_of(items), ()
    if wire == "stills":
        turns = (("user", (*_timed(items), row.prompt)),) if times else ()
        items = [*frames]
    units = units_of([extent_of(item) for item in items], spec)
    return Prompt(row=row, items=items, frames=frames, units=units, turns=turns)


def _timed(items: Sequence[Item]) -> Iterator[str | int]:
    """Numbers of all frames, those of clips behind their times."""
    number = itertools.count()
    for item in items:
        if not isinstance(item, Clip):
            yield next(number)
            continue
        for seconds in item.times:
            yield time_text(seconds)
            yield next(number)


def limit_pixels(spec: ProcessorSpec, most: int | None) -> ProcessorSpec:
    """Returns a processor whose pictures and frames have so many pixels at most at scale 1.

    Above it the model's own limits hold.

    Raises:
      ConfigError: fewer than the model's smallest.
    """
    if most is None:
        return spec
    if most < spec.min_pixels:
        raise ConfigError(
            f"run: data.max_pixels={most} is below {spec.min_pixels}, the least that the backbone "
            "looks at."
        )
    return dataclasses.replace(spec, native_pixels=most)


def order_of_step(rows: Sequence[T], step: int, *, count: int, seed: int) -> list[T]:
    """Returns rows in the order of a step, from 1: those it asks, then those that may stand in.

    An epoch has a new order, the same in every run, and ends with its last whole step; those that
    may stand in follow in it. Where there are fewer rows than a step takes, each step has all of
    them, over and over, and none is left to stand in.
    """
    if len(rows) < count:
        return [rows[i % len(rows)] for i in range(count)]
    steps = len(rows) // count
    epoch, place = divmod(step - 1, steps)
    order = np.random.default_rng([seed, epoch]).permutation(len(rows))
    return [rows[i] for i in np.roll(order, -place * count)]


def open_in_order(order: Sequence[T], open_row: Callable[[T], U | None], *, count: int) -> list[U]:
    """Opens the first rows of an order; in the place of one that cannot be read comes the next.

    Where too few can be read these are taken over and over.

    Args:
      order: of `order_of_step`.
      open_row: returns None where a row cannot be read.
      count: rows of the step.

    Raises:
      RunError: none can be read.
    """
    spare = iter(order[count:])
    opened: list[U] = []
    for row in order[:count]:
        for each in itertools.chain([row], spare):
            if (found := open_row(each)) is not None:
                opened.append(found)
                break
    if not opened:
        raise RunError(f"questions: none of {len(order)} rows can be read; {BAD_ROWS} says why.")
    return [opened[i % len(opened)] for i in range(count)]

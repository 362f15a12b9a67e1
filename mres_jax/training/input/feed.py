"""Packs of a run from any position on, read ahead by a thread or by worker processes.

What comes out depends on the position alone: not on the number of workers, nor on what was read
before. So a run goes on exactly with another number of them.
"""

import contextlib
import dataclasses
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from mres_jax.data.types import Kind
from mres_jax.errors import ConfigError, RunError
from mres_jax.training.input.epochs import Epoch, Fed

AHEAD = 3  # packs that wait to be taken
PARENT_CHECK = 1.0  # s between two looks of a worker at its parent


class Position(NamedTuple):
    """The next pack of a run."""

    epoch: int = 0
    pack: int = 0


class Steps(NamedTuple):
    """How the packs of a run are read by several processes.

    Attributes:
      size: packs of a step; a run begins with one.
      is_read: of the kinds of a step's packs: which are read here. The others come out blank.
    """

    size: int
    is_read: Callable[[Sequence[Kind]], Sequence[bool]]


class Feed:
    """An iterator over packs, endless; a context that ends its workers.

    Args:
      plan: gives the packs of an epoch by its number.
      position: where to begin.
      num_workers: processes; 0 reads on a thread of this one.
      timeout: longest wait for a pack, s.
      steps: where other processes read a part of the packs; None reads all.

    Raises:
      RunError: no pack came in time, or a worker died.
      ConfigError: several processes, and an epoch has fewer packs than a step.
    """

    def __init__(
        self,
        plan: Callable[[int], Epoch],
        *,
        position: Position = Position(),  # noqa: B008, a constant
        num_workers: int = 0,
        timeout: float = 600.0,
        steps: Steps | None = None,
    ):
        self._plan, self._num_workers, self._timeout = plan, num_workers, timeout
        self._steps = steps
        self.position = position
        self._ready: queue.Queue[Any] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(position,), daemon=True)
        self._thread.start()

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the reading; workers are told, and waited for a little."""
        self._closed.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._ready.get_nowait()
        self._thread.join(timeout=30.0)

    def __iter__(self) -> Iterator[Fed]:
        return self

    def __next__(self) -> Fed:
        try:
            item = self._ready.get(timeout=self._timeout)
        except queue.Empty:
            raise RunError(
                f"data: pack {self.position.pack} of epoch {self.position.epoch} did not come "
                f"within {self._timeout:g} s. A picture or a disk hangs; raise worker_timeout if "
                "it is only slow."
            ) from None
        if isinstance(item, BaseException):
            raise item
        fed, self.position = item
        return fed

    def _run(self, position: Position) -> None:
        """The thread: whatever goes wrong is handed over, and ends it."""
        try:
            with contextlib.closing(self._read(position)) as items:
                for item in items:
                    if not self._put(item):
                        return
        except Exception as error:
            self._put(_explained(error))

    def _put(self, item: Any) -> bool:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(item, timeout=0.2)
                return True
        return False

    def _read(self, position: Position) -> Generator[tuple[Fed, Position], None, None]:
        """Epoch after epoch; the next one is planned while this one is read."""
        with ThreadPoolExecutor(1) as planner:
            number, first = position
            planned = planner.submit(self._plan, number)
            begun: Sequence[Kind] = ()  # of a step that the next epoch completes
            while True:
                epoch = planned.result()
                planned = planner.submit(self._plan, number + 1)
                rest = _Rest(epoch, first)
                if self._steps is not None:
                    read, begun = _shared_out(self._steps, begun, rest, planned)
                    rest = dataclasses.replace(rest, read=read)
                with _reader(rest, self._num_workers) as packs:
                    for fed in packs:
                        yield fed, _after(fed, epoch)
                number, first = number + 1, 0


def _after(fed: Fed, epoch: Epoch) -> Position:
    is_last = fed.place + 1 == len(epoch)
    return Position(fed.epoch + 1) if is_last else Position(fed.epoch, fed.place + 1)


def _shared_out(
    steps: Steps, begun: Sequence[Kind], rest: "_Rest", following: Future[Epoch]
) -> tuple[tuple[bool, ...], Sequence[Kind]]:
    """Which packs of an epoch are read here, and what it begins of a step without ending it.

    Steps go on from epoch to epoch, and who reads a pack depends on all packs of its step.
    """
    kinds = [*begun, *rest.epoch.kinds[rest.first :]]
    last = len(kinds) % steps.size
    missing = -len(kinds) % steps.size
    if missing:
        after = following.result()
        if len(after) < missing:
            raise ConfigError(
                f"data: epoch {after.number} has {len(after)} packs, a step takes {steps.size}: "
                "several processes need an epoch of at least one step. Lower accumulation or the "
                "ladder's lengths."
            )
        kinds += after.kinds[:missing]
    read: list[bool] = []
    for at in range(0, len(kinds), steps.size):
        read += steps.is_read(kinds[at : at + steps.size])
    here = slice(len(begun), len(kinds) - missing)
    return tuple(read[here]), kinds[here][-last:] if last else ()


@contextlib.contextmanager
def _reader(rest: "_Rest", num_workers: int) -> Iterator[Iterator[Fed]]:
    """The packs of the rest of an epoch, in order."""
    if not num_workers or not len(rest):
        yield (rest[index] for index in range(len(rest)))
        return
    import grain  # imports half of jax's friends: only where workers are asked for

    _parse_flags()
    packs = grain.MapDataset.source(rest).to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    )
    workers = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=1)
    iterator: Any = iter(packs.mp_prefetch(workers, worker_init_fn=_Watch(os.getpid())))
    try:
        yield (_copied(fed) for fed in iterator)
    finally:
        iterator.close()


def _copied(fed: Fed) -> Fed:
    """Arrays of its own in place of shared memory, which is freed at once that way."""
    return fed._replace(pack=jax.tree.map(np.array, fed.pack))


@dataclasses.dataclass(frozen=True)
class _Rest:
    """An epoch without its first packs, as a random-access source.

    Attributes:
      epoch: whole.
      first: pack.
      read: of those from there on; the others are blank. None reads all.
    """

    epoch: Epoch
    first: int
    read: tuple[bool, ...] | None = None

    def __len__(self) -> int:
        return len(self.epoch) - self.first

    def __getitem__(self, index: int) -> Fed:
        if self.read is None or self.read[index]:
            return self.epoch[self.first + index]
        return self.epoch.blank(self.first + index)


class _Watch(NamedTuple):
    """Runs in each worker at its start: it ends with its parent, and never takes a device."""

    parent: int

    def __call__(self, worker: int, num_workers: int) -> None:
        del worker, num_workers
        os.environ["JAX_PLATFORMS"] = "cpu"
        threading.Thread(target=self._end_with_parent, daemon=True).start()

    def _end_with_parent(self) -> None:
        while os.getppid() == self.parent:
            time.sleep(PARENT_CHECK)
        os._exit(1)


def _parse_flags() -> None:
    """Grain asks absl's flags, which nobody has parsed in a notebook or a command of ours."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _explained(error: Exception) -> BaseException:
    text = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and "orker process" in text:
        return RunError(
            f"data: {text}. If the system was short of memory, lower num_workers or the largest "
            "rung; the run goes on from its last checkpoint."
        )
    return error

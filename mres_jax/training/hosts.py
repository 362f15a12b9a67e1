"""Several processes that are one run, on jax's own engine: joined, agreed, ended together.

Every process runs the same program on the devices of its host. What differs between them is which
packs they read; process 0 alone speaks, and writes what is not an array.
"""

import contextlib
import faulthandler
import os
import sys
import time
import zlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from mres_jax.errors import ConfigError, MresError

ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
HEARTBEAT = 60  # s
PARTING = 5.0  # s that process 0 outlives an error: whoever loses it can say nothing any more


def join(heartbeat: int = HEARTBEAT) -> None:
    """Makes this process one of a run's; before the first use of a device.

    jax finds the cluster (TPU pods, SLURM, GKE, MPI), or the environment names it:
    `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.

    Args:
      heartbeat: s without a sign of life of one process, after which jax ends them all.

    Raises:
      ConfigError: there is no cluster to be found, or the environment names half of it.
    """
    named = [name for name in (ADDRESS, COUNT, NUMBER) if os.environ.get(name)]
    missing = [name for name in (ADDRESS, COUNT, NUMBER) if name not in named]
    if (COUNT in named or NUMBER in named) and missing:
        raise ConfigError(
            f"train: the environment has {' and '.join(named)} but not {' and '.join(missing)}. "
            "Set all three, or none where jax finds the cluster itself."
        )
    count = number = None
    if COUNT in named:
        count, number = _whole(COUNT), _whole(NUMBER)
        if number >= count:
            raise ConfigError(
                f"train: {NUMBER}={number} is none of {COUNT}={count} processes: 0 to {count - 1}."
            )
    try:
        jax.distributed.initialize(
            num_processes=count, process_id=number, heartbeat_timeout_seconds=heartbeat
        )
    except RuntimeError as error:
        if "before" not in str(error):
            raise
        raise ConfigError(
            "train: jax has looked at its devices already, so it cannot join a cluster any more. "
            "Start a process for the run: mres train FILE --multihost."
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"train: no cluster found ({str(error).rstrip('.')}). jax finds those of TPU pods, "
            f"SLURM, GKE and MPI; elsewhere set {ADDRESS}=HOST:PORT, {COUNT} and {NUMBER} for each "
            "process. Without --multihost a run trains on this machine alone."
        ) from None


def _whole(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise ConfigError(f"train: {name}={text!r} is no whole number.")
    return int(text)


def are_several() -> bool:
    """Whether this process is not alone."""
    return jax.process_count() > 1


def is_main() -> bool:
    """Whether this process is the one that speaks."""
    return jax.process_index() == 0


def totals(counts: Mapping[str, float]) -> dict[str, float]:
    """Sums over the processes; all of them ask at the same place."""
    if not are_several():
        return dict(counts)
    values = np.array(list(counts.values()), np.float64)
    # As bytes: jax would make single precision of doubles.
    parts = np.asarray(multihost_utils.process_allgather(values.view(np.uint8)))
    sums = np.ascontiguousarray(parts).view(np.float64).sum(axis=0).tolist()
    kinds = [type(value) for value in counts.values()]
    return {name: kind(x) for name, kind, x in zip(counts, kinds, sums, strict=True)}


def agreed(value: bool) -> bool:
    """What process 0 says; all of them ask at the same place."""
    if not are_several():
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.int32(value)))


def check_same(
    name: str, text: str, *, cure: str = "Start all with the same files and options."
) -> None:
    """Refuses to go on where a text differs between processes.

    Args:
      name: of the text, for the message; a process may say its own numbers.
      text: compared by its checksum.
      cure: what to do about it.

    Raises:
      ConfigError: on all of them, with those that differ from process 0.
    """
    if not are_several():
        return
    sums = np.asarray(multihost_utils.process_allgather(np.uint32(zlib.crc32(text.encode()))))
    others = np.flatnonzero(sums != sums[0]).tolist()
    if others:
        shown = ", ".join(map(str, others[:8])) + (", ..." if len(others) > 8 else "")
        raise ConfigError(
            f"train: {name} differs between processes: {len(others)} of {len(sums)} ({shown}) have "
            f"another than process 0. {cure}"
        )


def is_preempted(step: int) -> bool:
    """Whether one of the processes was told to end by SIGTERM, and all are to save at this step.

    jax agrees on the step; every process asks at every step.
    """
    return are_several() and multihost_utils.reached_preemption_sync_point(step)


@contextlib.contextmanager
def shared_fate() -> Iterator[None]:
    """What ends one process ends all: nobody waits in an exchange for one that has left."""
    try:
        yield
    except BaseException as error:
        if not are_several():
            raise
        print(f"mres: process {jax.process_index()}: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        if is_main():
            time.sleep(PARTING)
        os._exit(2 if isinstance(error, MresError) else 1)  # at exit jax would wait for the others


def expect_within(seconds: float) -> None:
    """Ends the process, with the stacks of all its threads, if not called again in time.

    A process that is stuck sends signs of life, so only it can notice. Alone it is left to hang:
    somebody watches, or nobody pays.
    """
    if are_several():
        faulthandler.dump_traceback_later(seconds, exit=True)


def expect_nothing() -> None:
    """The end of `expect_within`."""
    if are_several():
        faulthandler.cancel_dump_traceback_later()

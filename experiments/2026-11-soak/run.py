"""Kills a training run at random, restarts it, and checks what was lost: nothing behind a save.

python experiments/2026-11-soak/run.py [--kills 200] [--minutes 60] [--seed 0] [--csv FILE]
"""

import argparse
import contextlib
import csv
import dataclasses
import json
import os
import pathlib
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import orbax.checkpoint.experimental.v1  # noqa: F401, what every start would import

from mres_jax.config import MeshConfig, Run, Schedule
from mres_jax.errors import MresError
from mres_jax.models.checkpoint_io import absolute
from mres_jax.models.manifest import list_files, list_steps, step_directory
from mres_jax.testing import tiny_run
from mres_jax.testing.runs import rows_without_clocks
from mres_jax.training import hosts, loop

STEPS = {1: 16, 2: 8}  # of a lap, by processes
BOUND = 600.0  # s until whoever still runs has failed; the machine is shared
HEARTBEAT = 10  # s


@dataclasses.dataclass(frozen=True)
class Blow:
    """What happens to one of the processes, and when.

    Attributes:
      where: `start`, `step`, `save`: the process dies there; `worker`: one of its input workers
        dies; `damage`: nobody dies, the newest checkpoint is changed before the start.
      after: steps, or saves, that are waited for.
      delay: share of what a start, a step or a save took last time.
      number: of the process.
    """

    where: str
    after: int = 1
    delay: float = 0.0
    number: int = 0


def make_run(directory: pathlib.Path, processes: int, *, workers: int, fallback: bool) -> Run:
    """A tiny run that is saved at every second step."""
    run = tiny_run(directory, accumulation=processes, aux_loss_weight=0.0, num_workers=workers)
    return dataclasses.replace(
        run,
        mesh=MeshConfig(fsdp=processes),
        schedule=Schedule(num_steps=STEPS[processes], warmup_steps=1, kind="constant"),
        checkpoint=dataclasses.replace(run.checkpoint, keep=3, fallback=fallback),
    )


class Watch:
    """Counts what a run does and strikes when its time has come."""

    def __init__(self, run: Run, blow: Blow | None):
        self.blow, self.seen = blow, {"start": 0, "step": 0, "save": 0}
        self.folder = pathlib.Path(run.checkpoint.dir)
        self.file, self.begun = self.folder.with_name("took"), time.monotonic()
        self.took = json.loads(self.file.read_text()) if self.file.exists() else {}
        self._count("start")
        save = loop.Checkpoints.save

        def noted(checkpoints: Any, state: Any, *, step: int, **given: Any) -> Any:
            self._count("save")
            self.begun = time.monotonic()
            found = save(checkpoints, state, step=step, **given)
            self._time("save")
            if hosts.is_main():
                with (self.folder / "saved").open("a") as file:
                    file.write(f"{step}\n")
            return found

        loop.Checkpoints.save = noted

    def log(self, line: str) -> None:
        """Takes a line of the run."""
        print(line, flush=True)
        if line.startswith("tiny: steps "):
            self._time("start")
        if line.startswith("step"):
            self._time("step")
            self._count("step")

    def _time(self, what: str) -> None:
        now = time.monotonic()
        self.took[what], self.begun = now - self.begun, now
        if hosts.is_main():
            scratch = self.file.with_name("took.tmp")
            scratch.write_text(json.dumps(self.took))
            scratch.replace(self.file)

    def _count(self, what: str) -> None:
        self.seen[what] += 1
        blow = self.blow
        if blow is None or self.seen[what] != blow.after:
            return
        if blow.where == what:
            self._strike_in(blow.delay * self.took.get(what, 1.0))
        elif blow.where == "worker" and what == "step":
            for worker in children_of(os.getpid())[:1]:
                os.kill(worker, signal.SIGKILL)

    def _strike_in(self, seconds: float) -> None:
        def strike() -> None:
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=strike, daemon=True).start()


def children_of(pid: int) -> list[int]:
    """Processes that a process has started, and theirs."""
    parents: dict[int, list[int]] = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
            if state != "Z":
                parents.setdefault(int(parent), []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found[1:]


def train(run: Run, blow: Blow | None, log: pathlib.Path) -> int:
    """In a process of its own: trains; returns its exit code."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    jax.config.update("jax_num_cpu_devices", 1)
    if hosts.ADDRESS in os.environ:
        hosts.join(heartbeat=HEARTBEAT)
    try:
        loop.train(run, log=Watch(run, blow).log)
    except MresError as error:
        print(f"mres: {error}", flush=True)
        return 2
    return 0


def start(run: Run, blow: Blow | None, folder: pathlib.Path) -> list[int]:
    """Forks the processes of a run, so that nothing is imported twice, and returns their ids."""
    processes, pids = run.mesh.fsdp, []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for number in range(processes):
        pid = os.fork()
        if pid:
            pids.append(pid)
            continue
        code = 1
        try:
            if processes > 1:
                names = {hosts.ADDRESS: f"127.0.0.1:{port}", hosts.COUNT: processes}
                names |= {hosts.NUMBER: number}
                os.environ.update({name: str(value) for name, value in names.items()})
            own = blow if blow is not None and blow.number == number else None
            code = train(run, own, folder / f"log.{number}")
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        finally:
            os._exit(code)
    return pids


def wait(pids: Sequence[int]) -> list[int]:
    """Exit codes, negative for signals; nobody and nothing they started is left behind."""
    codes, end = {}, time.monotonic() + BOUND
    started: set[int] = set()
    while len(codes) < len(pids):
        for pid in set(pids) - set(codes):
            started.update(children_of(pid))
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            for pid in set(pids) - set(codes):
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"somebody still ran after {BOUND:g} s")
        time.sleep(0.3)
    while left := [pid for pid in started if pathlib.Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end, f"orphans: {left}"
        time.sleep(0.1)
    return [codes[pid] for pid in pids]


class Lap:
    """One run from its first step to its last, however often it is killed on the way."""

    def __init__(self, folder: pathlib.Path, processes: int, name: str):
        self.processes, self.folder = processes, folder / f"{name}.{processes}"
        self.folder.mkdir()
        self.directory = self.folder / "run"
        self.root = absolute(self.directory / loop.CHECKPOINTS)

    def saved(self) -> int:
        """The newest step whose save had returned."""
        file = self.directory / "saved"
        return int(file.read_text().split()[-1]) if file.exists() else 0

    def newest(self) -> int:
        """The newest complete step on disk."""
        return max(list_steps(self.root), default=0)

    def round(self, blow: Blow | None) -> tuple[list[int], int]:
        """Starts once; returns exit codes and the step that was gone on from."""
        workers = 1 if blow and blow.where == "worker" else 0
        is_damaged = blow is not None and blow.where == "damage"
        before, expected = self.saved(), self.newest()
        assert expected >= before, f"step {before} was saved, the newest one there is {expected}"
        if is_damaged:
            expected = self.damage(blow.delay)
        run = make_run(self.directory, self.processes, workers=workers, fallback=is_damaged)
        codes = wait(start(run, None if is_damaged else blow, self.folder))
        said = (self.folder / "log.0").read_text()
        begun = [line for line in said.splitlines() if line.startswith("tiny: steps ")]
        if not begun:  # killed before it began
            return codes, expected
        first = int(begun[0].split()[2])
        assert first == expected, f"went on from {first}, not from {expected}:\n{said}"
        return codes, first

    def damage(self, place: float) -> int:
        """Changes one byte of the newest step; returns the step that is to be taken instead."""
        steps = list_steps(self.root)
        newest = step_directory(self.root, steps[-1])
        files = [file for file in list_files(newest).values() if file.stat().length]
        file = pathlib.Path(files[int(place * len(files))])
        content = bytearray(file.read_bytes())
        content[int(place * len(content))] ^= 1
        file.write_bytes(content)
        (self.directory / "saved").write_text(f"{steps[-2]}\n")
        return steps[-2]


def choose(rng: random.Random, lap: Lap) -> Blow:
    """The next blow: saves and steps more often than the rest."""
    kinds = {"save": 4, "step": 4, "start": 1}
    if lap.processes == 1:
        kinds |= {"worker": 1}
        if len(list_steps(lap.root)) > 1:
            kinds |= {"damage": 1}
    where = rng.choices(list(kinds), list(kinds.values()))[0]
    after = rng.randint(1, {"start": 1, "save": 2}.get(where, 5))
    return Blow(where, after, rng.random(), rng.randrange(lap.processes))


def check_death(lap: Lap, blow: Blow | None, codes: list[int]) -> None:
    """It was the blow that ended the run, and it ended all of it."""
    said = "\n".join(file.read_text() for file in sorted(lap.folder.glob("log.*")))
    assert blow is not None, said
    assert blow.where != "damage", said
    if blow.where == "worker":
        assert codes == [1], said
        assert "orker" in said.splitlines()[-1], said
    else:
        assert codes[blow.number] == -signal.SIGKILL, said
        assert 0 not in codes, said


def soak(args: argparse.Namespace, folder: pathlib.Path, say: Callable[[str], None]) -> None:
    """Laps until there were as many kills as wanted, or the time is over."""
    rng, end = random.Random(args.seed), time.monotonic() + 60 * args.minutes
    whole = {}
    kinds = [1, *([2] if args.two else [])]
    for processes in kinds:
        lap = Lap(folder, processes, "whole")
        codes, _ = lap.round(None)
        assert codes == [0] * processes, (lap.folder / "log.0").read_text()
        whole[processes] = rows_without_clocks(lap.directory)
    counts: dict[str, int] = {}
    kills, laps, table = 0, 0, []
    while kills < args.kills and time.monotonic() < end:
        laps += 1
        lap = Lap(folder, 2 if args.two and laps % args.two == 0 else 1, f"lap{laps}")
        codes = [1]
        while set(codes) != {0}:
            is_over = kills >= args.kills or time.monotonic() > end
            blow = None if is_over else choose(rng, lap)
            begun = time.monotonic()
            codes, first = lap.round(blow)
            seconds = time.monotonic() - begun
            kind = blow.where if blow else "none"
            if set(codes) != {0}:
                check_death(lap, blow, codes)
                kills += 1
                counts[kind] = counts.get(kind, 0) + 1
            table.append((laps, lap.processes, kind, first, lap.newest(), codes, f"{seconds:.1f}"))
            say(f"{kills:4d} kills  " + "  ".join(map(str, table[-1])))
        for ours, theirs in zip(
            rows_without_clocks(lap.directory), whole[lap.processes], strict=True
        ):
            names = [name for name in theirs if ours.get(name) != theirs[name]]
            assert not names, f"lap {laps}: step {ours['step']} differs in {', '.join(names)}"
        if args.csv:
            with open(args.csv, "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(("lap", "processes", "blow", "from", "newest", "codes", "seconds"))
                writer.writerows(table)
    by_kind = ", ".join(f"{n} at {name}" for name, n in counts.items())
    damaged = sum(row[2] == "damage" for row in table)
    say(
        f"{kills} kills ({by_kind}) and {damaged} damaged checkpoints in {laps} laps: every lap's "
        "rows are those of the run that was never killed, bit for bit but for clocks"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--two", type=int, default=5, help="every so-manieth lap has two processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv")
    args = parser.parse_args()
    settings = {
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
    with tempfile.TemporaryDirectory() as folder:
        if not jax.config.jax_compilation_cache_dir:
            jax.config.update("jax_compilation_cache_dir", f"{folder}/cache")
        soak(args, pathlib.Path(folder), lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(main())

"""Several real processes are one run: equal to one alone, stopped together, never left waiting."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from mres_jax import testing
from mres_jax.models.registry import convert
from mres_jax.training import hosts
from mres_jax.training.loop import train

pytestmark = pytest.mark.slow
HERE, TOP = pathlib.Path(__file__).parent, pathlib.Path(__file__).parents[2]
FSDP = 'mesh={"fsdp": 4}'  # two processes of two devices, four of one, or one of four
STEPS = 6
BOUND = 60.0  # s: 10 until a process counts as dead, and what ending takes on a busy machine


class Group:
    """Processes of one run, each with a log."""

    def __init__(self, directory: pathlib.Path, count: int, *settings: str):
        directory.mkdir(exist_ok=True)
        port = _free_port()
        self.logs = [directory / f"log.{number}" for number in range(count)]
        self.processes = []
        for number, log in enumerate(self.logs):
            command = [sys.executable, str(HERE / "many_processes.py"), str(directory)]
            command += [str(4 // count), *(s.replace("<number>", str(number)) for s in settings)]
            names = {hosts.ADDRESS: f"127.0.0.1:{port}", hosts.COUNT: count, hosts.NUMBER: number}
            paths = os.pathsep.join([str(TOP / "kernels"), str(TOP)])
            settings_ = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": paths}
            settings_ |= {name: str(value) for name, value in names.items()} if count > 1 else {}
            own = directory / f"host{number}"  # of a process with a disk of its own
            here = own if own.is_dir() else None
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(command, stdout=file, stderr=file, env=settings_, cwd=here)
                )

    def wait_for(self, text: str, seconds: float = 400.0) -> None:
        """Until process 0 has said something."""
        end = time.monotonic() + seconds
        while text not in self.logs[0].read_text():
            assert time.monotonic() < end, self.said()
            assert self.processes[0].poll() is None, self.said()
            time.sleep(0.1)

    def codes(self, seconds: float = 400.0) -> list[int]:
        """Exit codes, when all have ended."""
        end = time.monotonic() + seconds
        try:
            return [p.wait(max(0.1, end - time.monotonic())) for p in self.processes]
        except subprocess.TimeoutExpired:
            pytest.fail(f"a process did not end within {seconds} s:\n{self.said()}")

    def said(self) -> str:
        """The end of every log."""
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in self.logs)


@contextlib.contextmanager
def running(directory: pathlib.Path, count: int, *settings: str) -> Iterator[Group]:
    group = Group(directory, count, *settings)
    try:
        yield group
    finally:
        for process in group.processes:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def losses(directory: pathlib.Path) -> list[float]:
    """Of each step, in order."""
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


def trained(directory: pathlib.Path) -> list[tuple]:
    """Epoch, place and members of the packs of each step, from the last start that took it."""
    steps: dict[int, list] = {}
    for life in range(2):
        rows = [
            json.loads(line)
            for file in directory.glob(f"trained.{life}.*")
            for line in file.read_text().splitlines()
        ]
        first = min((row[0] for row in rows), default=STEPS + 1)
        steps = {number: packs for number, packs in steps.items() if number < first}
        for number, *pack in rows:
            steps.setdefault(number, []).append(tuple(pack))
    assert sorted(steps) == list(range(1, STEPS + 1))
    return [pack for number in sorted(steps) for pack in sorted(steps[number])]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same run in this process, on one device."""
    directory = tmp_path_factory.mktemp("alone")
    run = testing.tiny_run(directory, steps=STEPS, accumulation=4, aux_loss_weight=0.0)
    train(run, log=lambda line: None)
    return directory


def assert_same_run(directory: pathlib.Path, alone: pathlib.Path) -> None:
    """Every pack once and in its step; losses in float32 sums of another order."""
    assert losses(directory) == pytest.approx(losses(alone), rel=1e-5)
    packs = trained(directory)
    places = [(epoch, place) for epoch, place, _ in packs]
    assert places == sorted(set(places))  # four to a step, none left out, none twice
    assert len(places) == 4 * STEPS
    first = [member for epoch, _, members in packs if epoch == 0 for member in members]
    assert sorted(first) == [[0, number] for number in range(24)]  # one epoch, every sample once


@pytest.mark.parametrize("mesh", [FSDP, 'mesh={"data": 2, "tensor": 2}'])
def test_two_processes_are_the_run_alone(tmp_path, alone, mesh):
    with running(tmp_path / "two", 2, mesh, f"steps={STEPS}") as group:
        assert group.codes() == [0, 0], group.said()
    assert_same_run(tmp_path / "two", alone)
    rows = [(tmp_path / "two" / "metrics.jsonl").read_text(), (alone / "metrics.jsonl").read_text()]
    for ours, theirs in zip(*(map(json.loads, text.splitlines()) for text in rows), strict=True):
        for name in ("patch_efficiency", "token_efficiency", "epoch", "pack", "bad_rows"):
            assert ours[name] == theirs[name], name


@pytest.mark.parametrize("kind", ["ours", "huggingface"])
def test_two_processes_start_from_what_another_run_has_learnt(tmp_path, alone, kind):
    start = alone if kind == "ours" else tmp_path / "theirs"
    if kind == "huggingface":
        convert(alone, start)
    run = testing.tiny_run(tmp_path / "one", steps=2, accumulation=4, init=str(start), seed=3)
    train(run, log=lambda line: None)
    settings = (FSDP, "steps=2", f"init={json.dumps(str(start))}", "seed=3")
    with running(tmp_path / "two", 2, *settings) as group:
        assert group.codes() == [0, 0], group.said()
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert losses(tmp_path / "two")[0] < losses(alone)[0] - 0.1  # the start counts


def write_clips(folder: pathlib.Path) -> None:
    """Five clips and four pictures: of the two packs of a group often one alone has a clip."""
    folder.mkdir(parents=True)
    draw, rows = np.random.default_rng(0), []
    for number in range(9):
        names = [f"{number}.{frame}.png" for frame in range(4)]
        for name in names:
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / name)
        seen = {"image": names[0]} if number % 2 else {"frames": names, "fps": 4.0}
        rows.append({"id": str(number), "question": "what is red", "answer": "red", **seen})
    (folder / "rows.json").write_text(json.dumps(rows))


def test_two_processes_train_on_clips_and_pictures_what_one_does(tmp_path):
    write_clips(tmp_path / "data")
    settings = ('mesh={"fsdp": 2, "tensor": 2}', "steps=4", f'clips="{tmp_path / "data"}"')
    for name, count in (("one", 1), ("two", 2)):
        with running(tmp_path / name, count, *settings) as group:
            assert group.codes() == [0] * count, group.said()
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    read = [(tmp_path / "two" / f"trained.0.{number}").read_text() for number in (0, 1)]
    assert all(read)  # both had something to do
    assert sum(text.count("\n") for text in read) == 4 * 4


@pytest.mark.parametrize("others", [1, 4])
def test_a_run_that_lost_a_process_goes_on_with_another_number_of_them(tmp_path, alone, others):
    with running(tmp_path / "run", 2, FSDP, f"steps={STEPS}", "sleep=0.5") as group:
        group.wait_for("step     3")
        group.processes[1].send_signal(signal.SIGKILL)
        begun = time.monotonic()
        codes = group.codes(BOUND)
        assert time.monotonic() - begun < BOUND
        assert 0 not in codes
    with running(tmp_path / "run", others, FSDP, f"steps={STEPS}", "life=1") as group:
        assert set(group.codes()) == {0}, group.said()
    assert_same_run(tmp_path / "run", alone)


def test_sigterm_to_one_process_saves_on_all_at_one_step(tmp_path, alone):
    with running(tmp_path / "run", 2, FSDP, f"steps={STEPS}", "sleep=1.0") as group:
        group.wait_for("step     1")
        group.processes[1].send_signal(signal.SIGTERM)
        assert group.codes() == [0, 0], group.said()
        assert "stopped by SIGTERM to one of the processes after step" in group.said()
    assert len(losses(tmp_path / "run")) < STEPS
    with running(tmp_path / "run", 2, FSDP, f"steps={STEPS}", "life=1") as group:
        assert group.codes() == [0, 0], group.said()
    assert_same_run(tmp_path / "run", alone)


def test_a_process_that_is_stuck_says_where_and_ends_the_run(tmp_path):
    bound = 90  # the first step compiles, on a machine that may be busy
    settings = (f"steps={STEPS}", "stuck=3", f"step_timeout={bound}")
    with running(tmp_path / "run", 2, FSDP, *settings) as group:
        group.wait_for("step     2")
        codes = group.codes(BOUND + bound)
        assert 0 not in codes
        assert "in slow" in group.logs[1].read_text()  # the stack of the one that hangs


def test_processes_that_were_started_differently_end_with_one_line(tmp_path):
    directory = tmp_path / "run"
    with running(directory, 2, FSDP, "seed=<number>") as group:
        assert group.codes() == [2, 2], group.said()
    for log in group.logs:
        assert "the run differs between processes: 1 of 2 (1) have another" in log.read_text()


def test_processes_whose_hosts_have_other_data_end_with_one_line(tmp_path):
    directory = tmp_path / "run"
    for number in (0, 1):
        write_clips(directory / f"host{number}")
    (directory / "host1" / "3.0.png").unlink()
    with running(directory, 2, 'mesh={"fsdp": 2, "tensor": 2}', 'clips="."') as group:
        assert group.codes() == [2, 2], group.said()
    for log, count in zip(group.logs, (9, 8), strict=True):
        assert (
            f"the plan of epoch 0, here {count} examples in {count} packs, differs between "
            "processes: 1 of 2 (1) have another than process 0. Their hosts have other rows, "
            "pictures or indexes: compare the files that `data` names"
        ) in log.read_text()
    assert not (directory / "run.json").exists()


def test_processes_without_a_mesh_for_all_of_them_are_refused(tmp_path):
    with running(tmp_path / "run", 2) as group:
        assert group.codes() == [2, 2], group.said()
    assert "takes 1 devices, here are 4. Take mesh.data=4, mesh.fsdp=1." in group.said()


def test_answers_while_training_are_refused_where_one_process_alone_would_write_them(tmp_path):
    settings = 'evaluate={"every_steps": 2, "num_packs": 1, "num_questions": 2}'
    with running(tmp_path / "run", 2, FSDP, settings) as group:
        assert group.codes() == [2, 2], group.said()
    assert "Take --evaluate.num_questions=0" in group.said()


def test_a_run_of_two_processes_is_evaluated_as_it_goes(tmp_path):
    settings = 'evaluate={"every_steps": 2, "num_packs": 1, "num_questions": 0, "num_samples": 0}'
    with running(tmp_path / "run", 2, FSDP, settings, "steps=4") as group:
        assert group.codes() == [0, 0], group.said()
    rows = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [2, 4]
    assert (tmp_path / "run" / "checkpoints" / "best.json").is_file()

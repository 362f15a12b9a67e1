"""A training run: packs in, checkpoints and metrics out; a restart goes on where it stopped."""

import contextlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from mres_jax.config import Run, Schedule, diff, from_json, to_json
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import FILE as TOKENIZER_FILE, Tokenizer
from mres_jax.data.types import Kind
from mres_jax.errors import ConfigError
from mres_jax.files import check_directory, write_together
from mres_jax.models.vlm import PackedVLM
from mres_jax.training import hosts
from mres_jax.training.checkpoints import Checkpoints
from mres_jax.training.chips import peak_flops
from mres_jax.training.evaluator import Evaluator, check_questions
from mres_jax.training.flops import flops_counter, passes
from mres_jax.training.input.epochs import Epoch, Fed
from mres_jax.training.input.feed import Feed, Position, Steps
from mres_jax.training.input.sources import fetch_rows
from mres_jax.training.interrupts import Stop
from mres_jax.training.learner import Step, TrainState
from mres_jax.training.meshes import (
    Reading,
    check_model,
    make_mesh,
    nearest,
    rank_count,
    reading,
    slowest_and_mean,
)
from mres_jax.training.meter import Meter
from mres_jax.training.metrics import (
    BAD_ROWS,
    Writers,
    append_rows,
    drop_rows_after,
    open_writers,
)
from mres_jax.training.optimizer import rate_at
from mres_jax.training.parts import describe_parts
from mres_jax.training.progress import line, progress_bar
from mres_jax.training.setup import CHECKPOINTS, open_run, set_up, set_up_on
from mres_jax.training.skips import SkipGuard, summable
from mres_jax.training.warm_start import restore_params

RUN_FILE = "run.json"
# Fields that an epoch's packs depend on.
PLANNED = ("data", "policies", "ladder", "fill", "balance", "seed")
DATA_CURE = (
    "Their hosts have other rows, pictures or indexes: compare the files that `data` names and "
    "what `mres data check` says of them on each."
)


class Trained(NamedTuple):
    """What a run leaves in memory."""

    model: PackedVLM
    spec: ProcessorSpec
    tokenizer: Tokenizer
    step: int


def train(run: Run, *, log: Callable[[str], None] = print, show_progress: bool = False) -> Trained:
    """Trains to `run.schedule.num_steps`, on from the newest checkpoint in `run.checkpoint.dir`.

    Writes `run.json`, `metrics.jsonl` and checkpoints. SIGTERM and Ctrl-C save before they end it.

    Args:
      run: what to train.
      log: takes a line.
      show_progress: show a bar with the time left on stderr.

    Raises:
      RunError: too many steps were skipped in a row, or the disk is full.
      ConfigError: the directory holds a run of another model.
    """
    if not hosts.is_main():
        log = _say_nothing
    with hosts.shared_fate():
        hosts.check_same("the run", to_json(run))
        check_questions(run)
        check_model(run.mesh, run.model, run.ladder)
        mesh = make_mesh(run.mesh)
        with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
            return _train(run, mesh, log=log, show_progress=show_progress)


def _train(
    run: Run, mesh: Mesh | None, *, log: Callable[[str], None], show_progress: bool
) -> Trained:
    directory = check_directory(run.checkpoint.dir)
    _check_same_run(directory, run)
    tokenizer, spec, plan, schedule = open_run(run, log=log)
    if mesh is None:
        graphdef, state, optimizer, rates = set_up(run, schedule)
        if (count := len(jax.devices())) > 1:
            log(f"{run.name}: on one of {count} devices; {nearest(run.mesh, count)}")
    else:
        graphdef, state, optimizer, rates = set_up_on(mesh, run, schedule)
        log(f"{run.name}: {mesh.size} devices, {run.mesh}")
    if state.frozen:
        log(f"{run.name}: {describe_parts(state.params, state.frozen, rates)}")
    checkpoints = Checkpoints(
        directory / CHECKPOINTS,
        keep=run.checkpoint.keep,
        assets={TOKENIZER_FILE: tokenizer.to_bytes()},
    )
    restored = checkpoints.restore_latest(state, fallback=run.checkpoint.fallback)
    progress: Mapping[str, Any] = {}
    if restored is not None:
        state, progress = restored
    elif run.init:
        state = restore_params(run.init, state, config=run.model, mesh=mesh)
    steps = _Steps(run, schedule, plan, checkpoints, progress, log, show_progress)
    if mesh is not None:
        steps.ranks = rank_count(mesh)
        steps.reading = reading(mesh) if hosts.are_several() else None
    epoch = plan(steps.position.epoch)
    fetch_rows(epoch)
    _check_plan(epoch)  # before anything is written, and when all have what they read
    if run.evaluate is not None:
        steps.evaluator = Evaluator(
            run, graphdef, spec, tokenizer, last=schedule.num_steps or 0, log=log
        )
    if hosts.is_main():
        write_together(directory, {RUN_FILE: to_json(run).encode()})
    state = steps.run(state, Step(graphdef, optimizer, average=run.loss_average, mesh=mesh))
    model = nnx.merge(graphdef, state.params, state.frozen).model
    return Trained(model, spec, tokenizer, int(state.step))


def _say_nothing(line: str) -> None:
    del line


def _check_same_run(directory: pathlib.Path, run: Run) -> None:
    """Refuses to go on with another model, start or choice of parts; other fields may change."""
    file = directory / RUN_FILE
    if not file.is_file():
        return
    old = from_json(file.read_text())
    changes = diff(old.model, run.model)
    for name in ("init", "train", "peft", "frozen_dtype"):
        before, after = getattr(old, name), getattr(run, name)
        changes += [f"{name}: {before!r} -> {after!r}"] if before != after else []
    if changes:
        raise ConfigError(
            f"run: {directory} holds a run of another model, start or choice of parts "
            f"({'; '.join(changes)}). Name another checkpoint.dir."
        )


def _check_plan(epoch: Epoch) -> None:
    """Refuses data that are not the same for all processes: each would wait for other packs.

    Raises:
      ConfigError: on all of them, each with its own counts.
    """
    if hosts.are_several():
        examples = sum(map(len, epoch.members))
        hosts.check_same(
            f"the plan of epoch {epoch.number}, here {examples} examples in {len(epoch)} packs,",
            epoch.fingerprint(),
            cure=DATA_CURE,
        )


class _Steps:
    """The steps of a run from its state on: metrics, bad rows and checkpoints as they go."""

    def __init__(
        self,
        run: Run,
        schedule: Schedule,
        plan: Callable[[int], Epoch],
        checkpoints: Checkpoints,
        progress: Mapping[str, Any],
        log: Callable[[str], None],
        show_progress: bool = False,
    ):
        self.settings, self.plan, self.checkpoints, self.log = run, plan, checkpoints, log
        self.schedule, self.last = schedule, schedule.num_steps or 0
        self.show_progress = show_progress
        self.evaluator: Evaluator | None = None
        self.ranks = 1
        self.reading: Reading | None = None  # where other processes read as well
        self.directory = pathlib.Path(run.checkpoint.dir)
        self.bad_rows = progress.get("bad_rows", 0) if hosts.is_main() else 0
        self.sums = progress.get("sums")
        self.position = _position(run, progress, log)

    def run(self, state: TrainState, step_fn: Step) -> TrainState:
        """Takes the steps that are left."""
        run, first = self.settings, int(state.step)
        _drop_bad_rows_after(self.directory, first)
        self.log(f"{run.name}: steps {first} to {self.last}, checkpoints in {run.checkpoint.dir}")
        guard, is_due = SkipGuard(run.max_skipped, self.log, saved=first), False
        self.meter = self._meter(state)
        feed = Feed(
            self.plan,
            position=self.position,
            num_workers=run.num_workers,
            timeout=run.worker_timeout,
            steps=self.reading and Steps(run.accumulation, self.reading.is_read),
        )
        is_main = hosts.is_main()
        shown = self.show_progress and is_main
        with (
            Stop() as stop,
            feed,
            open_writers(run, first=first, is_main=is_main, log=self.log) as writers,
            progress_bar(run.name, first=first, last=self.last, shown=shown) as bar,
        ):
            is_missing = self.evaluator is not None and self.evaluator.is_missing(first)
            if is_missing and (best := self._evaluate(state, first, writers, stop)):
                self.checkpoints.mark_best(best)
            for step in range(first + 1, self.last + 1):
                hosts.expect_within(run.step_timeout)
                batch = [next(feed) for _ in range(run.accumulation)]
                self.meter.wait_ended()
                for fed in self._counted(batch):
                    self._note_bad(fed, step)
                    self.meter.saw(fed.pack)
                self._note_attention(batch)
                state, metrics = step_fn(state, [fed.pack for fed in batch], _kinds(batch))
                guard.add(step, metrics)
                row = self.meter.add(step, summable(metrics))
                if row:
                    self._report(row, batch[-1], state, writers)
                bar.step(step, row)
                stop.agree(step)
                is_due = is_due or step % run.checkpoint.every_steps == 0
                is_tested = self.evaluator is not None and self.evaluator.is_due(step)
                is_end = step == self.last or stop.asked is not None
                if row or is_due or is_tested or is_end:
                    guard.settle()
                if is_end or (is_due and not guard.in_row):  # what only skips is not worth keeping
                    self._save(state, step, feed.position)
                    guard.saved, is_due = step, False
                if is_tested and not stop.asked:
                    best = self._evaluate(state, step, writers, stop)
                    if guard.saved != step and (best or stop.asked):
                        self._save(state, step, feed.position)
                        guard.saved, is_due = step, False
                    if best:
                        self.checkpoints.mark_best(best)
                if stop.asked:
                    self.log(f"{run.name}: stopped by {stop.asked} after step {step}; saved")
                    break
        hosts.expect_nothing()
        return state

    def _counted(self, batch: Sequence[Fed]) -> list[Fed]:
        """The packs of a step that this process answers for."""
        if self.reading is None:
            return list(batch)
        is_counted = self.reading.is_counted(_kinds(batch))
        return [fed for fed, counted in zip(batch, is_counted, strict=True) if counted]

    def _note_attention(self, batch: Sequence[Fed]) -> None:
        """How evenly the ranks share it, known to every process from the plan."""
        if self.ranks > 1:
            costs = [fed.pairs for fed in batch]
            self.meter.shared(*slowest_and_mean(costs, _kinds(batch), self.ranks))

    def _meter(self, state: TrainState) -> Meter:
        run = self.settings
        peak = peak_flops(jax.devices()[0].device_kind)
        return Meter(
            run.log_every,
            self.sums,
            count_flops=flops_counter(run.model, passes(state.params, state.frozen)),
            peak_flops=None if peak is None else run.mesh.size * peak,
        )

    def _evaluate(
        self, state: TrainState, step: int, writers: Writers, stop: Stop
    ) -> dict[str, Any] | None:
        """Returns the row of the evaluation if it is the best so far."""
        assert self.evaluator is not None
        hosts.expect_within(self.settings.step_timeout)
        with self.meter.pause("evaluation"):
            row = self.evaluator.evaluate(state, step, writers, stopped=lambda: bool(stop.asked))
        is_best = row is not None and self.evaluator.is_better(row, self.checkpoints.best())
        return row if hosts.agreed(is_best) else None

    def _report(self, row: dict[str, Any], fed: Fed, state: TrainState, writers: Writers) -> None:
        """A row of means, with where the run stands."""
        done = max(1, row["step"] - int(state.skipped))  # the rate waits for steps that count
        rate = rate_at(self.settings.optimizer.learning_rate, self.schedule, done)
        row |= {"learning_rate": rate, "epoch": fed.epoch, "pack": fed.place}
        row |= hosts.totals({"bad_rows": self.bad_rows})
        writers.row("train", row)
        self.log(line(row, self.last))

    def _save(self, state: TrainState, step: int, position: Position) -> None:
        with self.meter.pause("checkpoint"):
            progress = {
                "epoch": position.epoch,
                "pack": position.pack,
                **hosts.totals({"bad_rows": self.bad_rows}),
                "sums": self.meter.sums_so_far(),
            }
            self.checkpoints.save(state, step=step, run=self.settings, progress=progress)

    def _note_bad(self, fed: Fed, step: int) -> None:
        """Rows that could not be read have left padding; they are counted and named."""
        if not fed.bad:
            return
        self.bad_rows += len(fed.bad)
        at = {"step": step, "epoch": fed.epoch}
        rows = [at | {"row": name, "reason": reason} for name, reason in fed.bad]
        append_rows(self.directory / _bad_rows_name(jax.process_index()), rows)
        name, reason = fed.bad[0]
        self.log(
            f"{len(fed.bad)} of {len(fed.members)} rows of step {step} could not be read "
            f"({self.bad_rows} so far, all in {BAD_ROWS}): {name}: {reason}"
        )


def _bad_rows_name(number: int) -> str:
    """Of the file that a process writes alone."""
    return f"bad_rows.{number}.jsonl" if number else BAD_ROWS


def _drop_bad_rows_after(directory: pathlib.Path, step: int) -> None:
    """In the file of this process, and in its share of those that other numbers of them left."""
    for file in directory.glob("bad_rows*.jsonl"):
        number = file.name.split(".")[1]
        if (int(number) if number.isdigit() else 0) % jax.process_count() == jax.process_index():
            drop_rows_after(file, step)


def _kinds(batch: Sequence[Fed]) -> list[Kind]:
    return [fed.kind for fed in batch]


def _position(run: Run, progress: Mapping[str, Any], log: Callable[[str], None]) -> Position:
    """Where in the data a run goes on: at the next pack, or at a new epoch if the data differ."""
    if "epoch" not in progress:
        return Position()
    epoch = progress["epoch"]
    lines = diff(from_json(json.dumps(progress["run"])), run)
    changes = [line for line in lines if line.partition(":")[0].split(".")[0] in PLANNED]
    if changes:
        log(f"{run.name}: other data than before ({'; '.join(changes)}): begins a new epoch")
        return Position(epoch + 1)
    return Position(epoch, progress["pack"])

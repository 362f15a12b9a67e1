"""A training run: packs in, checkpoints and metrics out; a restart goes on where it stopped."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from etils import epath
from flax import nnx

from mres_jax.config import Run, Schedule, diff, from_json, to_json
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import FILE as TOKENIZER_FILE, Tokenizer
from mres_jax.errors import ConfigError
from mres_jax.files import check_directory, write_together
from mres_jax.models.manifest import ASSETS, list_steps
from mres_jax.models.registry import checkpoint_directory, detect, family_of, resolve
from mres_jax.models.vlm import PackedVLM
from mres_jax.ops import ROW_MULTIPLE
from mres_jax.training.checkpoints import Checkpoints, restore_params
from mres_jax.training.initial import init_local_attention
from mres_jax.training.input.documents import PATCH_CLASSES, document_tokenizer
from mres_jax.training.input.epochs import Epoch, Fed
from mres_jax.training.input.feed import Feed, Position
from mres_jax.training.input.sources import open_data
from mres_jax.training.interrupts import Stop
from mres_jax.training.learner import Learner, Step, TrainState, init_state
from mres_jax.training.meter import Meter, drop_rows_after
from mres_jax.training.optimizer import make_optimizer
from mres_jax.training.parts import adapt, describe_parts, trained_rates
from mres_jax.training.skips import SkipGuard, summable

SHOWN = (
    "patch_char0",
    "token_char0",
    "token_index0",
    "token_colour",
    "token_logo",
)  # in the log's lines
RUN_FILE, CHECKPOINTS = "run.json", "checkpoints"
METRICS, BAD_ROWS = "metrics.jsonl", "bad_rows.jsonl"


class Trained(NamedTuple):
    """What a run leaves in memory."""

    model: PackedVLM
    spec: ProcessorSpec
    tokenizer: Tokenizer
    step: int


def train(run: Run, *, log: Callable[[str], None] = print) -> Trained:
    """Trains to `run.schedule.num_steps`, on from the newest checkpoint in `run.checkpoint.dir`.

    Writes `run.json`, `metrics.jsonl` and checkpoints. SIGTERM and Ctrl-C save before they end it.

    Raises:
      RunError: too many steps were skipped in a row, or the disk is full.
      ConfigError: the directory holds a run of another model.
    """
    directory = check_directory(run.checkpoint.dir)
    _check_same_run(directory, run)
    tokenizer = _tokenizer(run, directory / CHECKPOINTS)
    family = family_of(run.model)
    _check_tokenizer(run.model, tokenizer)
    spec = family.make_spec(run.model, tokenizer.token_id)
    plan = open_data(run, spec, tokenizer, row_multiple=ROW_MULTIPLE, log=log)
    schedule = resolve_schedule(run.schedule, plan, accumulation=run.accumulation)
    rngs = nnx.Rngs(run.seed)
    learner = Learner(
        family.Model(run.model, dtype=run.dtype, remat=run.remat, rngs=rngs),
        patch_classes=PATCH_CLASSES if run.aux_loss_weight else {},
        auxiliary_weight=run.aux_loss_weight,
        loss_chunk=run.loss_chunk,
        rngs=rngs,
    )
    init_local_attention(learner.model.vision)
    if run.peft is not None:
        adapt(learner.model, run.peft, rngs=rngs)
    rates = trained_rates(learner, run.train)
    optimizer = make_optimizer(run.optimizer, schedule, rates)
    graphdef, state = init_state(
        learner,
        optimizer,
        is_trained=lambda path, _: tuple(map(str, path)) in rates,
        param_dtype=run.param_dtype,
        frozen_dtype=run.frozen_dtype or ("bfloat16" if run.peft else run.param_dtype),
    )
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
        state = restore_params(run.init, state, config=run.model)
    steps = _Steps(run, schedule, plan, checkpoints, progress, log)
    plan(steps.position.epoch)  # what is wrong with the data shows before anything is written
    write_together(directory, {RUN_FILE: to_json(run).encode()})
    state = steps.run(state, Step(graphdef, optimizer, average=run.loss_average))
    model = nnx.merge(graphdef, state.params, state.frozen).model
    return Trained(model, spec, tokenizer, int(state.step))


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


def resolve_schedule(
    schedule: Schedule, plan: Callable[[int], Epoch], *, accumulation: int = 1
) -> Schedule:
    """Returns the schedule with steps in place of epochs and fractions.

    Every epoch counts as many packs as the first one has, `accumulation` of them a step.

    Raises:
      ConfigError: more steps than its epochs of the data have.
    """
    steps = schedule.num_steps
    if schedule.epochs is not None:
        most = max(1, schedule.epochs * len(plan(0)) // accumulation)
        if steps is not None and steps > most:
            raise ConfigError(
                f"run: schedule: num_steps={steps}, but epochs={schedule.epochs} of the data have "
                f"{most} steps. Lower num_steps, raise epochs, or leave one of them out."
            )
        steps = steps or most
    assert steps is not None
    warmup = schedule.warmup_steps
    if warmup is None:
        warmup = round(schedule.warmup_fraction * steps)
    return dataclasses.replace(schedule, num_steps=steps, warmup_steps=min(warmup, steps))


def _tokenizer(run: Run, checkpoints: pathlib.Path) -> Tokenizer:
    """The run's own, else that of the run it starts from, else one of the documents' words."""
    if not list_steps(epath.Path(checkpoints)):
        if not run.init:
            return document_tokenizer()
        directory = resolve(
            run.init if isinstance(run.init, str) else next(iter(run.init.values()))
        )
    else:
        directory = checkpoints
    if detect(directory) == "orbax":
        directory = checkpoint_directory(directory) / ASSETS
    file = directory / TOKENIZER_FILE
    if not file.exists():
        raise ConfigError(f"run: {directory} has no {TOKENIZER_FILE}.")
    return Tokenizer.parse(file.read_bytes(), file)


def _check_tokenizer(model: Any, tokenizer: Tokenizer) -> None:
    rows, image = model.text_config.vocab_size, tokenizer.token_id("<|image_pad|>")
    if tokenizer.vocab_size > rows or image != model.image_token_id:
        raise ConfigError(
            f"run: the tokenizer has {tokenizer.vocab_size} tokens and <|image_pad|> at {image}, "
            f"the model has {rows} rows and image_token_id={model.image_token_id}: make them agree."
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
    ):
        self.settings, self.plan, self.checkpoints, self.log = run, plan, checkpoints, log
        self.last = schedule.num_steps or 0
        self.directory = pathlib.Path(run.checkpoint.dir)
        self.bad_rows = progress.get("bad_rows", 0)
        self.meter = Meter(run.log_every, progress.get("sums"))
        self.position = _position(run, progress, log)

    def run(self, state: TrainState, step_fn: Step) -> TrainState:
        """Takes the steps that are left."""
        run, first = self.settings, int(state.step)
        for name in (METRICS, BAD_ROWS):
            drop_rows_after(self.directory / name, first)
        self.log(f"{run.name}: steps {first} to {self.last}, checkpoints in {run.checkpoint.dir}")
        guard, is_due = SkipGuard(run.max_skipped, self.log, saved=first), False
        feed = Feed(
            self.plan,
            position=self.position,
            num_workers=run.num_workers,
            timeout=run.worker_timeout,
        )
        with Stop() as stop, feed, (self.directory / METRICS).open("a") as file:
            for step in range(first + 1, self.last + 1):
                batch = [next(feed) for _ in range(run.accumulation)]
                self.meter.wait_ended()
                for fed in batch:
                    self._note_bad(fed, step)
                    self.meter.saw(fed.pack)
                state, metrics = step_fn(state, [fed.pack for fed in batch])
                guard.add(step, metrics)
                row = self.meter.add(step, summable(metrics))
                if row:
                    end = {"epoch": batch[-1].epoch, "pack": batch[-1].place}
                    row |= {**end, "bad_rows": self.bad_rows}
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    self.log(_line(row))
                is_due = is_due or step % run.checkpoint.every_steps == 0
                is_end = step == self.last or stop.asked is not None
                if row or is_due or is_end:
                    guard.settle()
                if is_end or (is_due and not guard.in_row):  # what only skips is not worth keeping
                    self._save(state, step, feed.position)
                    guard.saved, is_due = step, False
                if stop.asked:
                    self.log(f"{run.name}: stopped by {stop.asked} after step {step}; saved")
                    break
        return state

    def _save(self, state: TrainState, step: int, position: Position) -> None:
        progress = {
            "epoch": position.epoch,
            "pack": position.pack,
            "bad_rows": self.bad_rows,
            "sums": self.meter.sums_so_far(),
        }
        self.checkpoints.save(state, step=step, run=self.settings, progress=progress)

    def _note_bad(self, fed: Fed, step: int) -> None:
        """Rows that could not be read have left padding; they are counted and named."""
        if not fed.bad:
            return
        self.bad_rows += len(fed.bad)
        with (self.directory / BAD_ROWS).open("a") as file:
            for name, reason in fed.bad:
                row = {"step": step, "epoch": fed.epoch, "row": name, "reason": reason}
                file.write(json.dumps(row) + "\n")
        name, reason = fed.bad[0]
        self.log(
            f"{len(fed.bad)} of {len(fed.members)} rows of step {step} could not be read "
            f"({self.bad_rows} so far, all in {BAD_ROWS}): {name}: {reason}"
        )


def _position(run: Run, progress: Mapping[str, Any], log: Callable[[str], None]) -> Position:
    """Where in the data a run goes on: at the next pack, or at a new epoch if the data differ."""
    if "epoch" not in progress:
        return Position()
    old, epoch = from_json(json.dumps(progress["run"])), progress["epoch"]
    changes = [
        f"{name}.{line}" if name != "seed" else line
        for name in ("data", "policies", "ladder")
        for line in diff(getattr(old, name), getattr(run, name))
    ]
    if old.seed != run.seed:
        changes.append(f"seed: {old.seed} -> {run.seed}")
    if changes:
        log(f"{run.name}: other data than before ({'; '.join(changes)}): begins a new epoch")
        return Position(epoch + 1)
    return Position(epoch, progress["pack"])


def _line(row: dict) -> str:
    shown = {k: v for k, v in row.items() if k in ("loss", "accuracy", "grad_norm")}
    shown |= {k: v for k, v in row.items() if k in SHOWN}
    text = " ".join(f"{name} {value:.3f}" for name, value in shown.items())
    return (
        f"step {row['step']:5d} {text} {row['seconds_per_step']:.2f} s/step "
        f"wait {row['data_wait_share']:.0%}"
    )

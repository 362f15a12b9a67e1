"""A training run: packs in, checkpoints and metrics out; a restart goes on where it stopped."""

import json
import math
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
from etils import epath
from flax import nnx

from mres_jax.config import Run, diff, from_json, to_json
from mres_jax.data.documents import VOCABULARY
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import FILE as TOKENIZER_FILE, Tokenizer, build_tiny_tokenizer
from mres_jax.data.types import Pack
from mres_jax.errors import ConfigError, RunError
from mres_jax.files import check_directory, write_together
from mres_jax.models.manifest import ASSETS, list_steps
from mres_jax.models.registry import checkpoint_directory, detect, family_of, resolve
from mres_jax.models.vlm import PackedVLM
from mres_jax.training.checkpoints import Checkpoints, restore_params
from mres_jax.training.initial import init_local_attention
from mres_jax.training.learner import Learner, TrainState, init_state, make_step
from mres_jax.training.optimizer import make_optimizer
from mres_jax.training.parts import adapt, describe_parts, trained_rates
from mres_jax.training.stream import PATCH_CLASSES, DocumentStream

TEMPLATE_WORDS = ("You", "are", "a", "helpful", "assistant", "system", "user")
SHOWN = (
    "patch_char0",
    "token_char0",
    "token_index0",
    "token_colour",
    "token_logo",
)  # in the log's lines
RUN_FILE, CHECKPOINTS = "run.json", "checkpoints"
AHEAD = 3  # packs drawn before they are needed


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
      RunError: the loss is not finite, or the disk is full.
      ConfigError: the directory holds a run of another model.
    """
    directory = check_directory(run.checkpoint.dir)
    _check_same_run(directory, run)
    tokenizer = _tokenizer(run, directory / CHECKPOINTS)
    family = family_of(run.model)
    _check_tokenizer(run.model, tokenizer)
    spec = family.make_spec(run.model, tokenizer.token_id)
    stream = DocumentStream(
        run.data,
        policies=run.policies,
        ladder=run.ladder,
        spec=spec,
        tokenizer=tokenizer,
        seed=run.seed,
    )
    rngs = nnx.Rngs(run.seed)
    learner = Learner(
        family.Model(run.model, rngs=rngs),
        patch_classes=PATCH_CLASSES if run.aux_loss_weight else {},
        auxiliary_weight=run.aux_loss_weight,
        rngs=rngs,
    )
    init_local_attention(learner.model.vision)
    if run.peft is not None:
        adapt(learner.model, run.peft, rngs=rngs)
    rates = trained_rates(learner, run.train)
    optimizer = make_optimizer(run.optimizer, run.schedule, rates)
    graphdef, state = init_state(
        learner,
        optimizer,
        is_trained=lambda path, _: tuple(map(str, path)) in rates,
        frozen_dtype=run.frozen_dtype or ("bfloat16" if run.peft else None),
    )
    if state.frozen:
        log(f"{run.name}: {describe_parts(state.params, state.frozen, rates)}")
    checkpoints = Checkpoints(
        directory / CHECKPOINTS,
        keep=run.checkpoint.keep,
        assets={TOKENIZER_FILE: tokenizer.to_bytes()},
    )
    restored = checkpoints.restore_latest(state, fallback=run.checkpoint.fallback)
    if restored is not None:
        state = restored
    elif run.init:
        state = restore_params(run.init, state, config=run.model)
    write_together(directory, {RUN_FILE: to_json(run).encode()})
    state = _run_steps(run, state, make_step(graphdef, optimizer), stream, checkpoints, log)
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


def document_tokenizer() -> Tokenizer:
    """Bytes, the words of generated documents and of the chat template, control tokens."""
    words = {word for word in (*VOCABULARY, *TEMPLATE_WORDS) if word.isalpha()}
    return Tokenizer(build_tiny_tokenizer(sorted(words)))


def _tokenizer(run: Run, checkpoints: pathlib.Path) -> Tokenizer:
    """The run's own, else that of the run it starts from, else one of the documents' words."""
    if not list_steps(epath.Path(checkpoints)):
        if not run.init:
            return document_tokenizer()
        directory = resolve(run.init)
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


def _run_steps(
    run: Run,
    state: TrainState,
    step_fn: Callable[[TrainState, Pack], tuple[TrainState, Any]],
    stream: DocumentStream,
    checkpoints: Checkpoints,
    log: Callable[[str], None],
) -> TrainState:
    first, last = int(state.step), run.schedule.num_steps
    metrics_file = pathlib.Path(run.checkpoint.dir) / "metrics.jsonl"
    meter, saved = _Meter(run.log_every), first
    log(f"{run.name}: steps {first} to {last}, checkpoints in {run.checkpoint.dir}")
    with _Stop() as stop, metrics_file.open("a") as file:
        for step, pack in zip(range(first, last), prefetch(stream, first, last), strict=True):
            meter.wait_ended()
            state, metrics = step_fn(state, pack)
            is_due = (step + 1) % run.checkpoint.every_steps == 0 or step + 1 == last
            row = meter.add(step + 1, pack, metrics)
            if row:
                file.write(json.dumps(row) + "\n")
                file.flush()
                log(_line(row))
            if row or is_due or stop.asked:
                _check_finite(metrics, step + 1, saved)
            if is_due or stop.asked:
                checkpoints.save(state, step=step + 1, run=run)
                saved = step + 1
            if stop.asked:
                log(f"{run.name}: stopped by {stop.asked} after step {step + 1}; saved")
                break
    return state


def prefetch(stream: DocumentStream, first: int, last: int) -> Iterator[Pack]:
    """Draws the packs of steps `first` to `last - 1` on a thread, a few ahead."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(stream.pack, s) for s in range(first, min(first + AHEAD, last))]
        try:
            for step in range(first, last):
                pack = waiting.pop(0).result()
                if step + AHEAD < last:
                    waiting.append(pool.submit(stream.pack, step + AHEAD))
                yield pack
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Meter:
    """Sums metrics on the device and reads them every few steps, so that steps stay in flight."""

    def __init__(self, every: int):
        self.every, self.sums, self.count = every, None, 0
        self.patches = self.tokens = 0
        self.start = self.ended = time.perf_counter()
        self.waited = 0.0

    def wait_ended(self) -> None:
        """A pack is there: what passed since the last step was waiting for data."""
        self.waited += time.perf_counter() - self.ended

    def add(self, step: int, pack: Pack, metrics: dict) -> dict | None:
        """Returns a row of means when it is time."""
        if self.sums is not None:
            metrics = jax.tree.map(jax.numpy.add, self.sums, metrics)
        self.sums = metrics
        self.count += 1
        self.patches += int((pack.patch_segment_ids > 0).sum())
        self.tokens += int((pack.segment_ids > 0).sum())
        if step % self.every:
            self.ended = time.perf_counter()
            return None
        means = {name: float(value) / self.count for name, value in self.sums.items()}
        seconds = time.perf_counter() - self.start
        row = {"step": step, **means, "seconds_per_step": seconds / self.count}
        row |= {"patches_per_s": self.patches / seconds, "tokens_per_s": self.tokens / seconds}
        row |= {"data_wait_share": self.waited / seconds, "time": time.time()}
        self.__init__(self.every)
        return row


class _Stop:
    """Remembers SIGTERM and SIGINT instead of dying in the middle of a step."""

    def __init__(self):
        self.asked: str | None = None

    def __enter__(self) -> "_Stop":
        self.old: dict[int, Any] = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self.old[number] = signal.signal(number, self._remember)
            except ValueError:  # not the main thread (a notebook, a test): nobody to listen
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: object) -> None:
        self.asked = signal.Signals(number).name
        print(f"{self.asked}: saving after this step", file=sys.stderr)


def _line(row: dict) -> str:
    shown = {k: v for k, v in row.items() if k in ("loss", "accuracy", "grad_norm")}
    shown |= {k: v for k, v in row.items() if k in SHOWN}
    text = " ".join(f"{name} {value:.3f}" for name, value in shown.items())
    return (
        f"step {row['step']:5d} {text} {row['seconds_per_step']:.2f} s/step "
        f"wait {row['data_wait_share']:.0%}"
    )


def _check_finite(metrics: Mapping[str, Any], step: int, saved: int) -> None:
    """Once a loss or gradient is not finite, all that follow are not: the last one tells."""
    for name in ("loss", "grad_norm"):
        if not math.isfinite(value := float(metrics[name])):
            kept = f"; the checkpoint of step {saved} is whole" if saved else ""
            raise RunError(
                f"train: {name} is {value} at step {step}. Lower the learning rate{kept}."
            )

"""What a run begins with, made from its settings: its data opened, and what it trains."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from mres_jax.config import Run, Schedule
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import FILE as TOKENIZER_FILE, Tokenizer
from mres_jax.errors import ConfigError
from mres_jax.models.manifest import list_steps, read_asset
from mres_jax.models.registry import checkpoint_directory, detect, family_of, resolve
from mres_jax.models.tower_config import TowerConfig
from mres_jax.nn import state_shardings
from mres_jax.ops import ROW_MULTIPLE
from mres_jax.training.checkpoints import newest_asset
from mres_jax.training.initial import init_local_attention, init_positions
from mres_jax.training.input.documents import PATCH_CLASSES, document_tokenizer
from mres_jax.training.input.epochs import Epoch
from mres_jax.training.input.sources import open_data
from mres_jax.training.learner import Learner, TrainState, init_state
from mres_jax.training.optimizer import make_optimizer
from mres_jax.training.parts import Path, adapt, trained_rates

CHECKPOINTS = "checkpoints"  # directory in that of a run


class Opened(NamedTuple):
    """What a run reads.

    Attributes:
      tokenizer: that fits the model.
      spec: of the model.
      plan: gives the packs of an epoch by its number.
      schedule: with steps in place of epochs.
    """

    tokenizer: Tokenizer
    spec: ProcessorSpec
    plan: Callable[[int], Epoch]
    schedule: Schedule


def open_run(run: Run, *, log: Callable[[str], None] = lambda line: None) -> Opened:
    """Opens the data of a run for its model.

    The tokenizer is the run's own, else that of what it starts from, else one of the documents'
    words.

    Args:
      run: the settings.
      log: takes a line.

    Raises:
      ConfigError: no tokenizer, or one that does not fit the model; data, ladder or schedule that
        cannot work.
    """
    tokenizer = _find_tokenizer(run, pathlib.Path(run.checkpoint.dir) / CHECKPOINTS)
    _check_tokenizer(run.model, tokenizer)
    spec = family_of(run.model).make_spec(run.model, tokenizer.token_id)
    plan = open_data(run, spec, tokenizer, row_multiple=ROW_MULTIPLE, log=log)
    schedule = resolve_schedule(run.schedule, plan, accumulation=run.accumulation)
    return Opened(tokenizer, spec, plan, schedule)


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
    return in_steps(schedule, steps)


def in_steps(schedule: Schedule, steps: int) -> Schedule:
    """Returns a schedule of so many steps, its warm-up counted in them."""
    warmup = schedule.warmup_steps
    if warmup is None:
        warmup = round(schedule.warmup_fraction * steps)
    return dataclasses.replace(schedule, num_steps=steps, warmup_steps=min(warmup, steps))


def _find_tokenizer(run: Run, checkpoints: pathlib.Path) -> Tokenizer:
    """Files of ours are verified: a flipped bit may well be another word."""
    if list_steps(epath.Path(checkpoints)):
        directory = checkpoints
        data = newest_asset(checkpoints, TOKENIZER_FILE, fallback=run.checkpoint.fallback)
    elif run.init:
        first = run.init if isinstance(run.init, str) else next(iter(run.init.values()))
        directory = resolve(first)
        data = _tokenizer_of(directory)
    else:
        return document_tokenizer()
    if data is None:
        raise ConfigError(f"run: {directory} has no {TOKENIZER_FILE}.")
    return Tokenizer.parse(data, directory / TOKENIZER_FILE)


def _tokenizer_of(directory: pathlib.Path | epath.Path) -> bytes | None:
    """Of a model directory of either kind, or of a run's newest step."""
    if detect(directory) == "orbax":
        return read_asset(checkpoint_directory(directory), TOKENIZER_FILE)
    file = directory / TOKENIZER_FILE
    return file.read_bytes() if file.exists() else None


def _check_tokenizer(model: Any, tokenizer: Tokenizer) -> None:
    rows, expected = model.text_config.vocab_size, model.image_token_id
    has_own = 0 <= expected < rows  # else pictures stand where no token does
    found = {name: tokenizer.find(name) for name in ("<|image_pad|>", "<image>")}
    if tokenizer.vocab_size > rows or (has_own and expected not in found.values()):
        places = " and ".join(f"{name} at {image}" for name, image in found.items())
        raise ConfigError(
            f"run: the tokenizer has {tokenizer.vocab_size} tokens and {places}, the model "
            f"has {rows} rows and image_token_id={expected}: make them agree."
        )


class Setup(NamedTuple):
    """Everything that steps need.

    Attributes:
      graphdef: static part of the learner.
      state: before the first step.
      optimizer: under its schedule.
      rates: multiplier of the learning rate, by path of what is trained.
    """

    graphdef: nnx.GraphDef
    state: TrainState
    optimizer: optax.GradientTransformation
    rates: Mapping[Path, float]


def set_up(run: Run, schedule: Schedule, *, with_start: bool = True) -> Setup:
    """Returns the learner of a run with random weights.

    Args:
      run: the settings.
      schedule: with steps in place of epochs.
      with_start: turn some biases so that small towers learn to read soon; this needs numbers.

    Raises:
      ConfigError: `train` or `peft` fit nothing.
    """
    rngs = nnx.Rngs(run.seed)
    learner = Learner(
        family_of(run.model).Model(run.model, dtype=run.dtype, remat=run.remat, rngs=rngs),
        patch_classes=PATCH_CLASSES if run.aux_loss_weight else {},
        auxiliary_weight=run.aux_loss_weight,
        loss_chunk=run.loss_chunk,
        rngs=rngs,
    )
    if with_start and isinstance(run.model.vision_config, TowerConfig):
        init_local_attention(learner.model.vision)
        init_positions(learner.model.vision)
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
    return Setup(graphdef, state, optimizer, rates)


def set_up_on(mesh: Mesh, run: Run, schedule: Schedule) -> Setup:
    """The same with every array where it lies on a mesh; no device ever holds all of them.

    Random weights are those of `set_up`, up to rounding.
    """
    setup = set_up_abstractly(run, schedule)
    where = state_shardings(setup.state, mesh)
    make = jax.jit(lambda: set_up(run, schedule).state, out_shardings=where)
    return setup._replace(state=make())


def set_up_abstractly(run: Run, schedule: Schedule) -> Setup:
    """The same with shapes in place of arrays: no memory is taken, however large the model is."""
    kept: dict[str, Any] = {}

    def make() -> TrainState:
        kept["setup"] = setup = set_up(run, schedule, with_start=False)
        return setup.state

    state = jax.eval_shape(make)
    return kept["setup"]._replace(state=state)

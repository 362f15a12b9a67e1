"""What a run trains, made from its settings: with arrays, or with their shapes alone."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx

from mres_jax.config import Run, Schedule
from mres_jax.models.registry import family_of
from mres_jax.training.initial import init_local_attention
from mres_jax.training.input.documents import PATCH_CLASSES
from mres_jax.training.learner import Learner, TrainState, init_state
from mres_jax.training.optimizer import make_optimizer
from mres_jax.training.parts import Path, adapt, trained_rates


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
    if with_start:
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
    return Setup(graphdef, state, optimizer, rates)


def set_up_abstractly(run: Run, schedule: Schedule) -> Setup:
    """The same with shapes in place of arrays: no memory is taken, however large the model is."""
    kept: dict[str, Any] = {}

    def make() -> TrainState:
        kept["setup"] = setup = set_up(run, schedule, with_start=False)
        return setup.state

    state = jax.eval_shape(make)
    return kept["setup"]._replace(state=state)

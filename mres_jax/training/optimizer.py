"""Optimisers by name, with a warm-up and a schedule."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from mres_jax.config import OptimizerConfig, Schedule
from mres_jax.training.parts import Path


def make_optimizer(
    config: OptimizerConfig, schedule: Schedule, rates: Mapping[Path, float] | None = None
) -> optax.GradientTransformation:
    """Clips the global norm, then AdamW or Muon under the schedule.

    `rates` are multipliers of the learning rate by path of the parameter, decay included. All but
    biases and norms decays, under either rule.

    Muon orthogonalises the update of every matrix (each layer of a stack on its own) and leaves
    embeddings, heads, norms and biases to AdamW; `consistent_rms=0.2` lets both share one rate.

    Reference:
      Loshchilov & Hutter, 2019, arXiv:1711.05101; Liu et al., 2025, "Muon is scalable",
      arXiv:2502.16982, section 2.2.
    """
    rate = make_schedule(config.learning_rate, schedule)
    if config.name == "adamw":
        update = optax.adamw(
            rate,
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree_util.tree_map_with_path(_is_decayed, params),
        )
    else:
        update = optax.contrib.muon(
            rate,
            beta=0.95,
            weight_decay=config.weight_decay,
            adam_weight_decay=config.weight_decay,
            adam_b1=config.b1,
            adam_b2=config.b2,
            muon_weight_dimension_numbers=_muon_axes,
            consistent_rms=0.2,
        )
        update = _hide_undecayed(update)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), update, _scale_parts(rates))


def _scale_parts(rates: Mapping[Path, float] | None) -> optax.GradientTransformation:
    if rates is None or set(rates.values()) == {1.0}:
        return optax.identity()

    def scale(path: Any, update: jax.Array) -> jax.Array:
        return update * rates[tuple(_names(path))]

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))


def make_schedule(peak: float, schedule: Schedule) -> optax.Schedule:
    """Linear warm-up to `peak`, then down to `end_fraction * peak` by `schedule.kind`.

    The schedule is one that `resolve_schedule` gave, with steps in place of epochs and fractions.
    """
    assert schedule.num_steps is not None, schedule
    warmup_steps = schedule.warmup_steps or 0
    steps = max(1, schedule.num_steps - warmup_steps)
    end = peak * schedule.end_fraction
    after = {
        "cosine": optax.cosine_decay_schedule(peak, steps, alpha=schedule.end_fraction),
        "linear": optax.linear_schedule(peak, end, steps),
        "constant": optax.constant_schedule(peak),
    }
    warmup = optax.linear_schedule(0.0, peak, max(1, warmup_steps))
    return optax.join_schedules([warmup, after[schedule.kind]], [warmup_steps])


def rate_at(peak: float, schedule: Schedule, step: int) -> float:
    """Learning rate of step `step`, from 1; see `make_schedule`."""
    with jax.numpy_dtype_promotion("standard"):
        return np.asarray(make_schedule(peak, schedule)(step - 1)).item()


def _muon_axes(params: Any) -> Any:
    """Matrices `[in, out]` and stacks `[layers, in, out]`; None leaves a parameter to AdamW."""

    def axes(path, x):
        if not _is_kernel(path, x) or "lm_head" in _names(path):
            return None
        return optax.contrib.MuonDimensionNumbers(x.ndim - 2, x.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


def _hide_undecayed(update: optax.GradientTransformation) -> optax.GradientTransformation:
    """For an optimiser that decays all it sees, and looks at values for nothing else."""

    def seen(path: Any, x: jax.Array) -> jax.Array:
        return x if _is_decayed(path, x) else jnp.zeros_like(x)

    def update_fn(updates: Any, state: Any, params: Any = None) -> Any:
        return update.update(updates, state, jax.tree_util.tree_map_with_path(seen, params))

    return optax.GradientTransformation(update.init, update_fn)


def _is_decayed(path: Any, x: Any) -> bool:
    """All but biases and norms, as elsewhere: embeddings and the factors of adapters too."""
    del x
    return _names(path)[-1] not in ("bias", "scale")


def _is_kernel(path: Any, x: Any) -> bool:
    del x
    return _names(path)[-1] == "kernel"


def _names(path: Any) -> list[str]:
    return [str(getattr(entry, "key", "")) for entry in path]

"""The dataclasses of a run file. Units are in the comments."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from mres_jax.config._parts import LoRA, check_train
from mres_jax.config._values import did_you_mean
from mres_jax.errors import ConfigError


def _require(ok: bool, owner: str, message: str) -> None:
    if not ok:
        raise ConfigError(f"{owner}: {message}")


def _check_weights(owner: str, name: str, weights: Mapping[Any, float]) -> None:
    """Weights of a mixture: at least one, finite, none negative, not all zero."""
    values = list(weights.values())
    _require(bool(values), owner, f"{name} is empty; give at least one entry with its weight.")
    for key, value in weights.items():
        ok = isinstance(value, int | float) and math.isfinite(value) and value >= 0
        _require(ok, owner, f"{name}[{key!r}]={value!r} is no weight; give a finite number >= 0.")
    _require(sum(values) > 0, owner, f"{name}: all weights are 0; one must be above.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The mixture of generated documents that a run is trained on; weights need not sum to 1."""

    kinds: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"invoice": 1.0, "table": 1.0, "sign": 1.0, "screen": 1.0}
    )
    questions: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"rc": 0.75, "sc": 0.25}
    )
    images_per_prompt: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"1": 1.0})
    area_bins: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: dict.fromkeys("ABCDEFG", 1.0)
    )  # of the unit 128**2 px, as in RC-Bench
    pairs_per_page: int = 16  # most key-value pairs of a picture of kind `page`
    questions_per_image: int = 4  # turns of one conversation that share their picture
    min_text_height: float = 0.0  # px of a capital as the model sees it; smaller text is not asked

    def __post_init__(self):
        for name in ("kinds", "questions", "images_per_prompt", "area_bins"):
            _check_weights("DataConfig", name, getattr(self, name))
        for key in self.images_per_prompt:
            is_count = key.isdigit() and int(key) >= 1
            _require(is_count, "DataConfig", f"images_per_prompt: {key!r} is no number from 1 on.")
        for name, known in _KNOWN.items():
            for key in getattr(self, name):
                have = f"{did_you_mean(key, known)} Have {', '.join(known)}."
                _require(key in known, "DataConfig", f"{name}: unknown {key!r}.{have}")
        _require(
            self.questions_per_image >= 1,
            "DataConfig",
            f"questions_per_image={self.questions_per_image} must be at least 1.",
        )
        _require(
            self.pairs_per_page >= 1,
            "DataConfig",
            f"pairs_per_page={self.pairs_per_page} must be at least 1.",
        )
        _require(
            self.min_text_height >= 0,
            "DataConfig",
            f"min_text_height={self.min_text_height} must be at least 0.",
        )


_KNOWN = {
    "kinds": ("page", "invoice", "table", "sign", "screen"),
    "questions": ("rc", "sc", "point"),
    "area_bins": tuple("ABCDEFG"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW or Muon with a clipped gradient."""

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3  # at the top of the schedule
    weight_decay: float = 0.0  # of matrices
    b1: float = 0.9
    b2: float = 0.95
    clip_norm: float = 1.0  # of the global gradient

    def __post_init__(self):
        _require(
            self.name in ("adamw", "muon"),
            "OptimizerConfig",
            f"name={self.name!r}; have adamw, muon.",
        )
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            _require(value > 0, "OptimizerConfig", f"{name}={value} must be above 0.")
        _require(
            self.weight_decay >= 0,
            "OptimizerConfig",
            f"weight_decay={self.weight_decay} must be >= 0.",
        )
        for name in ("b1", "b2"):
            value = getattr(self, name)
            _require(0 <= value < 1, "OptimizerConfig", f"{name}={value} must be in [0, 1).")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate over steps: a linear warm-up, then `kind` down to `end_fraction`."""

    num_steps: int
    warmup_steps: int = 0
    kind: Literal["cosine", "linear", "constant"] = "cosine"
    end_fraction: float = 0.0  # of the learning rate, at the last step

    def __post_init__(self):
        _require(self.num_steps >= 1, "Schedule", f"num_steps={self.num_steps} must be at least 1.")
        _require(
            0 <= self.warmup_steps <= self.num_steps,
            "Schedule",
            f"warmup_steps={self.warmup_steps} must be in [0, num_steps={self.num_steps}].",
        )
        _require(
            self.kind in ("cosine", "linear", "constant"),
            "Schedule",
            f"kind={self.kind!r}; have cosine, linear, constant.",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Where and how often a run is saved."""

    dir: str
    every_steps: int = 500
    keep: int = 2  # newest steps that stay
    fallback: bool = False  # where the newest step is damaged, go on from the one before it

    def __post_init__(self):
        _require(bool(self.dir), "CheckpointConfig", "dir is empty; name a directory.")
        for name in ("every_steps", "keep"):
            value = getattr(self, name)
            _require(value >= 1, "CheckpointConfig", f"{name}={value} must be at least 1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that a training run is made of.

    Attributes:
      name: of the run, for logs.
      model: configuration of an assembled model, a dataclass of `mres_jax.models.<family>.config`.
      data: what it is trained on.
      policies: resolution policy string -> weight; each example draws one.
      ladder: `mres_jax.data.types.Rung`s, smallest first.
      optimizer: step rule.
      schedule: length of the run and its learning rate.
      checkpoint: where it is saved.
      seed: of weights, data and policies.
      log_every: steps.
      aux_loss_weight: of the loss that names the character under each patch; 0 leaves it out.
      train: dotted prefix of parameter names -> multiplier of the learning rate; the longest that
        fits counts, "" fits all. What none names is frozen. None trains the whole model at 1.0, or
        with `peft` nothing but the adapters. Auxiliary heads train in any case.
      peft: adapters, which train at 1.0 beside what `train` names.
      frozen_dtype: what frozen parameters are held in; None is bfloat16 under `peft`, else what
        the trained ones have.
      init: checkpoint directory of an earlier run of the same model to start from; its tokenizer
        goes with it. None starts from random weights.
      smoke: overrides that `mres train --smoke` applies, dotted name -> text.
    """

    name: str
    model: Any
    data: DataConfig
    policies: Mapping[str, float]
    ladder: tuple[Any, ...]
    optimizer: OptimizerConfig
    schedule: Schedule
    checkpoint: CheckpointConfig
    seed: int = 0
    log_every: int = 20
    aux_loss_weight: float = 0.0
    train: Mapping[str, float] | None = None
    peft: LoRA | None = None
    frozen_dtype: Literal["float32", "bfloat16"] | None = None
    init: str | None = None
    smoke: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        model_ok = dataclasses.is_dataclass(self.model) and not isinstance(self.model, type)
        _require(model_ok, "Run", f"model is a {type(self.model).__name__}, not a configuration.")
        _check_weights("Run", "policies", self.policies)
        _require(bool(self.ladder), "Run", "ladder is empty; give at least one Rung.")
        check_train(self.train, self.peft)
        _require(
            self.frozen_dtype in (None, "float32", "bfloat16"),
            "Run",
            f"frozen_dtype={self.frozen_dtype!r}; have float32, bfloat16.",
        )
        _require(self.log_every >= 1, "Run", f"log_every={self.log_every} must be at least 1.")
        _require(
            math.isfinite(self.aux_loss_weight) and self.aux_loss_weight >= 0,
            "Run",
            f"aux_loss_weight={self.aux_loss_weight} must be finite and >= 0.",
        )

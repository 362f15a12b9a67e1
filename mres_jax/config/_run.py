"""The dataclasses of a run file. Units are in the comments."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from mres_jax.config._checks import check_weights, require
from mres_jax.config._data import Documents, Rows
from mres_jax.config._evaluate import Evaluate, check_held_out, check_metrics
from mres_jax.config._mesh import MeshConfig
from mres_jax.config._parts import LoRA, check_train


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW or Muon with a clipped gradient."""

    name: Literal["adamw", "muon"] = "adamw"  # muon: of matrices, the rest by adamw
    learning_rate: float = 1e-3  # at the top of the schedule
    weight_decay: float = 0.0  # of all but biases and norms
    b1: float = 0.9  # of the mean of gradients
    b2: float = 0.95  # of the mean of their squares
    clip_norm: float = 1.0  # of the global gradient

    def __post_init__(self):
        require(
            self.name in ("adamw", "muon"),
            "OptimizerConfig",
            f"name={self.name!r}; have adamw, muon.",
        )
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            require(value > 0, "OptimizerConfig", f"{name}={value} must be above 0.")
        require(
            self.weight_decay >= 0,
            "OptimizerConfig",
            f"weight_decay={self.weight_decay} must be >= 0.",
        )
        for name in ("b1", "b2"):
            value = getattr(self, name)
            require(0 <= value < 1, "OptimizerConfig", f"{name}={value} must be in [0, 1).")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate over steps: a linear warm-up, then `kind` down to `end_fraction`.

    A run ends after `num_steps`, or after `epochs` where that is not given. With both, `epochs` is
    the most the data may be used for: steps beyond it are refused before the first one.
    """

    num_steps: int | None = None  # of the optimiser
    epochs: int | None = None  # passes over the data
    warmup_steps: int | None = None  # from 0 to the learning rate
    warmup_fraction: float = 0.0  # of the steps, where `warmup_steps` is not given
    kind: Literal["cosine", "linear", "constant"] = "cosine"  # after the warm-up
    end_fraction: float = 0.0  # of the learning rate, at the last step

    def __post_init__(self):
        given = self.num_steps is not None or self.epochs is not None
        require(given, "Schedule", "give num_steps or epochs.")
        for name in ("num_steps", "epochs"):
            value = getattr(self, name)
            require(value is None or value >= 1, "Schedule", f"{name}={value} must be at least 1.")
        warmup, steps = self.warmup_steps, self.num_steps
        ok = warmup is None or (warmup >= 0 and (steps is None or warmup <= steps))
        require(ok, "Schedule", f"warmup_steps={warmup} must be in [0, num_steps={steps}].")
        require(
            0 <= self.warmup_fraction <= 1,
            "Schedule",
            f"warmup_fraction={self.warmup_fraction} must be in [0, 1].",
        )
        require(
            self.kind in ("cosine", "linear", "constant"),
            "Schedule",
            f"kind={self.kind!r}; have cosine, linear, constant.",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Where and how often a run is saved."""

    dir: str  # of the run: checkpoints, metrics, samples
    every_steps: int = 500  # steps between two saves
    keep: int = 2  # newest steps that stay
    fallback: bool = False  # where the newest step is damaged, go on from the one before it

    def __post_init__(self):
        require(bool(self.dir), "CheckpointConfig", "dir is empty; name a directory.")
        for name in ("every_steps", "keep"):
            value = getattr(self, name)
            require(value >= 1, "CheckpointConfig", f"{name}={value} must be at least 1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that a training run is made of.

    Attributes:
      name: of the run, for logs.
      model: configuration of an assembled model, a dataclass of `mres_jax.models.<family>.config`.
      data: what it is trained on: `Documents` and `Rows`, shuffled together.
      policies: resolution policy string -> weight; each example draws one.
      ladder: `mres_jax.data.types.Rung`s, smallest first.
      fill: index of the rung that packs are filled to; larger ones open only for examples that
        need them.
      balance: packs of a window that are put in order of their attention, up and down in turn, so
        that ranks of a mesh wait less for each other; 0 keeps the drawn order.
      optimizer: step rule.
      schedule: length of the run and its learning rate.
      checkpoint: where it is saved.
      seed: of weights, data and policies.
      num_workers: processes that prepare packs; 0 uses a thread. Results do not depend on it.
      worker_timeout: longest wait for a pack, s; then the run ends and says so.
      step_timeout: longest step of a run of several processes, with its data, compile and save, s;
        one that takes longer prints its stacks and ends, and with it the run.
      log_every: steps.
      metrics: where numbers, pictures and texts go beside JSON lines: `tensorboard`, `wandb`.
      evaluate: what the run is tested on as it goes; None leaves it out.
      aux_loss_weight: of the loss that names the character under each patch; 0 leaves it out.
      train: dotted prefix of parameter names -> multiplier of the learning rate; the longest that
        fits counts, "" fits all. What none names is frozen. None trains the whole model at 1.0, or
        with `peft` nothing but the adapters. Auxiliary heads train in any case.
      peft: adapters, which train at 1.0 beside what `train` names.
      frozen_dtype: what frozen parameters are held in; None is bfloat16 under `peft`, else what
        the trained ones have.
      label_mask: which tokens are learnt: `answer` the answers and what ends them, `released` those
        that the released training code learns.
      loss_average: what the gradient of a step is of: `token` the mean over all its loss tokens,
        `pack` the mean over packs of their means, as in the released training code.
      loss_chunk: tokens whose scores over the vocabulary exist at a time; none is all of a pack.
      accumulation: packs whose gradients make one step.
      mesh: how devices are laid out; ranks of data x fsdp take the packs of a step in turn.
      max_skipped: steps in a row that may be skipped because loss or gradient are not finite.
      dtype: of matrix products; norms, softmax and losses are float32 always. bfloat16 halves
        activations on GPU and TPU; a CPU multiplies it more slowly than float32.
      param_dtype: that trained parameters are held in; gradients and optimiser state are float32.
        With bfloat16, updates below 1/512 of a parameter are lost.
      remat: what the backward pass computes again instead of keeping: `none`, `dots` all but matrix
        products, `full` all but the input of each layer.
      init: what to start from: a run, model directory or hub id of the same model; its tokenizer
        goes with it. Or dotted prefix -> Hugging Face directory or hub id that has this part of the
        model, where the first one's tokenizer is taken. None starts from random weights.
      smoke: overrides that `mres train --smoke` applies, dotted name -> text.
    """

    name: str
    model: Any
    data: tuple[Any, ...]
    policies: Mapping[str, float]
    ladder: tuple[Any, ...]
    optimizer: OptimizerConfig
    schedule: Schedule
    checkpoint: CheckpointConfig
    fill: int = -1
    balance: int = 0
    seed: int = 0
    num_workers: int = 0
    worker_timeout: float = 600.0
    step_timeout: float = 3600.0
    log_every: int = 20
    metrics: tuple[str, ...] = ("tensorboard",)
    evaluate: Evaluate | None = None
    aux_loss_weight: float = 0.0
    train: Mapping[str, float] | None = None
    peft: LoRA | None = None
    frozen_dtype: Literal["float32", "bfloat16"] | None = None
    label_mask: Literal["answer", "released"] = "answer"
    loss_average: Literal["token", "pack"] = "token"
    loss_chunk: int | None = 1024
    accumulation: int = 1
    mesh: MeshConfig = MeshConfig()  # noqa: RUF009, frozen
    max_skipped: int = 10
    dtype: Literal["float32", "bfloat16"] = "float32"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "dots", "full"] = "none"
    init: str | Mapping[str, str] | None = None
    smoke: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        model_ok = dataclasses.is_dataclass(self.model) and not isinstance(self.model, type)
        require(model_ok, "Run", f"model is a {type(self.model).__name__}, not a configuration.")
        check_weights("Run", "policies", self.policies)
        require(bool(self.data), "Run", "data is empty; give Documents or Rows.")
        for part in self.data:
            kind = type(part).__name__
            require(isinstance(part, Documents | Rows), "Run", f"data holds a {kind}.")
        require(bool(self.ladder), "Run", "ladder is empty; give at least one Rung.")
        rungs = len(self.ladder)
        ok = -rungs <= self.fill < rungs
        require(ok, "Run", f"fill={self.fill}, but the ladder has {rungs} rungs, from 0.")
        require(self.balance >= 0, "Run", f"balance={self.balance} must be >= 0 packs.")
        require(self.num_workers >= 0, "Run", f"num_workers={self.num_workers} must be >= 0.")
        require(
            self.worker_timeout > 0,
            "Run",
            f"worker_timeout={self.worker_timeout} must be above 0 s.",
        )
        check_train(self.train, self.peft)
        check_metrics(self.metrics)
        check_held_out(self.data, self.evaluate)
        require(
            self.frozen_dtype in (None, "float32", "bfloat16"),
            "Run",
            f"frozen_dtype={self.frozen_dtype!r}; have float32, bfloat16.",
        )
        require(self.log_every >= 1, "Run", f"log_every={self.log_every} must be at least 1.")
        require(
            math.isfinite(self.aux_loss_weight) and self.aux_loss_weight >= 0,
            "Run",
            f"aux_loss_weight={self.aux_loss_weight} must be finite and >= 0.",
        )
        for name, have in _RUN_CHOICES.items():
            value = getattr(self, name)
            require(value in have, "Run", f"{name}={value!r}; have {', '.join(have)}.")
        for name in ("accumulation", "max_skipped"):
            value = getattr(self, name)
            require(value >= 1, "Run", f"{name}={value} must be at least 1.")
        ranks = self.mesh.ranks
        require(
            self.accumulation % ranks == 0,
            "Run",
            f"accumulation={self.accumulation} packs a step cannot be shared out over the "
            f"{ranks} ranks of the mesh {self.mesh}, data times fsdp. Take accumulation="
            f"{-(-self.accumulation // ranks) * ranks}.",
        )
        chunk = self.loss_chunk
        require(
            chunk is None or chunk >= 1, "Run", f"loss_chunk={chunk} must be at least 1, or none."
        )


_RUN_CHOICES = {
    "label_mask": ("answer", "released"),
    "loss_average": ("token", "pack"),
    "dtype": ("float32", "bfloat16"),
    "param_dtype": ("float32", "bfloat16"),
    "remat": ("none", "dots", "full"),
}

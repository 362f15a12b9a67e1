"""The dataclasses of a run that trains an allocator by rewards."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from mres_jax.config._checks import require
from mres_jax.config._evaluate import check_metrics
from mres_jax.config._mesh import MeshConfig
from mres_jax.config._parts import LoRA, check_train
from mres_jax.config._run import CheckpointConfig, OptimizerConfig, Schedule
from mres_jax.config._server import ServerConfig, is_server, parse_address


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questions:
    """Questions about clips and pictures in a file of rows, see `data.rows.read_questions`."""

    path: str  # of the file, JSON or JSON lines
    folder: str = ""  # that names of files start from; empty: the folder of `path`
    held_out: int = 0  # rows kept from training, for the validation point: the last of the file
    max_frames: int = 32  # of a clip
    fps: float = 2.0  # frames looked at per second of video
    max_pixels: int | None = None  # of a picture or frame at scale 1; None: as the backbone has it
    on_bad: Literal["skip", "raise"] = "skip"  # pixels that cannot be read: another row is asked

    def __post_init__(self):
        require(bool(self.path), "Questions", "path is empty; name a .json or .jsonl file.")
        known = self.on_bad in ("skip", "raise")
        require(known, "Questions", f"on_bad={self.on_bad!r}; have skip, raise.")
        require(self.held_out >= 0, "Questions", f"held_out={self.held_out} must be at least 0.")
        ok = self.max_frames >= 2 and self.fps > 0
        require(
            ok,
            "Questions",
            f"max_frames={self.max_frames} must be at least 2 and fps={self.fps} above 0.",
        )
        ok = self.max_pixels is None or self.max_pixels >= 1
        require(ok, "Questions", f"max_pixels={self.max_pixels} must be at least 1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneTraining:
    """The backbone learns beside the allocator, from the same rollouts.

    Attributes:
      optimizer: step rule.
      every: it takes a step with every so many steps of the run; the allocator takes all. The run's
        schedule, warm-up included, is stretched over the steps that it takes.
      advantage: `grpo` each rollout against all of its prompt, as in the released code; `capo` the
        allocator's own signal, as in the paper.
      train: as in `Run`.
      peft: as in `Run`.
      remat: as in `Run`.
      loss_chunk: tokens whose scores over the vocabulary exist at a time; none is all of a pack.
      ladder: `Rung`s that rollouts are learnt from in; empty: those that they were drawn in. A step
        of learning takes several times the memory of an answer, so its packs may have to be
        shorter.
    """

    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-6)
    )
    every: int = 1
    advantage: Literal["grpo", "capo"] = "grpo"
    train: Mapping[str, float] | None = None
    peft: LoRA | None = None
    remat: Literal["none", "dots", "full"] = "none"
    loss_chunk: int | None = 1024
    ladder: tuple[Any, ...] = ()

    def __post_init__(self):
        owner, chunk = "BackboneTraining", self.loss_chunk
        require(self.every >= 1, owner, f"every={self.every} must be at least 1.")
        for name, known in (
            ("advantage", ("grpo", "capo")),
            ("remat", ("none", "dots", "full")),
        ):
            value = getattr(self, name)
            require(value in known, owner, f"{name}={value!r}; have {', '.join(known)}.")
        require(chunk is None or chunk >= 1, owner, f"loss_chunk={chunk} must be at least 1.")
        check_train(self.train, self.peft)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllocatorRun:
    """Everything that the training of an allocator is made of.

    One step: `prompts` questions, `allocations` drawn for each, `rollouts` answers under each,
    their rewards, then `updates` optimiser steps over equal parts of the questions.

    Attributes:
      name: of the run, for logs.
      backbone: the model that answers: a directory or hub id, or the address of a server,
        `http://host:port/v1#name`; None is the shipped mres-tiny.
      server: how a served backbone is asked; of no use to others.
      eyes: the frozen model that the allocator sees through.
      network: an `AllocatorConfig`.
      data: `Questions`.
      optimizer: step rule of the allocator.
      schedule: length of the run in steps, and its learning rates.
      checkpoint: where it is saved; the allocator itself stands in `allocator/` there.
      capo: a `CAPO`, constants and forms of the advantages.
      ppo: a `PPO`, limits of the ratio, of allocator and backbone.
      similarity: a `Similarity`; None leaves the term out.
      concentration: a `Concentration`; None leaves the term out.
      rules: a `RewardRules`; None is the paper's.
      reward: `type`: by the type of each row; a kind of `mres_jax.rewards.reward` for all of them;
        or `path.py:function`, called with an answer and its row.
      wire: what a clip is to the backbone: `stills`, each frame a picture of its own size; `pairs`,
        one clip whose pairs of frames have sizes of their own, or behind a server a clip for each
        pair.
      times: under `stills` the time of each frame of a clip is written before it. A clip that stays
        one has its times as its model reads them; pairs behind a server always have them.
      cost: `linear` the mean scale; `token` true visual tokens.
      prompts: questions of a step.
      allocations: of each question, M; at least 2, or with `CAPO(unit="rollout")` 2 rollouts.
      rollouts: under each allocation, N.
      updates: optimiser steps of a batch of rollouts; the first is on-policy.
      clips_per_pack: clips that the allocator draws for and learns from at a time, on every rank of
        the mesh; gradients are added up.
      drop_agreeing: leave out questions whose rollouts teach nothing about answers: of which the
        allocator would see one accuracy, and the backbone advantages of 0. Those that neither
        learns from are counted as dropped. Neither paper nor released code leaves any out, and what
        is cheaper is learnt from right answers.
      temperature: of rollouts.
      top_p: of rollouts.
      top_k: of rollouts; 0 keeps all.
      max_new_tokens: of an answer.
      backbone_training: None keeps the backbone frozen.
      dtype: that the backbone computes in.
      ladder: `Rung`s of rollouts; empty: chosen for the backbone.
      mesh: how devices are laid out; ranks of data x fsdp learn from packs of an update in turn.
      gather_for_answers: the backbone's weights are gathered along `fsdp` once for all answers of a
        step, in `dtype`, and dropped behind them; otherwise every token gathers them. A device then
        holds a copy of all of them, but for what `tensor` shares out, while answers grow: `mres
        plan` says whether it fits. Of no use without `fsdp` or to a backbone behind a server.
      strip_every: steps between two pictures of what a clip was allocated.
      crowded: share of scales within a twentieth of one end of the range that is warned of.
      retention: of the validation point; None takes the scales as they are.
      seed: of weights, order, allocations and answers.
      max_skipped: updates in a row, of allocator or backbone, that may be skipped because loss or
        gradient are not finite.
      log_every: steps between two lines of the log; every step has its row of metrics.
      metrics: as in `Run`.
      smoke: as in `Run`.
    """

    name: str
    network: Any
    data: Questions
    optimizer: OptimizerConfig
    schedule: Schedule
    checkpoint: CheckpointConfig
    capo: Any
    ppo: Any
    similarity: Any = None
    concentration: Any = None
    rules: Any = None
    backbone: str | None = None
    server: ServerConfig = ServerConfig()  # noqa: RUF009, frozen
    eyes: str = "mres-tiny"
    reward: str = "type"
    wire: Literal["stills", "pairs"] = "stills"
    times: bool = False
    cost: Literal["linear", "token"] = "linear"
    prompts: int = 8
    allocations: int = 16
    rollouts: int = 1
    updates: int = 1
    clips_per_pack: int = 8
    drop_agreeing: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 16
    backbone_training: BackboneTraining | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    ladder: tuple[Any, ...] = ()
    mesh: MeshConfig = MeshConfig()  # noqa: RUF009, frozen
    gather_for_answers: bool = False
    strip_every: int = 50
    crowded: float = 0.9
    retention: float | None = None
    seed: int = 0
    max_skipped: int = 10
    log_every: int = 1
    metrics: tuple[str, ...] = ()
    smoke: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name in ("network", "capo", "ppo"):
            value = getattr(self, name)
            ok = dataclasses.is_dataclass(value) and not isinstance(value, type)
            require(ok, "AllocatorRun", f"{name} is a {type(value).__name__}, no configuration.")
        for name in _COUNTS:
            value = getattr(self, name)
            require(value >= 1, "AllocatorRun", f"{name}={value} must be at least 1.")
        require(
            self.prompts % self.updates == 0,
            "AllocatorRun",
            f"prompts={self.prompts} cannot be divided among updates={self.updates}.",
        )
        _check_ranks(self)
        require(
            self.allocations > 1,
            "AllocatorRun",
            f"allocations={self.allocations}, but an allocator learns from how the allocations of "
            "one question differ. Take allocations=2 or more.",
        )
        require(
            self.temperature > 0,
            "AllocatorRun",
            f"temperature={self.temperature} must be above 0: rollouts are drawn.",
        )
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            require(value in known, "AllocatorRun", f"{name}={value!r}; have {', '.join(known)}.")
        require(
            self.schedule.num_steps is not None and self.schedule.epochs is None,
            "AllocatorRun",
            "schedule has a length in steps, not in epochs: give num_steps alone.",
        )
        ok = self.retention is None or self.retention > 0
        require(ok, "AllocatorRun", f"retention={self.retention} must be above 0.")
        ok = not self.times or self.wire == "stills"
        require(ok, "AllocatorRun", "times=true is of wire=stills; other clips have theirs.")
        if is_server(self.backbone):
            _check_served(self)
        check_metrics(self.metrics)

    @property
    def rungs(self) -> tuple[Any, ...]:
        """All that the run names: of its answers, and of what its backbone learns from."""
        learning = self.backbone_training
        return self.ladder + (() if learning is None else learning.ladder)


def _check_served(run: AllocatorRun) -> None:
    """Refuses what a backbone behind a server cannot do."""
    parse_address(str(run.backbone))
    require(
        run.backbone_training is None,
        "AllocatorRun",
        f"backbone_training, but {run.backbone} is a server: it keeps its weights, and tells no "
        "log-probabilities that a learner here could find again. Leave backbone_training out, or "
        "name a backbone on this machine.",
    )
    require(
        run.server.processor is not None,
        "AllocatorRun",
        f"backbone={run.backbone} needs server.processor: the directory or hub id of the served "
        "model, whose config.json and tokenizer.json tell what its pictures cost.",
    )


def _check_ranks(run: AllocatorRun) -> None:
    """Refuses packs of an update that do not go round."""
    size, ranks = run.prompts // run.updates, run.mesh.ranks
    packs = -(-size // run.clips_per_pack)
    share = -(-size // ranks)
    prompts = f"prompts={share * ranks * run.updates}, " if size % ranks else ""
    require(
        packs % ranks == 0,
        "AllocatorRun",
        f"the {size} questions of an update in packs of clips_per_pack={run.clips_per_pack} cannot "
        f"be shared out over the {ranks} ranks of the mesh {run.mesh}, data times fsdp (packs: "
        f"{packs}). Take {prompts}clips_per_pack={share}.",
    )


_COUNTS = ("prompts", "allocations", "rollouts", "updates", "max_new_tokens", "strip_every")
_COUNTS += ("log_every", "clips_per_pack", "max_skipped")
_CHOICES = {
    "wire": ("stills", "pairs"),
    "cost": ("linear", "token"),
    "dtype": ("float32", "bfloat16"),
}

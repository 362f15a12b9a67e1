"""The dataclasses of an evaluation's run file. Units are in the comments."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any, Literal

from mres_jax.config._checks import require
from mres_jax.config._server import is_server
from mres_jax.config._values import did_you_mean

BENCHMARKS = (
    *("rcbench", "hrbench4k", "hrbench8k", "vstar_bench", "screenspot_pro", "textvqa_val"),
    *("chartqa", "docvqa_val", "ocrbench", "videomme", "charades_sta"),
)
BUDGET = "{budget}"  # in a policy: the place of each of the run's budgets
_NAME = re.compile(r"[\w][\w.+-]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generated:
    """Questions about generated documents: fresh ones for every seed, round all 35 cells."""

    num_questions: int = 1_000  # of each seed
    types: tuple[str, ...] = ("rc", "sc")  # rc reads, sc sees, point points; one of each a document
    name: str = "generated"  # in results

    def __post_init__(self):
        count, known = self.num_questions, ("rc", "sc", "point")
        require(count >= 1, "Generated", f"num_questions={count} must be at least 1.")
        require(bool(self.types), "Generated", "types is empty; give rc, sc or both.")
        for kind in self.types:
            have = f"{did_you_mean(kind, known)} Have {', '.join(known)}."
            require(kind in known, "Generated", f"types: unknown {kind!r}.{have}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionFile:
    """Rows {id, images or video, question, answer, options, metric}: JSON lines or a JSON list."""

    path: str  # of the file, or of a folder with rows.jsonl
    images: str | None = None  # folder that picture names start from; None: where the file is
    metric: str | None = None  # of rows that name none; None: choice with options, else exact
    name: str = ""  # in results; empty: that of the file

    def __post_init__(self):
        require(bool(self.path), "QuestionFile", "path is empty; name a file of questions.")
        if not self.name:
            object.__setattr__(self, "name", _name_of(self.path))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A local copy of a benchmark in its released form, or a set of `mres rcbench make`."""

    name: str  # one of `BENCHMARKS`; those of lmms-eval have its names
    path: str  # of the copy
    label: str = ""  # in results, where a run holds several copies; empty: its name

    def __post_init__(self):
        have = f"{did_you_mean(self.name, BENCHMARKS)} Have {', '.join(BENCHMARKS)}."
        require(self.name in BENCHMARKS, "Benchmark", f"unknown {self.name!r}.{have}")
        require(bool(self.path), "Benchmark", f"{self.name}: path is empty; name its copy.")

    @property
    def called(self) -> str:
        """Name in results."""
        return self.label or self.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalRun:
    """An evaluation: every model under every policy, asked every task, for every seed.

    Attributes:
      name: of the evaluation, for reports.
      out: directory of its results.
      tasks: `Generated`, `QuestionFile` and `Benchmark`; their names, or labels, differ.
      models: name in results -> directory, hub id or address of a server.
      processors: name of a server among them -> directory or hub id of the model behind it, whose
        processor counts its tokens. Others are counted by Qwen2-VL's rule, 28 px a side.
      adapters: name of a model here -> directory of low-rank adapters in `peft`'s format.
      policies: strings; `{budget}` in one stands for each of `budgets` in turn, and `no picture`
        asks without the pictures. Empty: what each model was trained with.
      budgets: that policies with `{budget}` are crossed with, visual tokens or whatever the policy
        takes there.
      seeds: of generated questions and of drawn tokens.
      temperature: of answers; 0 is greedy.
      top_p: of answers that are drawn; 1 keeps all tokens.
      max_new_tokens: of an answer.
      suffix: put behind every question, for example a wish for short answers.
      batch: questions answered between two writes. Resumed runs give the same bits because their
        batches are the same.
      limit: questions of a task at most, the first ones; None asks all.
      dtype: of weights and arithmetic; None takes what suits the device.
      weights: `int8` rounds the kernels of linear layers; None keeps them.
      timeout: of a server for one answer, s; None takes 120.
      smoke: overrides that `mres eval --smoke` applies, dotted name -> text.
    """

    name: str
    out: str
    tasks: tuple[Any, ...]
    models: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"mres-tiny": "mres-tiny"}
    )
    processors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    adapters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    policies: tuple[str, ...] = ()
    budgets: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0,)
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 32
    suffix: str = ""
    batch: int = 32
    limit: int | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    weights: Literal["int8"] | None = None
    timeout: float | None = None
    smoke: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name in ("name", "out", "tasks", "models", "seeds"):
            require(bool(getattr(self, name)), "EvalRun", f"{name} is empty.")
        for part in self.tasks:
            ok = isinstance(part, Generated | QuestionFile | Benchmark)
            require(ok, "EvalRun", f"tasks holds a {type(part).__name__}.")
        names = [_called(task) for task in self.tasks]
        for kind, given in (("tasks", names), ("models", list(self.models))):
            for name in given:
                ok = bool(_NAME.fullmatch(name))
                require(ok, "EvalRun", f"{kind}: {name!r} is no name; use letters, digits, .+-_")
                two = f"{kind}: two are called {name!r}; tell them apart by name= ("
                require(given.count(name) == 1, "EvalRun", f"{two}of a Benchmark label=).")
        served = [name for name, source in self.models.items() if is_server(source)]
        for name in self.processors:
            have = f"{did_you_mean(name, served)} Have {', '.join(served) or 'no server'}."
            require(name in served, "EvalRun", f"processors: {name!r} is no server's name.{have}")
        here = [name for name in self.models if name not in served]
        for name in self.adapters:
            have = f"{did_you_mean(name, here)} Have {', '.join(here) or 'servers alone'}."
            require(name in here, "EvalRun", f"adapters: {name!r} is no model here.{have}")
        self._check_numbers()
        self._check_crossing()

    def _check_numbers(self) -> None:
        for name in ("max_new_tokens", "batch"):
            value = getattr(self, name)
            require(value >= 1, "EvalRun", f"{name}={value} must be at least 1.")
        ok = self.timeout is None or self.timeout > 0
        require(ok, "EvalRun", f"timeout={self.timeout} s must be above 0.")
        limit, heat = self.limit, self.temperature
        require(limit is None or limit >= 1, "EvalRun", f"limit={limit} must be at least 1.")
        ok = math.isfinite(heat) and heat >= 0 and 0 < self.top_p <= 1
        require(ok, "EvalRun", f"temperature={heat} must be >= 0, top_p={self.top_p} in (0, 1].")
        ok = heat > 0 or self.top_p == 1
        idle = f"top_p={self.top_p} does nothing at temperature=0; set one, or leave it out."
        require(ok, "EvalRun", idle)
        for seed in self.seeds:
            require(seed >= 0, "EvalRun", f"seeds: {seed} must not be negative.")
            require(self.seeds.count(seed) == 1, "EvalRun", f"seeds: {seed} stands there twice.")

    def _check_crossing(self) -> None:
        crossed = any(BUDGET in policy for policy in self.policies)
        require(
            crossed == bool(self.budgets),
            "EvalRun",
            f"budgets={list(self.budgets)} and {'a' if crossed else 'no'} policy with {BUDGET}: "
            "give both or neither.",
        )
        policies = self.crossed_policies
        for policy in policies:
            require(policies.count(policy) == 1, "EvalRun", f"policies: {policy} stands twice.")
        fixed = [_called(task) for task in self.tasks if not isinstance(task, Generated)]
        if len(self.seeds) > 1 and not self.temperature and fixed:
            require(
                False,
                "EvalRun",
                f"seeds={list(self.seeds)} with temperature=0 ask {fixed[0]} the same questions "
                "for the same answers. Give one seed, or a temperature.",
            )

    @property
    def crossed_policies(self) -> tuple[str, ...]:
        """Policies with the budgets in their places."""
        crossed: list[str] = []
        for policy in self.policies:
            budgets = self.budgets if BUDGET in policy else (0,)
            crossed += [policy.replace(BUDGET, str(budget)) for budget in budgets]
        return tuple(crossed)


def _called(task: Any) -> str:
    return task.called if isinstance(task, Benchmark) else task.name


def _name_of(path: str) -> str:
    """A file's name as that of a task; `rows.jsonl` goes by its folder."""
    place = pathlib.Path(path)
    stem = place.absolute().parent.name if place.stem == "rows" else place.stem
    return re.sub(r"[^\w.+-]+", "-", stem).strip("-.") or "questions"

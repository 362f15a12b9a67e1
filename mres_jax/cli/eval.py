"""`mres eval`: asks what a run file, or a file of questions, describes; goes on by itself."""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mres_jax.cli._report import (
    find_model,
    open_model,
    open_server,
    progress,
    refuse_options,
    say_guessed,
    versions,
)
from mres_jax.cli._table import print_table
from mres_jax.config import (
    BENCHMARKS,
    Benchmark,
    EvalRun,
    Generated,
    QuestionFile,
    did_you_mean,
    is_server,
    load_eval_run,
    to_json,
)
from mres_jax.errors import ConfigError

if TYPE_CHECKING:
    from mres_jax.evaluation.arms import ArmResult, Entrant

# nothing in a run file is called so
_OF_TASKS = ("model", "processor", "adapter", "policy", "seed", "metric", "images")
_OF_QUESTIONS = ("metric", "images")  # of a file: other tasks have their own
_OF_BOTH = ("out", "limit", "max_new_tokens", "weights", "timeout")
_FILES = ("hrbench4k", "hrbench8k")  # benchmarks that are one file; others are folders


def run(args: argparse.Namespace) -> int:
    """Evaluates, prints the table, names the files."""
    evaluation = _described(args)
    if args.print_config:
        print(to_json(evaluation), end="")
        return 0
    entrants = {
        name: _entrant(name, source, evaluation) for name, source in evaluation.models.items()
    }
    # said before the heavy imports
    progress(f"{evaluation.name}: {len(evaluation.tasks)} tasks, {len(entrants)} models")
    from mres_jax.evaluation.arms import run_evaluation

    results = run_evaluation(evaluation, entrants, versions=versions(), log=progress)
    if not results:  # ended by a signal, after what was said of it
        return 0
    _print(results, evaluation.name)
    out = evaluation.out
    progress(f"wrote {out}/summary.json, results.csv, scores.png; mres report {out} makes a page")
    return 0


def _described(args: argparse.Namespace) -> EvalRun:
    if args.file.endswith(".py"):
        given = [name for name in _OF_TASKS if getattr(args, name) is not None]
        if given:
            raise ConfigError(
                f"eval: --{given[0]} goes with a task, not with a run file; change its fields, for "
                "example --policies=native,budget:64."
            )
        same = {name: getattr(args, name) for name in _OF_BOTH}
        fields = [f"{name}={value}" for name, value in same.items() if value is not None]
        return load_eval_run(args.file, [*args.overrides, *fields], smoke=args.smoke)
    if args.smoke or args.overrides:
        what = args.overrides[0] if args.overrides else "--smoke"
        raise ConfigError(f"eval: {what} goes with a run file, and {args.file} is none.")
    task = _task(args)
    if args.out is None:
        raise ConfigError("eval: name a directory for the results with -o.")
    if not isinstance(task, QuestionFile):
        for name in _OF_QUESTIONS:
            if getattr(args, name) is not None:
                raise ConfigError(
                    f"eval: --{name} goes with a file of questions; {args.file} has its own. Leave "
                    "it out."
                )
    models = _named(args.model or ["mres-tiny"])
    served = [name for name, source in models.items() if is_server(source)]
    if not served:
        refuse_options("eval", None, processor=args.processor, timeout=args.timeout)
    here = [name for name in models if name not in served]
    if not here:
        refuse_options("eval", models[served[0]], weights=args.weights, adapter=args.adapter)
    return EvalRun(
        name=pathlib.Path(args.out).absolute().name,
        out=args.out,
        tasks=(task,),
        models=models,
        processors={name: args.processor for name in served} if args.processor else {},
        adapters={name: args.adapter for name in here} if args.adapter else {},
        policies=tuple(args.policy or ()),
        seeds=(0 if args.seed is None else args.seed,),
        max_new_tokens=32 if args.max_new_tokens is None else args.max_new_tokens,
        limit=args.limit,
        weights=args.weights,
        timeout=args.timeout,
    )


def _task(args: argparse.Namespace) -> Any:
    """What the task's word means: `generated[:N]`, `BENCHMARK:PATH`, a set, a file."""
    word, _, rest = args.file.partition(":")
    if word == "generated":
        if rest and not rest.isdigit():
            raise ConfigError(f"eval: generated:{rest}: the number of questions is a whole number.")
        return Generated(num_questions=int(rest)) if rest else Generated()
    if word in BENCHMARKS and rest:
        return Benchmark(name=word, path=rest)
    path = pathlib.Path(args.file)
    if (path / "card.json").is_file():
        return Benchmark(name="rcbench", path=args.file)
    if word in BENCHMARKS and not path.exists():
        form = f"{word}:{'FILE' if word in _FILES else 'DIR'}"
        raise ConfigError(f"eval: {word} needs the path of a local copy: {form}.")
    if not path.exists():
        raise ConfigError(
            f"eval: no task {args.file!r}.{did_you_mean(word, ('generated', *BENCHMARKS))} Give a "
            f"run file, a file of questions, a folder with rows.jsonl, generated[:N], or one of "
            f"{', '.join(BENCHMARKS)} with :PATH."
        )
    return QuestionFile(path=args.file, images=args.images, metric=args.metric)


def _named(models: Sequence[str]) -> dict[str, str]:
    """Models by what they are called in results: the last part of their path or address."""
    named: dict[str, str] = {}
    for model in models:
        name = model.rstrip("/").replace("#", "/").rpartition("/")[2] or model
        if name in named:
            raise ConfigError(
                f"eval: {named[name]} and {model} would both be called {name}; name them in a run "
                "file."
            )
        named[name] = model
    return named


def _entrant(name: str, source: str, run: EvalRun) -> "Entrant":
    """A model that is there, with its processor, but not loaded yet."""
    from mres_jax.evaluation.arms import Contestant, Entrant

    if is_server(source):
        server = open_server(source, processor=run.processors.get(name), timeout=run.timeout)

        def ask() -> Contestant:
            say_guessed(server)
            return Contestant.of_server(name, server)

        return Entrant(spec=server.spec, policy=server.policy, open=ask)
    from mres_jax.models.registry import describe

    place = find_model(source)
    *_, described = describe(place.directory)

    def load() -> Contestant:
        adapter = run.adapters.get(name)
        vlm = open_model(place, dtype=run.dtype, weights=run.weights, adapter=adapter)
        return Contestant.of_model(name, source, vlm)

    policy = described.policy or described.spec.default_policy
    return Entrant(spec=described.spec, policy=policy, open=load)


def _print(results: "Sequence[ArmResult]", name: str) -> None:
    from mres_jax.evaluation.arms.points import points_of

    points = points_of(results)
    headers = ["model", "task", "policy", "questions", "score", "visual tokens", "retention", "ms"]
    print_table(
        headers,
        [
            [
                point.arm.model,
                f"{point.task} {point.type}".strip(),
                point.arm.policy,
                f"{point.num_questions:,}",
                "{:.3f} [{:.3f}, {:.3f}]".format(*point.score),
                f"{point.visual_tokens:,.0f}",
                f"{point.retention_ratio:.2f}",
                "-" if point.ms is None else f"{point.ms:,.1f}",
            ]
            for point in points
        ],
        title=f"{name}: mean scores with 95 % intervals",
    )
    beside = [
        [result.model, result.task, result.policy, str(result.seed), *text]
        for result in results
        for text in _counted_beside(result.summary["benchmark"])
    ]
    if beside:
        print_table(["model", "task", "policy", "seed", "number", "value"], beside)
    for result in results:
        if notes := result.summary.get("notes"):
            asked = result.summary["num_questions"]
            progress(
                f"note: {result.task}, {result.policy}: {notes['count']:,} of {asked:,} answers "
                f"have a note in samples.jsonl, the first: {notes['first']}"
            )


def _counted_beside(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a benchmark counts beside its mean score, in words."""
    return [
        (f"{name} of {value['num_groups']:,}", "{:.3f} [{:.3f}, {:.3f}]".format(*value["score"]))
        if isinstance(value, Mapping)
        else (name, f"{value:.3f}")
        for name, value in numbers.items()
    ]

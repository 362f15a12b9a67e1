"""`mres resolution`: the one resolution that suits a task, with its curve and its confidence."""

import argparse
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mres_jax.cli._report import (
    find_model,
    open_model,
    open_server,
    progress,
    refuse_options,
    say_guessed,
)
from mres_jax.cli._table import print_table
from mres_jax.config import is_server, parse_address
from mres_jax.data.rows import Task, read_task
from mres_jax.data.rows.tasks import rows_file
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.video import FrameSampling
from mres_jax.errors import ConfigError, MresError
from mres_jax.evaluation.resolution_curve import draw_curve
from mres_jax.files import check_directory, write_together
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.handle import SHIPPED
from mres_jax.inference.remote import RemoteAnswerer
from mres_jax.inference.show import file_stem
from mres_jax.resolution.complexity import find_complexity
from mres_jax.resolution.cost import visual_tokens
from mres_jax.resolution.policies import parse_policy
from mres_jax.resolution.task import (
    Candidate,
    Choice,
    Formula,
    MeasuredTask,
    calibrate,
    candidate_of,
    choose_by_formula,
    choose_by_sweep,
    constant_error,
    default_candidates,
    leave_one_out,
    measure_task,
    select_per_image,
)
from mres_jax.resolution.task.candidates import in_order
from mres_jax.resolution.task.formula import check_number, check_scores
from mres_jax.resolution.task.measure import LEAST_ROWS
from mres_jax.resolution.task_policy import choice_file, read_choice_file

# Where neither an option nor the file of --calibration says.
_DEFAULTS = {"combine": "product", "complexity": "mdl", "perturbations": 3}


class Result(NamedTuple):
    """What was found out about a task."""

    task: MeasuredTask
    choices: list[Choice]  # the one that counts first
    facts: dict[str, Any]


def run(args: argparse.Namespace) -> int:
    """Measures, chooses, prints, writes."""
    if args.reference and args.calibration:
        raise ConfigError("resolution: give --reference or --calibration, not both.")
    if args.combine and args.calibration:
        raise ConfigError(
            f"resolution: --combine {args.combine} is of fitting, and --calibration "
            f"{args.calibration} is fitted. Leave --combine out, or give --reference."
        )
    _check_numbers(args)
    _check_once([args.task, *(args.reference or ())])
    if args.reference:
        check_number(len(args.reference), args.combine or _DEFAULTS["combine"])
    check_directory(args.out)
    task = read_task(args.task, least=LEAST_ROWS)
    references = [read_task(directory, least=LEAST_ROWS) for directory in args.reference or ()]
    for each in references:
        if not each.is_graded:
            raise ConfigError(f"resolution: reference task {each.name} has rows without an answer.")
    kept = _read_kept(args.calibration)
    formula = _kept_formula(args.calibration, kept)
    _settle(args, kept)
    find_complexity(args.complexity)
    if not task.is_graded and not references and formula is None:
        raise ConfigError(
            f"resolution: task {task.name} has rows without an answer, so a sweep cannot choose. "
            "Give answers, --reference tasks that have them, or --calibration."
        )
    for each in (*references, task):
        _check_pictures(each)
    name, answerer = _open(args)
    candidates = _candidates(args.candidate, answerer)
    policies = [candidate.policy for candidate in candidates]
    _compare("candidates", ", ".join(policies), ", ".join(_kept_policies(kept)), args.calibration)
    if args.mean_tokens is not None:
        _check_mean(task, args.mean_tokens, candidates[0].policy, answerer.spec)
    if isinstance(answerer, RemoteAnswerer):
        say_guessed(answerer)
    result = _find_out(args, answerer, candidates, task, references, formula)
    result.facts.update(task=task.name, model=name)
    paths = _write(args.out, result)
    if args.json:
        print(json.dumps({**result.facts, "policy": result.choices[0].policy}, indent=2))
    else:
        _print(result)
    progress(f"wrote {', '.join(map(str, paths))}; use it as -p task,file={paths[0]}")
    return 0


def _check_numbers(args: argparse.Namespace) -> None:
    least = {"max-new-tokens": 1, "perturbations": 1, "seed": 0}
    for option, smallest in least.items():
        value = getattr(args, option.replace("-", "_"))
        if value is not None and value < smallest:
            raise ConfigError(f"resolution: --{option} {value} must be at least {smallest}.")
    mean = args.mean_tokens
    if mean is not None and not (math.isfinite(mean) and mean > 0):
        raise ConfigError(f"resolution: --mean-tokens {mean} must be finite and above 0.")


def _check_once(directories: Sequence[str]) -> None:
    """Refuses a task that is given twice: it would count twice, or be fitted to itself."""
    seen: dict[str, str] = {}
    for directory in directories:
        place = os.path.realpath(rows_file(pathlib.Path(directory)))
        if place in seen:
            raise ConfigError(
                f"resolution: {seen[place]} and {directory} are one task. Give each once, as "
                "--task or as --reference."
            )
        seen[place] = directory


def _check_mean(task: Task, mean_tokens: float, policy: str, spec: ProcessorSpec) -> None:
    """Refuses a mean below the smallest candidate's; of clips that is known only once asked."""
    if any(row.clips for row in task.rows):
        return
    parsed = parse_policy(policy)
    tokens = [visual_tokens(parsed(row.sizes(), row.prompt, spec), spec) for row in task.rows]
    least = sum(tokens) / len(tokens)
    if mean_tokens < least:
        raise ConfigError(
            f"resolution: --mean-tokens {mean_tokens:g} is below the {least:g} that {policy} takes "
            f"of task {task.name}. Raise it, or add smaller candidates."
        )


def _check_pictures(task: Task) -> None:
    """Decodes every picture once, before hours of answers; frames and videos are left for later."""
    for row in task.rows:
        try:
            row.images()
        except MresError as error:
            raise ConfigError(f"resolution: task {task.name}: {error}") from None


def _open(args: argparse.Namespace) -> tuple[str, LocalAnswerer | RemoteAnswerer]:
    model, of_server = args.model, {"processor": args.processor, "timeout": args.timeout}
    if is_server(model):
        refuse_options("resolution", model, adapter=args.adapter)
        return model, open_server(model, logprobs=True, **of_server)
    refuse_options("resolution", model, **of_server)
    place = find_model(model)
    return place.name, open_model(place, adapter=args.adapter).answerer


def _candidates(
    policies: Sequence[str] | None, answerer: LocalAnswerer | RemoteAnswerer
) -> list[Candidate]:
    if not policies:
        return default_candidates(answerer.spec)
    return in_order([candidate_of(policy, answerer.spec) for policy in policies])


def _read_kept(file: str | None) -> Mapping[str, Any]:
    """What stands in the file of --calibration; nothing without one."""
    return {} if file is None else read_choice_file(file)


def _kept_formula(file: str | None, kept: Mapping[str, Any]) -> Formula | None:
    if file is None:
        return None
    if kept.get("calibration") is None:
        raise ConfigError(f"resolution: {file} holds no calibration; its task was swept.")
    try:
        return Formula.from_dict(kept["calibration"])
    except MresError as error:
        raise ConfigError(f"{error} It stands in {file}: fit it anew with --reference.") from None


def _settle(args: argparse.Namespace, kept: Mapping[str, Any]) -> None:
    """Takes what no option says from the file of --calibration, and refuses what differs.

    Signals that were measured another way do not belong to its references.
    """
    kept_model = kept.get("model")
    if isinstance(kept_model, str) and _same_model(args.model or SHIPPED) != _same_model(
        kept_model
    ):
        _compare("model", args.model or SHIPPED, kept_model, args.calibration)
    measure = kept.get("complexity")
    known = {
        "complexity": measure.get("measure") if isinstance(measure, dict) else None,
        "perturbations": kept.get("perturbations"),
    }
    for name, value in known.items():
        _compare(name, getattr(args, name), value, args.calibration)
    for name, default in _DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, known.get(name) or default)
    if not args.candidate:
        args.candidate = _kept_policies(kept)


def _kept_policies(kept: Mapping[str, Any]) -> list[str]:
    rows = kept.get("candidates")
    each = [row for row in (rows if isinstance(rows, list) else ()) if isinstance(row, dict)]
    return [str(row["policy"]) for row in each if row.get("policy")]


def _same_model(name: str) -> str:
    """The name of a served model, wherever it is served; of another its real path."""
    return parse_address(name)[1] if is_server(name) else os.path.realpath(name)


def _compare(what: str, given: Any, kept: Any, file: str | None) -> None:
    """Refuses a value unlike the one under which a calibration was measured; empty says nothing."""
    if given and kept and given != kept:
        raise ConfigError(
            f"resolution: {what} {given}, but the calibration in {file} was measured with {kept}. "
            "Take the same, or fit anew with --reference."
        )


def _find_out(
    args: argparse.Namespace,
    answerer: LocalAnswerer | RemoteAnswerer,
    candidates: Sequence[Candidate],
    task: Task,
    references: Sequence[Task],
    formula: Formula | None,
) -> Result:
    measured = []
    for each in (*references, task):
        found = measure_task(
            answerer,
            each,
            candidates,
            perturbations=args.perturbations,
            complexity=args.complexity,
            max_new_tokens=args.max_new_tokens,
            seed=args.seed,
            frames=FrameSampling.of(answerer.spec),
            report=lambda done, total, name=each.name: progress(f"{name}: {done} of {total} rows"),
        )
        if each is not task:
            check_scores(found)  # before the next is asked
        measured.append(found)
    *known, mine = measured
    facts: dict[str, Any] = {}
    if known:
        formula = calibrate(known, combine=args.combine)
        if len(known) > 3:  # enough without one of them, though these may have no signal
            facts["leave_one_out"] = {
                "formula": _held_out(known, args.combine),
                "constant": constant_error(known),
            }
    choices = [choose_by_formula(mine, formula, seed=args.seed)] if formula else []
    if mine.scores is not None:
        choices.append(choose_by_sweep(mine, seed=args.seed))
    facts |= {
        "calibration": formula and formula.to_dict(),
        "complexity": {"measure": args.complexity, **_spread(mine.complexity)},
        "variance": _spread(mine.variance),
        "entropies_are_bounds": mine.is_bound,
        "perturbations": args.perturbations,
        "answers_asked": sum(each.num_answers for each in measured),
        "notes": _notes(measured),
        "choices": [choice.to_dict() for choice in choices],
        "candidates": _curve(mine),
    }
    if args.mean_tokens is not None:
        facts["per_image"] = _per_image(mine, args.mean_tokens)
    return Result(mine, choices, facts)


def _notes(measured: Sequence[MeasuredTask]) -> list[str]:
    """What a reader should know before trusting the numbers; the task itself stands last."""
    notes = [
        f"{task.name}: {task.num_empty:,} of {task.num_answers:,} answers have no token; their "
        "uncertainty counts as 0"
        for task in measured
        if task.num_empty
    ]
    if measured[-1].scores_alike:
        notes.append(
            f"{measured[-1].name}: all candidates score alike, so a sweep takes the cheapest for "
            "its cost alone"
        )
    return notes


def _held_out(known: Sequence[MeasuredTask], combine: str) -> list[int] | None:
    try:
        return leave_one_out(known, combine=combine)
    except MresError as error:
        progress(f"how far the formula errs on tasks left out is unknown: {error}")
        return None


def _spread(values) -> dict[str, float]:
    return {"mean": float(values.mean()), "deviation": float(values.std())}


def _curve(task: MeasuredTask) -> list[dict[str, Any]]:
    return [
        {
            "policy": candidate.policy,
            "side_px": candidate.side,
            "visual_tokens": float(task.tokens[:, i].mean()),
            "uncertainty": float(task.uncertainty[:, i].mean()),
            "score": None if task.scores is None else float(task.scores[:, i].mean()),
        }
        for i, candidate in enumerate(task.candidates)
    ]


def _per_image(task: MeasuredTask, mean_tokens: float) -> dict[str, Any]:
    picked = select_per_image(task, mean_tokens)
    rows = range(len(picked))
    return {
        "mean_tokens": float(task.tokens[rows, picked].mean()),
        "score": None if task.scores is None else float(task.scores[rows, picked].mean()),
        "policies": {
            name: task.candidates[i].policy for name, i in zip(task.ids, picked, strict=True)
        },
    }


def _write(directory: str, result: Result) -> list:
    stem, choice = file_stem(result.task.name), result.choices[0]
    files = {
        f"{stem}.json": choice_file(choice.policy, result.facts),
        f"{stem}.png": draw_curve(result.task, choice),
    }
    return write_together(directory, files)


def _print(result: Result) -> None:
    lines = [
        [
            row["policy"],
            f"{row['visual_tokens']:,.0f}",
            f"{row['uncertainty']:.3f}",
            "-" if row["score"] is None else f"{row['score']:.3f}",
            *(f"{choice.shares[row['policy']]:.0%}" for choice in result.choices),
        ]
        for row in result.facts["candidates"]
    ]
    shares = [f"chosen by {choice.method}" for choice in result.choices]
    title = f"{result.task.name}: means of {len(result.task.ids)} rows"
    headers = ["candidate", "visual tokens", "uncertainty, nats", "score", *shares]
    print_table(headers, lines, title=title)
    for choice in result.choices:
        is_blind = choice.method == "sweep" and result.task.scores_alike
        print(_line(choice, is_blind=is_blind))
    for note in result.facts["notes"]:
        print(f"note: {note}")
    held_out = result.facts.get("leave_one_out")
    if held_out:
        errors = {
            name: f"{sum(each) / len(each):.2f}" if each else "unknown how many"
            for name, each in held_out.items()
        }
        print(
            f"reference tasks left out in turn: {errors['formula']} candidates off by the "
            f"formula, {errors['constant']} by the best constant"
        )
    each = result.facts.get("per_image")
    if each:
        score = "" if each["score"] is None else f", score {each['score']:.3f}"
        print(f"per picture: {each['mean_tokens']:,.0f} visual tokens on average{score}")


def _line(choice: Choice, *, is_blind: bool) -> str:
    share = choice.tokens / choice.largest_tokens if choice.largest_tokens else 1.0
    score = ""
    if choice.score is not None and choice.largest_score is not None:
        score = f", score {choice.score:.3f} for {choice.largest_score:.3f}"
    sure = f"{choice.confidence:.0%} of resamplings"
    if is_blind:
        sure = "for its cost alone, since all score alike"
    return (
        f"{choice.method}: {choice.policy}, {sure}, side "
        f"{choice.side:.0f} px [{choice.interval[0]:.0f}, {choice.interval[1]:.0f}]; "
        f"{choice.tokens:,.0f} visual tokens, {share:.2f} of the largest's{score}"
    )

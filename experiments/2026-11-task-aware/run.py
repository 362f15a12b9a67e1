"""Tasks of different text height: is their best resolution known from two signals, without answers?

python experiments/2026-11-task-aware/run.py [--rows 40] [--perturbations 2] [--out DIR]

Each task is a folder of pictures of one size with capitals of one height, and one question about
each. Every candidate resolution is asked on all rows. A formula is fitted on all tasks but one, or
but those of one height, and asked for what was left out; its rival is the one candidate that errs
least on the same tasks. Tasks that are measured are kept: a second call goes on.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import mres_jax
from mres_jax.data.documents import Document, Options, Question, item_seed, make_document, row_of
from mres_jax.data.rows import read_task
from mres_jax.evaluation.csv_text import records_to_csv
from mres_jax.geometry import Size
from mres_jax.resolution.task import (
    Candidate,
    MeasuredTask,
    calibrate,
    candidate_of,
    measure_task,
)
from mres_jax.resolution.task.formula import COMBINES, best_constant, snap

SIZE = Size(256, 256)
HEIGHTS = (8, 10, 12, 16, 20, 26, 34)  # of capitals, px
KINDS = ("screen", "sign")
CANDIDATES = tuple(f"fixed,tokens={tokens}" for tokens in (36, 64, 121, 225, 400, 729))


class Family(NamedTuple):
    """What the pictures of a task have in common."""

    kind: str
    height: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.height}px"


def questions(family: Family, count: int, seed: int) -> Iterator[tuple[Document, Question]]:
    """Reading questions about values of exactly the height of a task, one per picture."""
    options = Options(cap_heights=(family.height,) * 2, max_chars=6, max_fields=4)
    found = 0
    for i in itertools.count():
        document = make_document(item_seed(seed, i), size=SIZE, kind=family.kind, options=options)
        heights = {field.value: field.text_height for field in document.fields}
        asked = [
            question
            for question in document.questions
            if question.type == "rc" and heights.get(question.answer) == family.height
        ]
        if asked:
            yield document, asked[i % len(asked)]
            found += 1
        if found == count:
            return
        if i > 50 * count:
            raise SystemExit(f"{family.name}: {found} of {count} questions in {i} pictures")


def write_task(folder: pathlib.Path, family: Family, count: int, seed: int) -> None:
    """The folder that `mres resolution --task` takes."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for i, (document, question) in enumerate(questions(family, count, seed)):
        name = f"images/{i:03d}.png"
        Image.fromarray(document.image).save(folder / name)
        lines.append(json.dumps(row_of(question, name)) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))


ARRAYS = ("complexity", "uncertainty", "scores", "tokens")


def measured(
    vlm: Any, family: Family, candidates: list[Candidate], args: argparse.Namespace
) -> MeasuredTask:
    """Measures a task, unless that was done."""
    file = args.out / f"{family.name}.npz"
    folder = args.out / "tasks" / family.name
    if not folder.is_dir():
        write_task(folder, family, args.rows, args.seed)
    task = read_task(folder)
    if file.exists():
        with np.load(file) as kept:
            arrays = {name: kept[name] for name in ARRAYS}
        return MeasuredTask(
            name=family.name,
            ids=tuple(row.id for row in task.rows),
            candidates=tuple(candidates),
            num_answers=0,
            **arrays,
        )
    found = measure_task(
        vlm.answerer, task, candidates, perturbations=args.perturbations, max_new_tokens=12
    )
    np.savez(file, **{name: getattr(found, name) for name in ARRAYS})
    return dataclasses.replace(found, name=family.name)


Others = Callable[[MeasuredTask], list[MeasuredTask]]


def left_out(tasks: list[MeasuredTask], others: Others, combine: str) -> list[int]:
    """What a formula fitted on the others chooses for each task."""
    found = []
    for task in tasks:
        formula = calibrate(others(task), combine=combine)
        side = formula.side(float(task.complexity.mean()), float(task.variance.mean()))
        found.append(snap(side, task.candidates))
    return found


def blind(task: MeasuredTask) -> MeasuredTask:
    """A task whose complexity is not looked at."""
    return dataclasses.replace(task, complexity=np.ones_like(task.complexity))


def choices(tasks: list[MeasuredTask], held_out: str) -> dict[str, list[int]]:
    """What each way chooses for every task without having seen its answers; the last two have."""

    def others(task: MeasuredTask) -> list[MeasuredTask]:
        height = task.name.split("-")[1]
        if held_out == "height":  # the same height on another ground is near, too
            return [other for other in tasks if other.name.split("-")[1] != height]
        return [other for other in tasks if other.name != task.name]

    alone = left_out([*map(blind, tasks)], lambda task: [*map(blind, others(task))], "product")
    return {
        **{f"formula, {name}": left_out(tasks, others, name) for name in COMBINES},
        "formula, variance alone": alone,
        "best constant": [best_constant(others(task)) for task in tasks],
        "largest": [len(task.candidates) - 1 for task in tasks],
        "sweep, same rows": [task.best for task in tasks],
    }


def curve(task: MeasuredTask) -> dict[str, Any]:
    """A task's signals, its scores, and its best candidate."""
    assert task.scores is not None
    scores = zip(task.candidates, task.scores.mean(0), strict=True)
    return {
        "task": task.name,
        "rows": len(task.ids),
        "complexity": round(float(task.complexity.mean()), 3),
        "variance": round(float(task.variance.mean()), 5),
        **{candidate.policy: round(float(score), 3) for candidate, score in scores},
        "best": task.candidates[task.best].policy,
    }


def outcome(
    tasks: list[MeasuredTask], held_out: str, name: str, chosen: list[int]
) -> dict[str, Any]:
    """Means over the tasks: distance from the best candidate, score, visual tokens."""
    pairs = list(zip(tasks, chosen, strict=True))
    return {
        "left out": held_out,
        "chosen by": name,
        "candidates off": round(float(np.mean([abs(i - task.best) for task, i in pairs])), 3),
        "score": round(float(np.mean([task.scores[:, i].mean() for task, i in pairs])), 3),  # pyright: ignore[reportOptionalSubscript]
        "visual tokens": round(float(np.mean([task.tokens[:, i].mean() for task, i in pairs])), 1),
    }


def write(name: str, lines: list[dict[str, Any]]) -> None:
    """A table beside this file."""
    pathlib.Path(__file__).with_name(name).write_bytes(records_to_csv(lines))
    for line in lines:
        print(*line.values(), sep="\t")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=40, help="of each task")
    parser.add_argument("--perturbations", type=int, default=2, help="the picture itself is one")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--model")
    parser.add_argument("--heights", type=int, nargs="+", default=HEIGHTS)
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/task-aware"))
    args = parser.parse_args()
    vlm = mres_jax.load(args.model)
    candidates = [candidate_of(policy, vlm.answerer.spec) for policy in CANDIDATES]
    tasks = []
    for family in itertools.starmap(Family, itertools.product(args.kinds, args.heights)):
        tasks.append(measured(vlm, family, candidates, args))
        assert tasks[-1].scores is not None
        print(family.name, tasks[-1].scores.mean(0).round(3), flush=True)
    write("tasks.csv", [curve(task) for task in tasks])
    lines = [
        outcome(tasks, held_out, *each)
        for held_out in ("task", "height")
        for each in choices(tasks, held_out).items()
    ]
    write("choices.csv", lines)


if __name__ == "__main__":
    main()

"""Extends mres-tiny to a resolution it was not trained for: adapters against training all of it.

python experiments/2026-11-task-aware/extension.py [--seeds 2] [--steps 100] [--out DIR]

One task whose pictures have small text, which needs many visual tokens, or large text, which the
model has not seen so large. The untrained model is asked at every candidate resolution; arms are
trained at the one that is best, by configs/tiny/extension.py, on documents of other seeds. What is
trained and asked is kept: a second call goes on.
"""

import argparse
import itertools
import json
import math
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

import mres_jax
from mres_jax.config import Documents, Run, apply_overrides, load_run
from mres_jax.data.documents import Options, Question, item_seed, make_document
from mres_jax.evaluation.csv_text import records_to_csv
from mres_jax.evaluation.trials import Trial, draw_questions, run_trials
from mres_jax.scoring import wilson_interval
from mres_jax.training.loop import train
from mres_jax.training.setup import set_up

RUN_FILE = pathlib.Path(__file__).parents[2] / "configs/tiny/extension.py"
CANDIDATES = tuple(f"fixed,tokens={tokens}" for tokens in (36, 64, 121, 225, 400, 729))
UNTRAINED, FULL = "untrained", "full"
TOWER, DECODER = ("vision.blocks", "vision.merger", "projector"), ("text.layers",)


def lora(targets: Iterable[str], rank: int) -> dict[str, Any]:
    """Overrides of an arm that trains nothing but adapters of these layers."""
    return {
        "peft.targets": json.dumps([*targets]),
        "peft.rank": rank,
        "peft.alpha": 2 * rank,
        "frozen_dtype": "float32",
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 3e-3,
        "optimizer.weight_decay": 0,
    }


ARMS: dict[str, Mapping[str, Any]] = {
    FULL: {},
    "lora": lora((*TOWER, *DECODER), rank=5),
    "lora, tower": lora(TOWER, rank=8),
    "lora, decoder": lora(DECODER, rank=12),
}


def stem_of(arm: str, seed: int) -> str:
    """Of its folders."""
    return "-".join([*arm.replace(",", "").split(), str(seed)])


def the_run(overrides: Iterable[str] = ()) -> Run:
    """The run file, changed."""
    run = apply_overrides(load_run(RUN_FILE), [*overrides])
    assert isinstance(run, Run)
    return run


def arm_run(arm: str, seed: int, args: argparse.Namespace) -> Run:
    """The run of an arm; all of a seed have data, order and steps in common."""
    common = {
        "checkpoint.dir": args.out / "runs" / stem_of(arm, seed),
        "seed": seed,
        "schedule.num_steps": args.steps,
        "schedule.warmup_steps": min(10, args.steps),
        "checkpoint.every_steps": args.steps,
    }
    return the_run(f"{key}={value}" for key, value in (common | dict(ARMS[arm])).items())


def count_trained(run: Run) -> int:
    """Parameters with a gradient."""
    _, state, *_ = set_up(run, run.schedule)
    return sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))


def model_of(arm: str, seed: int, args: argparse.Namespace) -> tuple[str | None, dict[str, Any]]:
    """Trains an arm unless that was done; returns its checkpoints and what it took."""
    if arm == UNTRAINED:
        return None, {"trained parameters": 0, "seconds": 0}
    run = arm_run(arm, seed, args)
    folder = pathlib.Path(run.checkpoint.dir)
    took = folder / "took.json"
    if not took.is_file():
        start = time.perf_counter()
        train(run)
        seconds = round(time.perf_counter() - start)
        took.write_text(json.dumps({"trained parameters": count_trained(run), "seconds": seconds}))
    return str(folder / "checkpoints"), json.loads(took.read_text())


def task_questions(count: int, seed: int) -> Iterator[tuple[np.ndarray, Question]]:
    """Questions of the kind that the run file trains on, its mixtures in turn, one per picture."""
    run = the_run()
    asked = 0
    for i in itertools.count():
        data = run.data[asked % len(run.data)]
        assert isinstance(data, Documents)
        kinds, bins = list(data.kinds), list(data.area_bins)
        document = make_document(
            item_seed(seed, i),
            area_bin=bins[i % len(bins)],
            kind=kinds[asked // len(run.data) % len(kinds)],
            options=Options(cap_heights=data.cap_heights),
        )
        if some := [question for question in document.questions if question.type == "rc"]:
            yield document.image, some[i % len(some)]
            asked += 1
        if asked == count:
            return


def shares(trials: list[Trial], group: str) -> dict[str, Any]:
    """Exact match of a group with its 95 % interval."""
    found = wilson_interval(sum(trial.is_right for trial in trials), len(trials))
    numbers = dict(zip(("", " low", " high"), found, strict=True))
    return {f"{group}{end}": round(x, 4) for end, x in numbers.items()}


def ask_task(answerer: Any, policy: str, count: int, seed: int) -> dict[str, Any]:
    """The task at one resolution: all of it, its smaller and its larger half."""
    trials = run_trials(answerer, task_questions(count, seed), [policy], max_new_tokens=12)
    groups = {"task": trials, "small text": trials[::2], "large text": trials[1::2]}
    row: dict[str, Any] = {}
    for group, some in groups.items():
        row |= shares(some, group)
    tokens = np.mean([trial.answer.cost.visual_tokens for trial in trials])
    return {"policy": policy, "questions": count} | row | {"visual tokens": round(float(tokens), 1)}


def ask_before(answerer: Any, count: int, seed: int) -> dict[str, Any]:
    """What the model could do before: documents of all sizes with capitals of 8 to 16 px."""
    drawn = draw_questions(seed, count, types=("rc",), per_document=1)
    questions = ((document.image, question) for document, question in drawn)
    trials = run_trials(answerer, questions, ["native"], max_new_tokens=12)
    return {"questions before": count} | shares(trials, "before")


def kept(path: pathlib.Path, make: Any) -> dict[str, Any]:
    """What was made once."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make()))
    return json.loads(path.read_text())


def sweep(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The untrained model at every candidate."""
    answerer = mres_jax.load(None).answerer
    rows = []
    for policy in CANDIDATES:
        file = args.out / "sweep" / f"{policy.replace(',', '-')}-{args.rows}.json"
        rows.append(kept(file, lambda p=policy: ask_task(answerer, p, args.rows, args.asked - 1)))
        print(rows[-1], flush=True)
    return rows


def measure(arm: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains an arm and asks it."""
    model, took = model_of(arm, seed, args)
    answerer = mres_jax.load(model).answerer
    (policy,) = the_run().policies
    return (
        {"arm": arm, "seed": seed}
        | took
        | ask_task(answerer, policy, args.questions, args.asked)
        | ask_before(answerer, args.before, args.asked)
    )


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds to each arm its share of the parameters, and of what training them all has gained."""
    start = next(row for row in rows if row["arm"] == UNTRAINED)
    full = {row["seed"]: row for row in rows if row["arm"] == FULL}
    found = []
    for row in rows:
        beside = full[row["seed"]]
        parameters = row["trained parameters"] / beside["trained parameters"]
        recovered = (row["task"] - start["task"]) / (beside["task"] - start["task"])
        found.append(row | {"parameters": round(parameters, 4), "recovered": round(recovered, 3)})
    return found


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """A table beside this file."""
    pathlib.Path(__file__).with_name(name).write_bytes(records_to_csv(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arms", nargs="+", default=["lora"], choices=ARMS, help="beside full")
    parser.add_argument("--seeds", type=int, default=2, help="of the training of each arm")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--questions", type=int, default=240, help="of the task, to each arm")
    parser.add_argument("--before", type=int, default=210, help="likewise of the earlier task")
    parser.add_argument("--rows", type=int, default=64, help="of the sweep")
    parser.add_argument("--asked", type=int, default=2_026, help="seed of the questions")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/extension"))
    args = parser.parse_args()
    write("extension_sweep.csv", sweep(args))
    rows = []
    trained = itertools.product((FULL, *args.arms), range(args.seeds))
    for arm, seed in [(UNTRAINED, 0), *trained]:
        file = args.out / "results" / f"{stem_of(arm, seed)}.json"
        rows.append(kept(file, lambda arm=arm, seed=seed: measure(arm, seed, args)))
        print(rows[-1], flush=True)
    write("extension.csv", compared(rows))


if __name__ == "__main__":
    main()

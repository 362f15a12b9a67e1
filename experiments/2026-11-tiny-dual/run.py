"""Trains the four arms alike on documents, asks all the same fresh questions, and compares them.

python experiments/2026-11-tiny-dual/run.py --taught runs [--seeds 3] [--steps 150] [--out DIR]
taskset -c 0 python experiments/2026-11-tiny-dual/run.py --taught runs --part 0/2   # half of them

`--taught` holds what teach.py left: tiny-single-taught and tiny-dual-taught. Every model that is
done is kept: a second call goes on. A call without `--part` also asks what every arm began with,
and writes results.csv, differences.csv of dual less the others, and arms.png.
"""

import argparse
import itertools
import json
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from arms import ARMS, SIDE, Name, base_run
from picture import draw_by_height

import mres_jax
from mres_jax.config import apply_overrides
from mres_jax.data.documents import Document, Question
from mres_jax.data.documents.bins import BINS
from mres_jax.evaluation.arms.bootstrap import difference_interval, mean_interval
from mres_jax.evaluation.csv_text import records_to_csv
from mres_jax.evaluation.trials import draw_questions, run_trials
from mres_jax.files import write_together
from mres_jax.training.loop import train

LEAST = 6.0  # px of a capital in the square of 256 px; smaller ones are not asked about
SEED = 9_100  # of the questions; no training draws from it


def shown_height(question: Question, document: Document) -> float:
    """Height of the capitals to be read in the square of 256 px."""
    return question.text_height * SIDE / max(document.size)


def draw_set(count: int) -> list[tuple[Document, Question]]:
    """Questions that need reading and as many that do not; pictures of the second to fifth size."""
    cells = [cell for cell in BINS if cell[0] in "BCDE"]
    drawn = draw_questions(SEED, 100 * count, bins=cells)
    legible = (
        (document, question)
        for document, question in drawn
        if question.type == "sc" or shown_height(question, document) >= LEAST
    )
    kinds: dict[str, list[tuple[Document, Question]]] = {"rc": [], "sc": []}
    for document, question in legible:
        if len(kinds[question.type]) < count:
            kinds[question.type].append((document, question))
        if all(len(some) == count for some in kinds.values()):
            break
    return [*kinds["rc"], *kinds["sc"]]


def start_of(name: Name, taught: pathlib.Path) -> str:
    """What an arm begins with."""
    return str(taught / f"tiny-{name}-taught") if ARMS[name].is_taught else "mres-tiny"


def trained(name: Name, seed: int, args: argparse.Namespace) -> tuple[str, float]:
    """Trains a model unless that was done; where it is, and how many seconds it took."""
    folder = args.out / "runs" / f"{name}-{seed}"
    overrides = [
        f"init={start_of(name, args.taught)}",
        f"seed={seed}",
        f"checkpoint.dir={folder}",
        f"checkpoint.every_steps={args.steps}",
        f"schedule.num_steps={args.steps}",
        f"schedule.warmup_steps={min(10, args.steps)}",
        f"optimizer.learning_rate={args.learning_rate}",
    ]
    spent, start = folder / "seconds.json", time.perf_counter()
    train(apply_overrides(base_run(name), overrides))
    if not spent.is_file():
        spent.write_text(json.dumps(time.perf_counter() - start))
    return str(folder / "checkpoints"), json.loads(spent.read_text())


def measure(name: Name, model: str, asked: Sequence[tuple[Document, Question]]) -> dict[str, Any]:
    """Scores of a model on all questions, and what an answer cost."""
    answerer = mres_jax.load(model).answerer
    questions = [(document.image, question) for document, question in asked]
    trials = run_trials(answerer, questions, [ARMS[name].policy])
    costs = [trial.answer.cost for trial in trials]
    return {
        "scores": [float(trial.is_right) for trial in trials],
        "visual_tokens": float(np.mean([cost.visual_tokens for cost in costs])),
        "gflops": float(np.mean([cost.flops for cost in costs])) / 1e9,
    }


def all_models(seeds: int) -> Iterator[tuple[Name, int | None]]:
    """Arm and seed; no seed is what the arm began with."""
    yield from itertools.product(ARMS, range(seeds))
    yield from ((name, None) for name in ARMS)


def measured(
    name: Name,
    seed: int | None,
    asked: Sequence[tuple[Document, Question]],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """What is kept of a model; it is trained and asked where nothing is."""
    path = args.out / "measured" / f"{name}-{'start' if seed is None else seed}.json"
    if not path.is_file():
        model, seconds = (
            (start_of(name, args.taught), 0.0) if seed is None else trained(name, seed, args)
        )
        found = measure(name, model, asked) | {"train_seconds": seconds}
        write_together(path.parent, {path.name: json.dumps(found).encode()})
    return json.loads(path.read_text())


def tables(
    found: dict[tuple[Name, int | None], dict[str, Any]], asked: list[tuple[Document, Question]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A row per model and type of question; dual less each other on the means over seeds."""
    rows, differences = [], []
    for kind in ("rc", "sc"):
        numbers = [i for i, (_, question) in enumerate(asked) if question.type == kind]
        groups = [str(id(asked[i][0])) for i in numbers]
        means: dict[Name, np.ndarray] = {}
        for (name, seed), one in found.items():
            scores = np.asarray(one["scores"])[numbers]
            x = mean_interval(scores.tolist(), groups)
            row: dict[str, Any] = {"arm": name, "seed": "start" if seed is None else seed}
            row |= {"kind": kind, "questions": len(numbers), "exact_match": round(x.mean, 4)}
            row |= {"low": round(x.low, 4), "high": round(x.high, 4)}
            row |= {"visual_tokens": round(one["visual_tokens"], 1)}
            row |= {"gflops": round(one["gflops"], 2)}
            rows.append(row | {"train_seconds": round(one["train_seconds"])})
            if seed is not None:
                means[name] = means.get(name, 0.0) + scores
        seeds = len({seed for _, seed in found}) - 1
        for name in [name for name in means if name != "dual"]:
            pair = [(means[each] / seeds).tolist() for each in ("dual", name)]
            x, _ = difference_interval(*pair, groups)
            row = {"kind": kind, "other": name, "dual": np.mean(pair[0]), "its": np.mean(pair[1])}
            row |= {"ahead": x.mean, "low": x.low, "high": x.high}
            differences.append(
                {k: v if isinstance(v, str) else round(v, 4) for k, v in row.items()}
            )
    return rows, differences


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--taught", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150, help="of each training")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--questions", type=int, default=200, help="of each type")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/tiny-dual"))
    parser.add_argument("--part", help="i/n: every n-th model from the i-th on, no table")
    args = parser.parse_args()
    asked, models = draw_set(args.questions), list(all_models(args.seeds))
    if args.part:
        i, n = map(int, args.part.split("/"))
        models = models[i::n]
    found = {}
    for name, seed in models:
        found[name, seed] = one = measured(name, seed, asked, args)
        print(name, seed, f"{np.mean(one['scores'][: args.questions]):.3f}", flush=True)
    if args.part:
        return
    rows, differences = tables(found, asked)
    heights = [shown_height(question, document) for document, question in asked]
    scores = {
        name: np.array([found[name, seed]["scores"] for seed in range(args.seeds)]) for name in ARMS
    }
    files = {"results.csv": records_to_csv(rows), "differences.csv": records_to_csv(differences)}
    files["arms.png"] = draw_by_height(scores, np.array(heights))
    write_together(args.out, files)
    print(args.out / "results.csv")


if __name__ == "__main__":
    main()

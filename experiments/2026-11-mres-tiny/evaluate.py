"""Asks a model fresh questions about documents of all 35 cells and writes a table.

python experiments/2026-11-mres-tiny/evaluate.py [--model M] [--questions 1000] [--csv results.csv]
"""

import argparse
import collections
import csv
import time

import mres_jax
from mres_jax.evaluation.trials import Trial, draw_questions, run_trials, tally
from mres_jax.scoring import wilson_interval

POLICIES = ("native", "fixed:256", "scale:0.5", "budget:128")


def groups(trial: Trial) -> list[str]:
    """What a question is counted under, beside all of its type."""
    kind, (topic, *_, area_bin, _) = trial.question.type, trial.question.tags
    rows = [kind, f"{kind} area {area_bin}"]
    if kind == "sc":
        return [*rows, f"sc topic {topic}"]
    if kind == "point":
        return [*rows, f"{kind} {trial.question.scorer}"]
    height = trial.question.text_height
    return [*rows, f"rc capitals of {height - height % 2} and {height - height % 2 + 1} px"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="directory; the shipped model when absent")
    parser.add_argument("--questions", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=2_026)
    parser.add_argument(
        "--types", nargs="+", default=["rc", "sc"], help="point: where something is"
    )
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    parser.add_argument("--csv", help="where every group is written")
    args = parser.parse_args()
    start = time.monotonic()
    drawn = draw_questions(
        args.seed, args.questions, types=args.types, per_document=len(args.types)
    )
    questions = ((document.image, question) for document, question in drawn)
    trials = run_trials(mres_jax.load(args.model).answerer, questions, args.policies)
    for row in tally(trials):
        cells = [
            f"{name} {x.mean:.3f} [{x.low:.3f}, {x.high:.3f}]" for name, x in row.accuracy.items()
        ]
        print(f"{row.policy:<16} {'  '.join(cells)}  {row.visual_tokens:.0f} visual tokens")
    print(f"{len(trials)} answers in {time.monotonic() - start:.0f} s")
    if args.csv:
        counted = collections.defaultdict(list)
        for trial in trials:
            for group in groups(trial):
                counted[trial.policy, group].append(trial.is_right)
        with open(args.csv, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["policy", "group", "questions", "exact_match", "low", "high"])
            for (policy, group), right in sorted(counted.items()):
                interval = wilson_interval(sum(right), len(right))
                writer.writerow([policy, group, len(right), *(f"{x:.3f}" for x in interval)])


if __name__ == "__main__":
    main()

"""Trains mres-tiny further under native, tiles and one fixed size, and asks each by its own policy.

python experiments/2026-11-policies/run.py [--seeds 3] [--steps 300] [--per-cell 8] [--out DIR]
python experiments/2026-11-policies/run.py --seeds 0       # the shipped weights alone
taskset -c 0 python experiments/2026-11-policies/run.py --part 0/2    # half of the models, one core

Every arm that is done is kept: a second call goes on. Writes scores and maps of each model,
results.csv of all, and differences.csv of native less the others over all seeds. A part measures
its models alone; a call without one makes the tables of all.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import mres_jax
from mres_jax.config import Run, apply_overrides, load_run
from mres_jax.evaluation.csv_text import records_to_csv
from mres_jax.evaluation.rc_bench.compare import subtract
from mres_jax.evaluation.rc_bench.drawing import draw_results
from mres_jax.evaluation.rc_bench.folders import RCSet, open_set, write_set
from mres_jax.evaluation.rc_bench.generated import CUTS, generate_items
from mres_jax.evaluation.rc_bench.results import Result, read_result, summarize, write_result
from mres_jax.evaluation.rc_bench.scores import THRESHOLD, score_items
from mres_jax.files import write_together
from mres_jax.protocols import Request, Sampling
from mres_jax.training.loop import train

RUN_FILE = pathlib.Path(__file__).parents[2] / "configs/tiny/policies.py"
# at about the same mean of visual tokens on the set: a square, and a whole with up to four tiles
TRAINED = {"native": "native", "tiles": "tiles:272,max=4", "fixed": "fixed:416"}
START = "shipped"  # the weights that all begin with
BATCH = 32


class Arm(NamedTuple):
    """A model asked under a policy.

    Attributes:
      trained: by which policy, or `START`.
      seed: of its training.
      policy: that it is asked under.
    """

    trained: str
    seed: int
    policy: str

    @property
    def name(self) -> str:
        """Of its folders."""
        return f"{self.trained}-{self.seed}-{self.policy.replace(':', '-').replace(',', '-')}"


def all_arms(seeds: int, budgets: Sequence[int]) -> Iterator[Arm]:
    """Shipped weights under each policy; each trained model under its own; native under budgets."""
    for policy in TRAINED.values():
        yield Arm(START, 0, policy)
    for seed in range(seeds):
        for trained, policy in TRAINED.items():
            yield Arm(trained, seed, policy)
    for seed in range(seeds):
        yield from (Arm("native", seed, f"budget:{budget}") for budget in budgets)


def take_part(arms: Sequence[Arm], part: str) -> list[Arm]:
    """The arms of every n-th model from the i-th on, for a part `i/n`."""
    i, n = map(int, part.split("/"))
    models = list(dict.fromkeys((arm.trained, arm.seed) for arm in arms))[i::n]
    return [arm for arm in arms if (arm.trained, arm.seed) in models]


def model_of(arm: Arm, args: argparse.Namespace) -> pathlib.Path | None:
    """Trains the model of an arm unless that was done; None is the shipped one."""
    if arm.trained == START:
        return None
    folder = args.out / "runs" / f"{arm.trained}-{arm.seed}"
    overrides = [
        f"policies={json.dumps({TRAINED[arm.trained]: 1.0})}",
        f"seed={arm.seed}",
        f"checkpoint.dir={folder}",
        f"schedule.num_steps={args.steps}",
        f"schedule.warmup_steps={min(10, args.steps)}",
        f"checkpoint.every_steps={args.steps}",
    ]
    run = apply_overrides(load_run(RUN_FILE), overrides)
    assert isinstance(run, Run)
    start = time.perf_counter()
    train(run)
    spent = folder / "seconds.json"
    if not spent.is_file():
        spent.write_text(json.dumps(time.perf_counter() - start))
    return folder / "checkpoints"


def ask(answerer: Any, rc_set: RCSet, policy: str) -> tuple[list[str], list[int], float]:
    """Returns predictions, visual tokens, and seconds in all, compiling included."""
    start, texts, tokens = time.perf_counter(), [], []
    for at in range(0, len(rc_set), BATCH):
        numbers = range(at, min(at + BATCH, len(rc_set)))
        requests = [
            Request(
                id=rc_set.items[i].id,
                images=[rc_set.image(i)],
                question=rc_set.items[i].question,
                policy=policy,
            )
            for i in numbers
        ]
        answers = answerer.answer(requests, sampling=Sampling(max_new_tokens=32), seed=0)
        texts += [some[0].text for some in answers]
        tokens += [some[0].cost.visual_tokens for some in answers]
    return texts, tokens, time.perf_counter() - start


def measure(arm: Arm, kind: str, rc_set: RCSet, answerer: Any, out: pathlib.Path) -> dict[str, Any]:
    """Asks an arm one set and leaves predictions, scores and a row of the table."""
    folder = out / "results" / f"{arm.name}-{kind}"
    texts, tokens, seconds = ask(answerer, rc_set, arm.policy)
    lines = [
        json.dumps({"id": item.id, "prediction": text}, ensure_ascii=False) + "\n"
        for item, text in zip(rc_set.items, texts, strict=True)
    ]
    predictions = f"{arm.name}-{kind}.jsonl"
    write_together(out / "predictions", {predictions: "".join(lines).encode()})
    scored = score_items(rc_set.items, texts)
    means, summary = summarize(
        scored, rc_set, out / "predictions" / predictions, threshold=THRESHOLD
    )
    row: dict[str, Any] = {**arm._asdict(), "kind": kind, "questions": len(texts)}
    row |= dict(zip(("accuracy", "low", "high"), np.round(means.accuracy, 4).tolist(), strict=True))
    row |= {"acv": _rounded(means.acv.value), "rcv": _rounded(means.rcv.value)}
    row |= {f"area {name}": round(x.mean, 4) for name, x in means.areas.items()}
    row |= {f"ratio {name}": round(x.mean, 4) for name, x in means.ratios.items()}
    row |= {"visual_tokens": round(float(np.mean(tokens)), 1)}
    row |= {"ms_per_question": round(1e3 * seconds / len(texts), 1)}
    write_result(folder, scored, summary)
    (folder / "row.json").write_text(json.dumps(row))
    return row


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 2)


def make_sets(out: pathlib.Path, per_cell: int) -> dict[str, RCSet]:
    """The questions that need reading and those that do not, made once."""
    sets = {}
    for kind in ("rc", "sc"):
        folder = out / f"{kind}-{per_cell}"
        made = {"name": folder.name, "origin": "generated", "seed": 9_000, "type": kind}
        items = generate_items(9_000, per_cell, kind=kind)
        if not folder.is_dir():
            write_set(folder, items, cuts=CUTS, made=made)
        sets[kind] = open_set(folder)
    return sets


def draw_maps(out: pathlib.Path, seeds: int) -> None:
    """Native against tiles and against fixed: before training, and of the first seed after it."""
    for before in (True, False) if seeds else (True,):
        for other, kind in itertools.product(("tiles", "fixed"), ("rc", "sc")):
            names = ("native", other)
            arms = [Arm(START if before else name, 0, TRAINED[name]) for name in names]
            results = [read_result(out / "results" / f"{arm.name}-{kind}") for arm in arms]
            stem = f"{START if before else 'trained'}-{other}-{kind}"
            files = draw_results(results)
            write_together(out / "maps", {f"{stem}-{name}": data for name, data in files.items()})


def differences(out: pathlib.Path, seeds: int) -> list[dict[str, Any]]:
    """Native less each other, on each question's mean over seeds, with 95 % of the bootstrap."""
    rows = []
    for weights, kind in itertools.product((START, "trained") if seeds else (START,), ("rc", "sc")):
        means: dict[str, Result] = {}
        for name, policy in TRAINED.items():
            arms = [Arm(name, seed, policy) for seed in range(seeds)]
            arms = [Arm(START, 0, policy)] if weights == START else arms
            results = [read_result(out / "results" / f"{arm.name}-{kind}") for arm in arms]
            scores = np.mean([result.scores for result in results], axis=0)
            means[name] = dataclasses.replace(results[0], scores=scores)
        for other in ("tiles", "fixed"):
            ahead = subtract(means["native"], means[other]).accuracy
            row: dict[str, Any] = {"weights": weights, "kind": kind}
            row |= {"native": means["native"].scores.mean()}
            row |= {"other": other, "its": means[other].scores.mean()}
            row |= {"ahead": ahead.mean, "low": ahead.low, "high": ahead.high}
            rows.append({k: v if isinstance(v, str) else round(v, 4) for k, v in row.items()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--per-cell", type=int, default=8, help="questions of a kind in each cell")
    parser.add_argument(
        "--budgets",
        type=int,
        nargs="*",
        default=(64, 128, 256, 512),
        help="of native besides",
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/policies"))
    parser.add_argument("--part", help="i/n: every n-th model from the i-th on, no table")
    args = parser.parse_args()
    sets, rows, loaded = make_sets(args.out, args.per_cell), [], {}
    arms = list(all_arms(args.seeds, args.budgets))
    for arm in take_part(arms, args.part) if args.part else arms:
        for kind, rc_set in sets.items():
            done = args.out / "results" / f"{arm.name}-{kind}" / "row.json"
            if not done.is_file():
                key = (arm.trained, arm.seed)
                if key not in loaded:
                    model = model_of(arm, args)
                    loaded = {key: mres_jax.load(model and str(model)).answerer}
                measure(arm, kind, rc_set, loaded[key], args.out)
            rows.append(json.loads(done.read_text()))
            print(rows[-1], flush=True)
    if args.part:
        return
    tables = {"results.csv": rows, "differences.csv": differences(args.out, args.seeds)}
    write_together(args.out, {name: records_to_csv(some) for name, some in tables.items()})
    draw_maps(args.out, args.seeds)
    print(args.out / "results.csv")


if __name__ == "__main__":
    main()

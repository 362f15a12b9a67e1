"""Packs, hours and tokens/s of an epoch under each policy, packed and padded, on one slice.

python experiments/2026-11-plans/epochs.py [--rows 20000] [--csv epochs.csv]

Rows are like LLaVA-665K's, counted up to its 665,298; the time of a step is that of results.csv.
"""

import argparse
import csv
import dataclasses
import functools
import pathlib

import numpy as np

from mres_jax.config import load_run
from mres_jax.data.packing import plan_packs
from mres_jax.data.types import ExampleSize
from mres_jax.errors import MresError
from mres_jax.evaluation.csv_text import records_to_csv
from mres_jax.geometry import Size
from mres_jax.resolution.policies import check_policy, parse_policy
from mres_jax.testing.mixtures import Row, llava_like_rows
from mres_jax.training.planning.epochs import price_epoch
from mres_jax.training.planning.plan import spec_for_shapes

HERE = pathlib.Path(__file__).parent
FILE, RECIPE, SLICE = (
    "configs/nativeres_llava/stage2.py",
    "NativeRes-LLaVA 7B stage 2",
    "v5litepod-16",
)
POLICIES = ("native", "tiles", "fixed:336", "fixed:672", "fixed:1008", "budget:256")
WHOLE = 665_298  # rows of the mixture


def sizes(rows: list[Row], text: str, spec) -> np.ndarray:
    """What the rows take under a policy."""
    policy = parse_policy(text)
    check_policy(policy, spec)

    @functools.cache
    def patches(size: Size) -> tuple[int, int]:
        views = policy((size,), "", spec)
        return sum(spec.grid(view.size).num_patches for view in views), len(views)

    table = []
    for size, text_tokens in rows:
        count, views = (0, 0) if size is None else patches(size)
        table.append(ExampleSize(count, text_tokens + count // spec.merge_size**2, views))
    return np.array(table)


def main() -> None:
    """Prints a line for each policy."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--csv", type=pathlib.Path)
    args = parser.parse_args()
    with (HERE / "results.csv").open() as file:
        plans = [r for r in csv.DictReader(file) if (r["recipe"], r["topology"]) == (RECIPE, SLICE)]
    step_s = float(plans[0]["step s"])
    run = load_run(FILE, ["mesh.fsdp=16", "accumulation=16"])
    spec = spec_for_shapes(run.model)
    rows, lines = llava_like_rows(args.rows), []
    for text in POLICIES:
        try:
            table = sizes(rows, text, spec)
        except MresError as error:
            print(f"{text}: {error}")
            continue
        wide = dataclasses.replace(max(run.ladder), max_views=512, max_examples=512)
        rungs = [plan.rung for plan in plan_packs(table, (wide,))]
        price = price_epoch(text, rungs, table, run, step_s)
        more = WHOLE / price.rows
        line = {
            "policy": text,
            "tokens a row": round(price.tokens / price.rows),
            "packs": round(price.packs * more),
            "steps": round(price.packs * more / run.accumulation),
            "patches full": round(price.patch_efficiency, 3),
            "tokens full": round(price.token_efficiency, 3),
            "hours": round((price.hours or 0) * more, 2),
            "tokens/s": round(price.tokens_per_s or 0),
            "padded tokens/s": round(price.padded_tokens_per_s or 0),
        }
        lines.append(line)
        print(", ".join(f"{key}={value}" for key, value in line.items()), flush=True)
    if args.csv:
        args.csv.write_bytes(records_to_csv(lines))


if __name__ == "__main__":
    main()

"""How even 64 ranks are in attention, on sizes like LLaVA-665K's, over 1,000 steps.

python experiments/2026-11-balance/run.py [--steps 1000] [--ranks 64] [--csv results.csv]

Packs are those that a run would plan, in the order that it would give them, and ranks get them by
the rule of a run's mesh. Every row has at most one picture, so pairs are exact.
"""

import argparse
import pathlib

import numpy as np

from mres_jax.data.balance import attention_pairs, balanced_order
from mres_jax.data.ladder import fit_ladder
from mres_jax.data.packing import plan_packs
from mres_jax.evaluation.csv_text import records_to_csv
from mres_jax.testing.mixtures import llava_like_sizes
from mres_jax.training.meshes import slowest_and_mean

ROWS_PER_PACK = 11.5  # a few more than a pack holds
WINDOWS = (4, 16, 32, 64, 128)  # steps
BEGINS = 21  # packs that an epoch before has left for its first step


def planned(num_packs: int, seed: int) -> tuple[list, np.ndarray]:
    """Rungs and attention pairs of that many packs, in the order that was drawn."""
    sizes = np.array(llava_like_sizes(int(ROWS_PER_PACK * num_packs), seed=seed))
    plans = plan_packs(sizes, fit_ladder(sizes, (1_024, 4_096, 16_384)))
    each = attention_pairs(sizes)
    pairs = np.array([each[list(plan.indices)].sum() for plan in plans[:num_packs]])
    assert len(pairs) == num_packs, len(pairs)
    return [plan.rung for plan in plans[:num_packs]], pairs


def imbalance(
    rungs: list, pairs: np.ndarray, order: np.ndarray, ranks: int, begins: int = 0
) -> dict[str, float]:
    """What the slowest rank has more than a mean one, per step of a pack for each rank."""
    steps = []
    for at in range(begins, len(order) - ranks + 1, ranks):
        places = order[at : at + ranks]
        steps.append(
            slowest_and_mean(pairs[places].tolist(), [rungs[place] for place in places], ranks)
        )
    slowest, mean = np.array(steps).T
    more = slowest / mean - 1
    return {
        "steps": len(more),
        "mean": more.mean(),
        "median": np.median(more),
        "p99": np.quantile(more, 0.99),
        "worst": more.max(),
        "within 0.05": (more <= 0.05).mean(),
        "all steps": slowest.sum() / mean.sum() - 1,
    }


def main() -> None:
    """Prints a line for each order."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=pathlib.Path)
    args = parser.parse_args()
    rungs, pairs = planned(args.steps * args.ranks, args.seed)
    print(f"pairs of a pack: mean {pairs.mean():.3g}, deviation {pairs.std() / pairs.mean():.3f}")
    drawn = np.arange(len(pairs))
    orders = {
        ("random", 0, 0): np.random.default_rng(args.seed).permutation(drawn),
        ("as planned", 0, 0): drawn,
    }
    for steps in WINDOWS:
        order = np.array(balanced_order(rungs, pairs, steps * args.ranks))
        orders["balance", steps * args.ranks, 0] = order
        orders["balance", steps * args.ranks, BEGINS] = order
    rows = []
    for (name, window, begins), order in orders.items():
        found = imbalance(rungs, pairs, order, args.ranks, begins)
        numbers = {key: round(float(value), 4) for key, value in found.items()}
        rows.append({"order": name, "window": window, "begins": begins, **numbers})
        print(", ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    if args.csv:
        args.csv.write_bytes(records_to_csv(rows))


if __name__ == "__main__":
    main()

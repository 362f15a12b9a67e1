"""Trains the policy of a bandit by each reward and prints where it came to rest.

python experiments/2026-11-capo-bandit/run.py [--bandit "four frames"] [--steps N] [--csv FILE]
"""

import argparse
import dataclasses
import pathlib

from mres_jax.evaluation.csv_text import records_to_csv
from mres_jax.testing.bandit import Bandit, Learning, learn
from mres_jax.training.rl import CAPO

CODE = CAPO()
LEARNINGS = {
    "direct cost": Learning(reward="direct_cost"),
    "no cost": Learning(reward="accuracy"),
    "CAPO": Learning(),
    "CAPO, no floor": Learning(capo=dataclasses.replace(CODE, floor=None)),
    "CAPO, long runs": Learning(capo=CAPO.long_runs()),
    "CAPO, fixed pivot": Learning(capo=dataclasses.replace(CODE, pivot_mix=0.0)),
    "CAPO, symmetric": Learning(capo=dataclasses.replace(CODE, right_weight=1.0, wrong_weight=1.0)),
    "CAPO, paper": Learning(capo=CAPO.paper()),
}
BANDITS = {"one frame": Bandit(), "four frames": Bandit(num_frames=4)}


def measure(bandit: str, reward: str, steps: int, seed: int) -> dict[str, float | str]:
    """One training."""
    place = BANDITS[bandit]
    out = learn(place, dataclasses.replace(LEARNINGS[reward], steps=steps), seed=seed)
    return {
        "bandit": bandit,
        "reward": reward,
        "seed": seed,
        "scale_of_text": round(float(out.scales[0]), 3),
        "scale_of_others": round(float(out.scales[1:].mean()), 3) if len(out.scales) > 1 else "",
        "accuracy": round(out.accuracy, 3),
        "cost": round(out.cost, 3),
        "share_of_best_utility": round(out.utility / place.best()[1], 3),
    }


def main() -> None:
    """Prints one line for each reward and seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--bandit", choices=BANDITS, default="one frame")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--csv", type=pathlib.Path)
    args = parser.parse_args()
    rows = []
    for reward in LEARNINGS:
        for seed in range(args.seeds):
            rows.append(measure(args.bandit, reward, args.steps, seed))
            print(", ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    if args.csv:
        args.csv.write_bytes(records_to_csv(rows))


if __name__ == "__main__":
    main()

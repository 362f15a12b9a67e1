"""Plans packs for rows like LLaVA-665K's and prints how full they are.

python experiments/2026-11-packing/run.py [--rows 20000] [--seeds 3] [--csv results.csv]
"""

import argparse
import itertools
import pathlib
import time

from mres_jax.data.ladder import fit_ladder
from mres_jax.data.packing import plan_packs
from mres_jax.data.packing_report import packing_report
from mres_jax.evaluation.csv_text import records_to_csv
from mres_jax.testing.mixtures import llava_like_sizes

TOPS = (8_192, 16_384, 32_768)  # patches of the top rung
LOOKAHEADS = (24, 64, 256, 512)


def measure(rows: int, seed: int, top: int, lookahead: int) -> dict[str, float]:
    """One plan, with the time of one core that it took."""
    sizes = llava_like_sizes(rows, seed=seed)
    ladder = fit_ladder(sizes, (1_024, 4_096, top))
    start = time.process_time()
    plans = plan_packs(sizes, ladder, lookahead=lookahead)
    seconds = time.process_time() - start
    report = packing_report(sizes, plans)
    return {
        "max_patches": top,
        "lookahead": lookahead,
        "seed": seed,
        "max_tokens": ladder[-1].max_tokens,
        "packs": report.num_packs,
        "patch_efficiency": round(report.patch_efficiency, 4),
        "token_efficiency": round(report.token_efficiency, 4),
        "items_per_s": round(rows / seconds, -2),
    }


def main() -> None:
    """Prints one line for each top rung, look-ahead and seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--csv", type=pathlib.Path)
    args = parser.parse_args()
    rows = []
    for top, lookahead, seed in itertools.product(TOPS, LOOKAHEADS, range(args.seeds)):
        rows.append(measure(args.rows, seed, top, lookahead))
        print(", ".join(f"{key}={value:g}" for key, value in rows[-1].items()), flush=True)
    if args.csv:
        args.csv.write_bytes(records_to_csv(rows))


if __name__ == "__main__":
    main()

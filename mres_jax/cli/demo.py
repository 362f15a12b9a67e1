"""`mres demo`: documents, questions under four policies, a table and a picture."""

import argparse
import functools
import time

from mres_jax.cli._report import progress
from mres_jax.cli._table import print_table


def run(args: argparse.Namespace) -> int:
    """Runs the demo; what it finds goes to stdout and to `--out`."""
    start = time.monotonic()
    progress(f"demo: seed {args.seed}, loading")
    # said before the heavy imports, which take seconds on a fresh machine
    from mres_jax.cli._report import load_model
    from mres_jax.evaluation.demo import run_demo, tally_rows

    loaded = load_model(args.model)
    result = run_demo(
        loaded.answerer,
        out=args.out,
        seed=args.seed,
        num_questions=args.questions,
        model_name=loaded.name,
        say=functools.partial(print, flush=True),
        progress=progress,
    )
    print()
    title = f"exact match over {args.questions} fresh questions, with 95 % intervals"
    print_table(*tally_rows(result.tallies), title=title)
    print(f"\npicture: {result.picture}   done in {time.monotonic() - start:.0f} s")
    return 0

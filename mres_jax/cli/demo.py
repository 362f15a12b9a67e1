"""`mres demo`: documents, questions under four policies, a table and a picture."""

import argparse
import functools
import time

from mres_jax.cli._report import find_model, open_model, progress
from mres_jax.cli._table import print_table
from mres_jax.files import check_directory


def run(args: argparse.Namespace) -> int:
    """Runs the demo; what it finds goes to stdout and to `--out`."""
    start = time.monotonic()
    check_directory(args.out)
    place = find_model(args.model)
    progress(f"demo: seed {args.seed}, loading {place.name}")
    # said before the heavy imports, which take seconds on a fresh machine
    from mres_jax.evaluation.demo import run_demo, tally_rows

    vlm = open_model(place)
    result = run_demo(
        vlm.answerer,
        out=args.out,
        seed=args.seed,
        num_questions=args.questions,
        model_name=place.name,
        say=functools.partial(print, flush=True),
        progress=progress,
    )
    print()
    title = f"exact match over {args.questions} fresh questions, with 95 % intervals"
    print_table(*tally_rows(result.tallies), title=title)
    print(f"\npicture: {result.picture}   done in {time.monotonic() - start:.0f} s")
    return 0

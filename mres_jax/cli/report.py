"""`mres report`: evaluations side by side, as one page."""

import argparse

from mres_jax.cli._report import progress


def run(args: argparse.Namespace) -> int:
    """Writes the page and its tables."""
    from mres_jax.evaluation.report import make_report  # brings matplotlib

    paths = make_report(args.runs, args.out, against=args.against, flips=args.flips)
    progress(f"wrote {', '.join(map(str, paths))}")
    print(f"open {paths[0]} in a browser")
    return 0

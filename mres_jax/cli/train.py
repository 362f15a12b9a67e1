"""`mres train`: runs what a run file describes."""

import argparse
import functools

from mres_jax.cli._report import progress
from mres_jax.config import diff, load_run, to_json


def run(args: argparse.Namespace) -> int:
    """Trains, or prints the resolved run with `--print-config`."""
    resolved = load_run(args.file, args.overrides, smoke=args.smoke)
    if args.print_config:
        print(to_json(resolved), end="")
        return 0
    for line in diff(load_run(args.file), resolved):
        progress(f"{args.file} with {line}")
    from mres_jax.training.loop import train

    trained = train(resolved, log=functools.partial(print, flush=True))
    progress(f"{resolved.name}: {trained.step} steps done, in {resolved.checkpoint.dir}")
    return 0

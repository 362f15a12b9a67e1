"""`mres train`: runs what a run file describes."""

import argparse
import functools
import json
import sys
from typing import TYPE_CHECKING

from mres_jax.cli._report import progress
from mres_jax.cli._table import print_table
from mres_jax.config import AllocatorRun, Run, diff, load_run, to_json
from mres_jax.errors import ConfigError

if TYPE_CHECKING:
    from mres_jax.training.dry_run import DryRun


def run(args: argparse.Namespace) -> int:
    """Trains, or says with `--print-config` and `--dry-run` what would be done."""
    if args.json and not args.dry_run:
        raise ConfigError("train: --json goes with --dry-run; --print-config is JSON already.")
    resolved = load_run(args.file, args.overrides, smoke=args.smoke)
    if args.print_config:
        print(to_json(resolved), end="")
        return 0
    for line in diff(load_run(args.file), resolved):
        progress(f"{args.file} with {line}")
    if isinstance(resolved, AllocatorRun):
        if args.multihost:
            raise ConfigError(
                "train: an allocator is trained by one process, over the devices of its host "
                "(--mesh.fsdp=N). Start it without --multihost."
            )
        return _train_allocator(resolved, dry=args.dry_run, as_json=args.json)
    if args.dry_run:
        return _dry_run(resolved, as_json=args.json)
    from mres_jax.training import hosts
    from mres_jax.training.loop import train

    if args.multihost:
        hosts.join()
    trained = train(
        resolved,
        log=functools.partial(print, flush=True),
        show_progress=sys.stderr.isatty(),
    )
    progress(f"{resolved.name}: {trained.step} steps done, in {resolved.checkpoint.dir}")
    return 0


def _train_allocator(run: AllocatorRun, *, dry: bool, as_json: bool) -> int:
    from mres_jax.training.allocator.outlook import describe, look_ahead

    outlook = look_ahead(run)
    if dry and as_json:
        print(json.dumps({"name": run.name, **outlook._asdict()}, indent=2))
    else:
        print(describe(run.name, outlook), flush=True)
    if dry:
        return 0
    from mres_jax.training.allocator.loop import ALLOCATOR, train_allocator

    trained = train_allocator(run, log=functools.partial(print, flush=True))
    progress(
        f"{run.name}: {trained.step} steps done; use it as --policy "
        f"allocator,weights={run.checkpoint.dir}/{ALLOCATOR}"
    )
    return 0


def _dry_run(resolved: Run, *, as_json: bool) -> int:
    import jax

    jax.config.update("jax_platforms", "cpu")  # whatever else is here stays free
    from mres_jax.training.dry_run import dry_run

    report = dry_run(resolved, log=progress)
    if as_json:
        print(json.dumps(report.to_dict() | {"peak_bytes": report.peak_bytes}, indent=2))
    else:
        _print_report(report)
    return 0


def _print_report(report: "DryRun") -> None:
    per_step = f", {report.packs_per_step} packs each" if report.packs_per_step > 1 else ""
    print(f"{report.name}: {report.steps:,} steps{per_step}, {report.epochs:.2f} epochs")
    print(
        f"an epoch: {report.examples:,} examples in {report.packs:,} packs; "
        f"{report.patches:,} patches ({report.patch_efficiency:.3f} of the room), "
        f"{report.tokens:,} tokens ({report.token_efficiency:.3f})"
    )
    print(
        f"a step: {report.flops_per_step:.3g} model FLOPs; one thread reads "
        f"{report.packs_per_s:.1f} packs/s"
    )
    print_table(
        ["rung", "patches", "tokens", "views", "examples", "packs", "temporaries"],
        [
            [
                str(number),
                *(f"{value:,}" for value in _lengths(use.rung)),
                f"{use.packs:,}",
                "-" if use.temporary_bytes is None else _size(use.temporary_bytes),
            ]
            for number, use in enumerate(report.rungs)
        ],
    )
    print_table(
        ["part", "trained", "frozen"],
        [
            [part, f"{counts['trained']:,}", f"{counts['frozen']:,}"]
            for part, counts in report.parameters.items()
        ],
    )
    sizes = {**report.state_bytes, "with the largest temporaries": report.peak_bytes}
    print_table(["memory", "size"], [[name, _size(size)] for name, size in sizes.items()])
    print(
        f"Temporaries (activations, gradients) are as compiled for {report.device}; on another "
        "device they differ. A dash: a smaller rung, not compiled."
    )


def _lengths(rung) -> tuple[int, int, int, int]:
    return rung.max_patches, rung.max_tokens, rung.max_views, rung.max_examples


def _size(count: int) -> str:
    """Bytes as people read them.

    Example:
      >>> _size(1_500), _size(2 * 10**9)
      ('0.0 MB', '2.00 GB')
    """
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"

"""`mres convert`: a Hugging Face directory to a checkpoint of ours, or back."""

import argparse

from mres_jax.cli._report import progress


def run(args: argparse.Namespace) -> int:
    """Converts; what the source is decides the direction. Or writes a run's adapters alone."""
    progress(f"converting {args.source}")
    from mres_jax.models.registry import convert, export_adapter

    if args.adapter:
        export_adapter(args.source, args.target)
        print(f"{args.target}: adapter in peft's format")
        return 0
    kind = convert(args.source, args.target)
    name = {"huggingface": "Hugging Face directory", "orbax": "orbax checkpoint"}[kind]
    print(f"{args.target}: {name}")
    return 0

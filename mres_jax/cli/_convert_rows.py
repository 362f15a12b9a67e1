"""`mres data convert`: annotations of published data sets to rows of questions."""

import argparse
import json
import pathlib

from mres_jax.cli._report import progress
from mres_jax.cli._table import print_table
from mres_jax.data.rows.annotations import convert_annotations
from mres_jax.data.rows.annotations.reading import Sources
from mres_jax.errors import ConfigError


def convert(args: argparse.Namespace) -> int:
    """Writes the rows; what was left out is a table on stdout."""
    if (args.spans or args.videos) and args.format != "nextgqa":
        raise ConfigError(f"data convert: --spans and --videos are of nextgqa, not {args.format}.")
    spans, videos = (path and pathlib.Path(path) for path in (args.spans, args.videos))
    made = convert_annotations(
        args.format,
        args.source,
        args.target,
        sources=Sources(spans=spans, videos=videos, suffix=args.suffix),
        folder=args.images,
        on_bad=args.on_bad,
    )
    if args.images is None:
        progress("nobody looked whether the files are there; --images DIR does")
    findings = {"bad": made.bad, "noted": made.notes}
    if args.json:
        content = {name: [each.to_dict() for each in some] for name, some in findings.items()}
        print(json.dumps({"rows": made.rows, "types": made.by_type, **content}, indent=2))
        return 0
    lines = [
        [name, found.kind, f"{found.count:,}", found.names, found.first[0][1] or "-"]
        for name, some in findings.items()
        for found in some
    ]
    if lines:
        print_table(["", "kind", "rows", "first", "why"], lines)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in made.by_type.items())
    print(f"{made.target}: {made.rows:,} rows ({counts})")
    return 0

"""`mres rcbench`: sets over 35 cells of size, scores of predictions, maps."""

import argparse
import json
import os
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mres_jax.cli._report import progress
from mres_jax.cli._table import print_table
from mres_jax.errors import ConfigError
from mres_jax.evaluation.rc_bench.annotations import open_source
from mres_jax.evaluation.rc_bench.building import SCALES, build_set
from mres_jax.evaluation.rc_bench.cuts import AREAS, PAPER_UNIT, RATIOS, Cuts
from mres_jax.evaluation.rc_bench.folders import RCSet, check_new, open_set, write_set
from mres_jax.evaluation.rc_bench.generated import CUTS, generate_items
from mres_jax.evaluation.rc_bench.predictions import read_predictions
from mres_jax.evaluation.rc_bench.results import (
    read_result,
    say_variation,
    summarize,
    write_result,
)
from mres_jax.evaluation.rc_bench.scores import Scored, score_items
from mres_jax.evaluation.rc_bench.variation import Means, Variation, cell_means
from mres_jax.files import check_directory, write_together

PER_CELL = 50  # as in the paper
_OF_SOURCES = ("source", "images", "all", "unit", "area_cuts", "ratio_cuts", "scales", "metric")


def run(args: argparse.Namespace) -> int:
    """Makes a set, scores predictions, or draws maps."""
    if getattr(args, "seed", 0) < 0:
        raise ConfigError(f"rcbench {args.action}: --seed {args.seed} must not be negative.")
    return {"make": _make, "score": _score, "plot": _plot}[args.action](args)


def _make(args: argparse.Namespace) -> int:
    check_new(args.out)  # before minutes of work
    made = _generate(args) if args.generate else _build(args)
    if args.tfds:
        from mres_jax.evaluation.rc_bench.tfds_builder import write_tfds

        progress(f"{write_tfds(made.folder, args.tfds)}: the same as a TFDS data set")
    cells = made.card["cells"].values()
    progress(
        f"{made.folder}: {len(made):,} questions in {len(cells)} of 35 cells, "
        f"{min(cells)} to {max(cells)} a cell"
    )
    return 0


def _generate(args: argparse.Namespace) -> RCSet:
    names = (*_OF_SOURCES, "skip_bad")
    given = [name.replace("_", "-") for name in names if getattr(args, name) not in (None, False)]
    if given:
        raise ConfigError(f"rcbench make: --generate draws its own pictures; leave out {given[0]}.")
    made = {
        "name": os.path.basename(os.path.abspath(args.out)),
        "origin": "generated",
        "seed": args.seed,
        "type": args.type,
    }
    items = generate_items(args.seed, _per_cell(args), kind=args.type)
    return write_set(args.out, items, cuts=CUTS, made=made)


def _per_cell(args: argparse.Namespace) -> int:
    count = PER_CELL if args.per_cell is None else args.per_cell
    if count < 1:
        raise ConfigError(f"rcbench make: --per-cell {count} must be at least 1.")
    return count


def _build(args: argparse.Namespace) -> RCSet:
    if args.source is None:
        raise ConfigError("rcbench make: name a file of questions, or give --generate.")
    if args.all and args.per_cell is not None:
        raise ConfigError("rcbench make: --all keeps every row; leave out --per-cell.")
    cuts, scales = _cuts(args), _scales(args.scales)
    per_cell = None if args.all else _per_cell(args)
    return build_set(
        open_source(args.source, images=args.images),
        args.out,
        cuts=cuts,
        per_cell=per_cell,
        seed=args.seed,
        scales=scales,
        metric=args.metric,
        skip_bad=args.skip_bad,
    )


def _cuts(args: argparse.Namespace) -> Cuts:
    if args.unit is not None and args.area_cuts is not None:
        raise ConfigError("rcbench make: give --unit or --area-cuts, not both.")
    areas = Cuts.of_unit(PAPER_UNIT if args.unit is None else args.unit).areas
    if args.area_cuts is not None:
        areas = _numbers("--area-cuts", args.area_cuts)
    ratios = Cuts().ratios if args.ratio_cuts is None else _numbers("--ratio-cuts", args.ratio_cuts)
    return Cuts(areas=areas, ratios=ratios)


def _scales(text: str | None) -> tuple[float, float]:
    if text is None:
        return SCALES
    numbers = _numbers("--scales", text)
    if len(numbers) != 2 or not 0 < numbers[0] <= 1 <= numbers[1]:
        raise ConfigError(f"rcbench make: --scales {text}: two numbers, one below and one above 1.")
    return numbers[0], numbers[1]


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(Fraction(part.strip())) for part in text.split(","))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ConfigError(f"rcbench make: {option} {text}: numbers with commas between.") from None


def _score(args: argparse.Namespace) -> int:
    if not 0 <= args.anls_threshold <= 1:
        raise ConfigError(
            f"rcbench score: --anls-threshold {args.anls_threshold} is not in [0, 1]."
        )
    if args.out:
        check_directory(args.out)
    rc_set = open_set(args.set)
    predictions = read_predictions(args.predictions, [item.id for item in rc_set.items])
    scored = score_items(rc_set.items, predictions, threshold=args.anls_threshold)
    means, summary = summarize(
        scored,
        rc_set,
        args.predictions,
        threshold=args.anls_threshold,
        samples=args.samples,
        seed=args.seed,
    )
    if args.out:
        write_result(args.out, scored, summary)
    if args.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        _print_score(means, summary, scored)
    return 0


def _print_score(means: Means, summary: dict[str, Any], scored: Sequence[Scored]) -> None:
    rows = [["accuracy", "{:.3f} [{:.3f}, {:.3f}]".format(*means.accuracy), "-"]]
    rows += [
        [name, say_variation(value), _noise(value)]
        for name, value in (("ACV", means.acv), ("RCV", means.rcv))
    ]
    facts = summary["set"]
    title = f"{summary['predictions']['file']} on {facts['name']} ({facts['origin']})"
    print_table(["", "with 95 % interval", "by chance"], rows, title=title)
    counts = [
        [name, f"{count['items']:,}", f"{count['accuracy']:.3f}"]
        for name, count in summary["metrics"].items()
    ]
    print_table(["metric", "items", "accuracy"], counts)
    scores = np.array([each.score for each in scored])
    asked, values = cell_means(scores, [each.item.cell for each in scored])
    cells = [
        [area, *(f"{v:.2f}" if n else "-" for v, n in zip(values[i], asked[i], strict=True))]
        for i, area in enumerate(AREAS)
    ]
    print_table(["", *RATIOS], cells)
    if not facts["is_balanced"]:
        progress("note: cells differ in number; areas and ratios are means over cells, not items")


def _noise(variation: Variation) -> str:
    return "-" if variation.noise is None else f"{variation.noise:.1f}"


def _plot(args: argparse.Namespace) -> int:
    from mres_jax.evaluation.rc_bench.drawing import draw_results  # brings matplotlib

    if len(args.results) > 2:
        raise ConfigError(f"rcbench plot: {len(args.results)} results; one or two can be drawn.")
    check_directory(args.out)
    files = draw_results([read_result(folder) for folder in args.results])
    for path in write_together(args.out, files):
        progress(f"wrote {path}")
    return 0

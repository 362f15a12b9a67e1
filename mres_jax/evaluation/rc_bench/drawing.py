"""Maps of accuracy over the 35 cells, alone and as a difference, as pictures and as numbers.

Axes: a area bins, r ratio bins.
"""

import math
import textwrap
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from mres_jax.evaluation.cell_figure import FEW, draw_cells, figure_png, ratio_label
from mres_jax.evaluation.csv_text import to_csv
from mres_jax.evaluation.palette import FAINT, FONT
from mres_jax.evaluation.rc_bench.compare import Difference, subtract
from mres_jax.evaluation.rc_bench.cuts import AREAS, CELLS, RATIOS, Cuts
from mres_jax.evaluation.rc_bench.results import Result
from mres_jax.evaluation.rc_bench.variation import cell_means
from mres_jax.scoring import wilson_interval

_PANEL = (4.4, 6.0)  # inches


def draw_results(results: Sequence[Result]) -> dict[str, bytes]:
    """Returns files by name: maps of one model, or of two with their difference.

    Args:
      results: one, or two on the same set.
    """
    difference = subtract(*results) if len(results) == 2 else None
    files = {"map.png": _figure(results, difference), "map.csv": _map_csv(results)}
    if difference is not None:
        files["difference.csv"] = _difference_csv(difference)
    return files


def _figure(results: Sequence[Result], difference: Difference | None) -> bytes:
    panels = len(results) + (difference is not None)
    facts = results[0].summary["set"]
    areas, ratios = _labels(results[0].cuts)
    with mpl.rc_context({"font.family": FONT}):
        size = (_PANEL[0] * panels + 0.6, _PANEL[1] + 0.8)
        figure = Figure(figsize=size, dpi=120, facecolor="white", layout="constrained")
        row = figure.subplots(1, panels, squeeze=False)[0]
        for axes, result in zip(row, results, strict=False):
            counts, means = cell_means(result.scores, result.cells)
            look = {"colours": "cividis", "limits": (0.0, 1.0), "form": "{:.2f}"}
            draw_cells(axes, means, counts, areas=areas, ratios=ratios, **look)
            axes.set_title(_title(result), fontsize=11, parse_math=False)
        if difference is not None:
            look = {"colours": "PuOr", "limits": (-1.0, 1.0), "form": "{:+.2f}"}
            means, counts = difference.means, difference.counts
            draw_cells(row[-1], means, counts, areas=areas, ratios=ratios, **look)
            mean, low, high = difference.accuracy
            row[-1].set_title(
                f"first less second\n{mean:+.3f} [{low:+.3f}, {high:+.3f}]", fontsize=11
            )
        row[0].set_ylabel("side of the square of the same area, px")
        about = f"{facts['name']} ({facts['origin']}), {facts['num_items']:,} questions"
        note = f"{about}; faint below {FEW} a cell; 95 % intervals of the bootstrap"
        lines = textwrap.fill(note, 55 * panels)
        figure.supxlabel(lines, fontsize=8.5, color=FAINT, parse_math=False)
        return figure_png(figure)


def _title(result: Result) -> str:
    mean, low, high = result.summary["accuracy"]
    both = [result.summary[name]["value"] for name in ("acv", "rcv")]
    acv, rcv = ("-" if value is None else f"{value:.1f}" for value in both)
    name = textwrap.shorten(result.name, 40, placeholder="...")
    return f"{name}\n{mean:.3f} [{low:.3f}, {high:.3f}]   ACV {acv}   RCV {rcv}"


def _labels(cuts: Cuts) -> tuple[list[str], list[str]]:
    areas = []
    for name in AREAS:
        low, high = (math.sqrt(end) for end in cuts.area_range(name))
        ends = f"above {low:.0f}" if math.isinf(high) else f"{low:.0f}-{high:.0f}"
        areas.append(f"{name}  {ends if low else f'below {high:.0f}'}")
    return areas, [ratio_label(name, *cuts.ratio_range(name)) for name in RATIOS]


def _map_csv(results: Sequence[Result]) -> bytes:
    """Every cell of every model; the intervals are Wilson's, which are sound at 0 and 1 too."""
    rows = []
    for result in results:
        counts, means = cell_means(result.scores, result.cells)
        for cell, count, mean in zip(CELLS, counts.flat, means.flat, strict=True):
            interval = wilson_interval(float(mean * count), int(count))
            numbers = [f"{x:.4f}" for x in interval] if count else ["", "", ""]
            rows.append([result.name, *cell, int(count), *numbers])
    headers = ["result", "area_bin", "ratio_bin", "items", "accuracy", "low", "high"]
    return to_csv(headers, rows).encode()


def _difference_csv(difference: Difference) -> bytes:
    arrays = (difference.means, difference.low, difference.high)
    rows = []
    for number, cell in enumerate(CELLS):
        count = int(difference.counts.flat[number])
        numbers = [f"{array.flat[number]:+.4f}" for array in arrays] if count else ["", "", ""]
        rows.append([*cell, count, *numbers])
    headers = ["area_bin", "ratio_bin", "items", "difference", "low", "high"]
    return to_csv(headers, rows).encode()

"""Figures of many answers: maps over the 35 cells, and accuracy against visual tokens.

Colours and their order are those of Okabe and Ito and of cividis and PuOr, which colour-blind
readers tell apart; every number is in the cell too, and in a CSV file beside the picture.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mres_jax.data.documents import AREA_BINS, RATIO_BINS
from mres_jax.evaluation.cell_figure import FEW, draw_cells, figure_png, ratio_label
from mres_jax.evaluation.csv_text import to_csv
from mres_jax.evaluation.findings import say_share
from mres_jax.evaluation.palette import BLUE, FAINT, FONT, WRONG
from mres_jax.evaluation.summary import Summary
from mres_jax.evaluation.trials import Tally
from mres_jax.scoring import wilson_interval

Counts = Mapping[tuple[str, str], tuple[int, int]]  # by cell: asked, right


def counts_of(summary: Summary, policy: str, kind: str = "rc") -> Counts:
    """Returns how many were asked and how many were right, by (area bin, ratio bin)."""
    return {
        (cell.area_bin, cell.ratio_bin): (cell.num_questions, cell.num_right)
        for cell in summary.cells
        if cell.policy == policy and cell.type == kind
    }


def draw_maps(summary: Summary, *, note: str) -> bytes:
    """Returns a PNG: exact match on `rc` by cell for native, for fixed, and their difference.

    Args:
      summary: of the answers.
      note: where the numbers come from.
    """
    native, fixed = (counts_of(summary, p) for p in (summary.plan.native, summary.plan.fixed))
    with mpl.rc_context({"font.family": FONT}):
        figure = Figure(figsize=(13, 6.6), dpi=120, facecolor="white", layout="constrained")
        panels = figure.subplots(1, 3)
        for axes, policy, counts in (
            (panels[0], summary.plan.native, native),
            (panels[1], summary.plan.fixed, fixed),
        ):
            values = {cell: right / asked for cell, (asked, right) in counts.items()}
            _draw_map(axes, values, counts, "cividis", (0.0, 1.0), "{:.2f}")
            axes.set_title(f"{policy}\n{say_share(summary.of(policy).accuracy['rc'])}", fontsize=11)
        differences = {
            cell: (right - fixed[cell][1]) / asked for cell, (asked, right) in native.items()
        }
        _draw_map(panels[2], differences, native, "PuOr", (-1.0, 1.0), "{:+.2f}")
        panels[2].set_title(
            f"native less fixed\n{say_share(summary.overall.difference, '+')}", fontsize=11
        )
        panels[0].set_ylabel("side of the square of the same area, px")
        figure.suptitle("Reading (RC): exact match by size of the picture", fontsize=14)
        figure.supxlabel(
            f"{note}; n questions a cell, faint below {FEW}; 95 % intervals",
            fontsize=9,
            color=FAINT,
        )
        return figure_png(figure)


def _draw_map(
    axes: Axes,
    values: Mapping[tuple[str, str], float],
    counts: Counts,
    colours: str,
    limits: tuple[float, float],
    form: str,
) -> None:
    cells = [[(area, ratio) for ratio in RATIO_BINS] for area in AREA_BINS]
    draw_cells(
        axes,
        np.array([[values.get(cell, 0.0) for cell in row] for row in cells]),
        np.array([[counts.get(cell, (0, 0))[0] for cell in row] for row in cells]),
        areas=[f"{name}  {low}-{high}" for name, (low, high) in AREA_BINS.items()],
        ratios=[ratio_label(name, *ends) for name, ends in RATIO_BINS.items()],
        colours=colours,
        limits=limits,
        form=form,
    )


def draw_curve(summary: Summary, *, note: str) -> bytes:
    """Returns a PNG: exact match against visual tokens, for budgets and the other policies.

    Args:
      summary: of the answers.
      note: where the numbers come from.
    """
    plan = summary.plan
    with mpl.rc_context({"font.family": FONT}):
        figure = Figure(figsize=(10.5, 5.2), dpi=120, facecolor="white", layout="constrained")
        axes = figure.subplots()
        budgets = [summary.of(policy) for policy in (*plan.curve, plan.native)]
        for kind, colour, name in (("rc", BLUE, "reading (RC)"), ("sc", WRONG, "seeing (SC)")):
            shown = [row for row in budgets if kind in row.accuracy]
            _points(axes, shown, kind, "o-", colour, f"{name}: budgets, native last")
            for policy, mark in ((plan.fixed, "s"), (plan.squashed, "D"), (plan.scale, "^")):
                if kind in summary.of(policy).accuracy:
                    _points(axes, [summary.of(policy)], kind, mark, colour, "")
            if kind in summary.chance:
                axes.axhline(summary.chance[kind], color=colour, linestyle=":", linewidth=1)
        for policy, mark in ((plan.fixed, "s"), (plan.squashed, "D"), (plan.scale, "^")):
            axes.plot([], [], mark, color=FAINT, label=policy)
        axes.plot([], [], ":", color=FAINT, label="best constant guess, no picture")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("mean visual tokens a picture")
        axes.set_ylabel("exact match, 95 % intervals")
        axes.grid(alpha=0.25)
        figure.legend(fontsize=8.5, loc="outside right upper", frameon=False)
        axes.set_title("Exact match against visual tokens", fontsize=13)
        figure.supxlabel(
            f"{note}; {summary.num_questions} questions a point", fontsize=8.5, color=FAINT
        )
        return figure_png(figure)


def _points(
    axes: Axes, rows: Sequence[Tally], kind: str, mark: str, colour: str, label: str
) -> None:
    means = [row.accuracy[kind] for row in rows]
    axes.errorbar(
        [row.visual_tokens for row in rows],
        [x.mean for x in means],
        yerr=np.maximum([[x.mean - x.low for x in means], [x.high - x.mean for x in means]], 0),
        fmt=mark,
        color=colour,
        label=label or None,
        capsize=3,
        linewidth=1.8 if label else 1.0,
        markersize=6,
        markerfacecolor=colour if label else "white",
    )


def maps_csv(summary: Summary) -> str:
    """Returns the numbers of every map that can be drawn, by policy, type and cell."""
    rows = [
        (*cell, *(f"{x:.4f}" for x in wilson_interval(cell.num_right, cell.num_questions)))
        for cell in summary.cells
    ]
    names = ("policy", "type", "area_bin", "ratio_bin", "questions", "right")
    return to_csv((*names, "exact_match", "low", "high"), rows)


def table_csv(summary: Summary, *, timed: bool = True) -> str:
    """Returns the numbers of the table and of the curve.

    Args:
      summary: of the answers.
      timed: whether its ms are to be told; those of a record are of another hour's load.
    """
    rows = []
    for row in summary.tallies:
        costs = (f"{row.visual_tokens:.1f}", f"{row.retention_ratio:.4f}", f"{row.flops:.4g}")
        for kind, interval in row.accuracy.items():
            shares = (f"{x:.4f}" for x in interval)
            numbers = (row.policy, kind, summary.num_of(kind), *shares, *costs)
            rows.append((*numbers, f"{row.ms:.1f}") if timed else numbers)
    names = ("policy", "type", "questions", "exact_match", "low", "high")
    costs = ("visual_tokens", "retention_ratio", "flops", *(["ms"] if timed else []))
    return to_csv((*names, *costs), rows)

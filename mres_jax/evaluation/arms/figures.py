"""Scores against what they cost: all arms in one figure."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mres_jax.evaluation.arms.points import ArmKey, Point
from mres_jax.evaluation.arms.published import Published, published_for
from mres_jax.evaluation.cell_figure import figure_png
from mres_jax.evaluation.palette import FAINT, FONT, INK

# Okabe and Ito's colours, those that stand off from white best first
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#222222")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
PANEL = (5.6, 3.9)  # inches


class Axis(NamedTuple):
    """What a score is drawn against."""

    label: str
    value: Callable[[Point], float | None]


TOKENS = Axis("mean visual tokens a question", lambda point: point.visual_tokens)
TIME = Axis("ms a question, in full packs", lambda point: point.ms)


def draw_points(points: Sequence[Point], *, note: str) -> bytes:
    """Returns a PNG: a row per task and type, score against visual tokens and against ms.

    Colours are models, marks are kinds of policy; policies of one kind (budgets, scales) are
    joined by a line. Published scores stand in grey where the task has some.

    Args:
      points: of all arms.
      note: small print.
    """
    panels = list(dict.fromkeys(point.panel for point in points))
    styles = _styles(points)
    width, height = 2 * PANEL[0], PANEL[1] * len(panels) + 0.8
    with mpl.rc_context({"font.family": FONT}):
        figure = Figure(figsize=(width, height), dpi=110, facecolor="white", layout="constrained")
        rows = figure.subplots(len(panels), 2, squeeze=False)
        for axes, panel in zip(rows, panels, strict=True):
            mine = [point for point in points if point.panel == panel]
            for each, axis in zip(axes, (TOKENS, TIME), strict=True):
                landmarks = () if panel[1] else published_for(mine[0].benchmark)
                _draw_panel(each, mine, axis, styles, landmarks)
        handles, labels = _legend(rows, styles)
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=3, fontsize=8.5, frameon=False
        )
        legend.set_title(f"{note}; bars: 95 % intervals")
        legend.get_title().set(fontsize=8.5, color=FAINT, parse_math=False)
        return figure_png(figure)


def _draw_panel(
    axes: Axes,
    points: Sequence[Point],
    axis: Axis,
    styles: dict[ArmKey, tuple[str, str, str]],
    published: Sequence[Published],
) -> None:
    task, kind = points[0].panel
    axes.set_title(f"{task}: {kind}" if kind else task, fontsize=11)
    shown = [point for point in points if axis.value(point) is not None]
    for line in _families(shown):
        line = sorted(line, key=lambda point: axis.value(point) or 0.0)
        colour, mark, _ = styles[line[0].arm]
        axes.plot(
            [axis.value(point) or 0.0 for point in line],
            [point.score.mean for point in line],
            color=colour,
            linewidth=1.2,
            alpha=0.6,
        )
    for point in shown:
        colour, mark, label = styles[point.arm]
        mean, low, high = point.score
        axes.errorbar(
            [axis.value(point) or 0.0],
            [mean],
            yerr=[[max(mean - low, 0)], [max(high - mean, 0)]],
            fmt=mark,
            color=colour,
            capsize=3,
            markersize=6,
            linewidth=1.2,
            label=label,
        )
        axes.annotate(
            point.arm.policy,
            (axis.value(point) or 0.0, mean),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=7,
            color=INK,
            parse_math=False,
        )
    for each in published:
        axes.axhline(each.score, color="#9a9a9a", linewidth=1, linestyle="--", zorder=0)
        axes.text(
            0.99,
            each.score,
            f"{each.who} {100 * each.score:.1f}",
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="bottom",
            fontsize=6.5,
            color=FAINT,
        )
    _finish(axes, shown, axis)


def _finish(axes: Axes, shown: Sequence[Point], axis: Axis) -> None:
    values = [axis.value(point) or 0.0 for point in shown]
    above = [value for value in values if value > 0]
    if above and max(above) / min(above) > 4:
        start = 2.0 ** math.floor(math.log2(min(above)))
        if len(above) == len(values):
            axes.set_xscale("log", base=2)
        else:  # a place for 0, where no picture was shown
            axes.set_xscale("symlog", base=2, linthresh=start, linscale=0.5)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}" if x >= 1 or not x else f"{x:.2g}")
    if not shown:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color=FAINT)
    axes.margins(x=0.14)
    axes.set_ylim(-0.03, 1.05)
    axes.set_xlabel(axis.label, fontsize=9)
    axes.set_ylabel("mean score", fontsize=9)
    axes.grid(alpha=0.25)


def _families(points: Sequence[Point]) -> list[list[Point]]:
    """Points of one model under policies of one name."""
    families: dict[tuple[str, str, str], list[Point]] = {}
    for point in points:
        name = (point.arm.run, point.arm.model, kind_of(point.arm.policy))
        families.setdefault(name, []).append(point)
    return [points for points in families.values() if len(points) > 1]


def kind_of(policy: str) -> str:
    """Returns the kind of a policy: its name, with those options that are not numbers.

    Example:
      >>> kind_of("budget:64"), kind_of("fixed,tokens=182"), kind_of("fixed:336,mode=pad")
      ('budget', 'fixed,tokens', 'fixed,mode=pad')
    """
    head, *options = policy.split(",")
    kept = [_without_number(option) for option in options]
    return ",".join([head.partition(":")[0], *kept])


def _without_number(option: str) -> str:
    name, _, value = option.partition("=")
    try:
        return name if math.isfinite(float(value)) else option
    except ValueError:
        return option


def _styles(points: Sequence[Point]) -> dict[ArmKey, tuple[str, str, str]]:
    """Colour, mark and label of each arm; arms of one model and kind share them."""
    runs = {point.arm.run for point in points}
    models = list(dict.fromkeys((point.arm.run, point.arm.model) for point in points))
    kinds = list(dict.fromkeys(kind_of(point.arm.policy) for point in points))
    styles = {}
    for point in points:
        run, model, policy = point.arm
        kind = kind_of(policy)
        name = f"{run}: {model}" if len(runs) > 1 else model
        colour = COLOURS[models.index((run, model)) % len(COLOURS)]
        if len(models) == 1:  # one model: colours tell the kinds apart as well
            colour = COLOURS[kinds.index(kind) % len(COLOURS)]
        styles[point.arm] = (colour, MARKS[kinds.index(kind) % len(MARKS)], f"{name}, {kind}")
    return styles


def _legend(rows, styles: dict[ArmKey, tuple[str, str, str]]) -> tuple[list, list[str]]:
    """One entry per model and kind of policy."""
    known: dict[str, object] = {}
    for axes in rows.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    wanted = list(dict.fromkeys(label for _, _, label in styles.values()))
    labels = [label for label in wanted if label in known]
    return [known[label] for label in labels], labels

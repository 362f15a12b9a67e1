"""Scores by size, ratio and height of text: a line per arm."""

import itertools
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mres_jax.evaluation.arms.figures import COLOURS, MARKS
from mres_jax.evaluation.arms.points import ArmKey
from mres_jax.evaluation.cell_figure import FEW, figure_png
from mres_jax.evaluation.palette import FONT
from mres_jax.evaluation.report.groups import SPLITS, Bin

PANEL, COLUMNS = (5.6, 3.1), 2  # inches


def draw_groups(bins: Sequence[Bin]) -> bytes:
    """Returns a PNG: a panel per task, type of question and split, two side by side.

    Args:
      bins: of all arms; at least one.
    """
    panels = list(dict.fromkeys((each.task, each.type, each.split) for each in bins))
    panels.sort(key=lambda panel: panel[:2])  # the splits of one task stand together
    arms = list(dict.fromkeys(each.arm for each in bins))
    names = {split.name: split.bins for split in SPLITS}
    rows = -(-len(panels) // COLUMNS)
    size = PANEL[0] * COLUMNS, PANEL[1] * rows + 0.3 + 0.22 * -(-len(arms) // 3)
    with mpl.rc_context({"font.family": FONT}):
        figure = Figure(figsize=size, dpi=110, facecolor="white", layout="constrained")
        grid = figure.subplots(rows, COLUMNS, squeeze=False)
        for axes, panel in itertools.zip_longest(grid.flat, panels):
            if panel is None:
                axes.set_axis_off()
                continue
            task, kind, split = panel
            mine = [each for each in bins if (each.task, each.type, each.split) == panel]
            _draw(axes, mine, names[split], arms)
            axes.set_xlabel(split, fontsize=9)
            axes.set_ylabel(f"{task} {kind}".strip() + "\nmean score", fontsize=9)
        handles = [Line2D([], [], color=_colour(i), marker=_mark(i)) for i in range(len(arms))]
        figure.legend(
            handles,
            [_label(arm, arms) for arm in arms],
            loc="outside lower center",
            ncols=3,
            fontsize=8.5,
            frameon=False,
        )
        return figure_png(figure)


def _draw(axes: Axes, bins: Sequence[Bin], names: Sequence[str], arms: Sequence[ArmKey]) -> None:
    present = [name for name in names if any(each.bin == name for each in bins)]
    for number, arm in enumerate(arms):
        mine = [each for each in bins if each.arm == arm]
        shift = 0.12 * (number - (len(arms) - 1) / 2) / max(len(arms) - 1, 1)
        places = [present.index(each.bin) + shift for each in mine]
        axes.plot(places, [b.score.mean for b in mine], color=_colour(number), linewidth=1.2)
        for place, each in zip(places, mine, strict=True):
            faint = 1.0 if each.num_questions >= FEW else 0.35
            axes.errorbar(
                [place],
                [each.score.mean],
                yerr=[
                    [max(each.score.mean - each.score.low, 0)],
                    [max(each.score.high - each.score.mean, 0)],
                ],
                fmt=_mark(number),
                color=_colour(number),
                alpha=faint,
                markersize=4.5,
                capsize=2,
                linewidth=1,
            )
    counts = {
        name: max((b.num_questions for b in bins if b.bin == name), default=0) for name in present
    }
    axes.set_xticks(range(len(present)), [f"{name}\nn={counts[name]}" for name in present])
    axes.tick_params(labelsize=7.5)
    axes.set_ylim(-0.03, 1.05)
    axes.grid(alpha=0.25)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _mark(number: int) -> str:
    return MARKS[(number + number // len(COLOURS)) % len(MARKS)]


def _label(arm: ArmKey, arms: Sequence[ArmKey]) -> str:
    """As short as tells arms apart; no mathematics in it."""
    run = f"{arm.run}: " if len({each.run for each in arms}) > 1 else ""
    model = f"{arm.model}, " if len({each.model for each in arms}) > 1 else ""
    return f"{run}{model}{arm.policy}".replace("$", r"\$")

"""How full packs are, as a picture: a row per pack, a block per example."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mres_jax.data.packing import PackPlan, Sizes
from mres_jax.data.packing_report import packing_report
from mres_jax.evaluation.cell_figure import figure_png
from mres_jax.evaluation.palette import BLUE, FAINT, FONT, INK

SHADES = (BLUE, "#56B4E9")  # in turn, so that neighbours are told apart


def draw_occupancy(sizes: Sizes, plans: Sequence[PackPlan]) -> bytes:
    """Returns a PNG: what each example takes of its pack's patches and tokens; white is padding.

    Args:
      sizes: of the examples.
      plans: packs of them, at least one; from top to bottom.
    """
    report = packing_report(sizes, plans)
    panels = (
        ("patches", 0, [plan.rung.max_patches for plan in plans], report.patch_efficiency),
        ("tokens", 1, [plan.rung.max_tokens for plan in plans], report.token_efficiency),
    )
    with mpl.rc_context({"font.family": FONT}):
        figure = Figure(figsize=(9.0, 1.4 + 0.28 * len(plans)), dpi=110, layout="constrained")
        for axes, (name, column, rooms, share) in zip(
            figure.subplots(1, 2, sharey=True), panels, strict=True
        ):
            taken = [[int(sizes[i][column]) for i in plan.indices] for plan in plans]
            _draw_bars(axes, taken, rooms)
            axes.set_title(f"{name}: {share:.0%} of the room used", fontsize=10, color=INK)
            axes.set_xlabel(f"{name} in the buffer", fontsize=9)
        return figure_png(figure)


def _draw_bars(axes: Axes, taken: Sequence[Sequence[int]], rooms: Sequence[int]) -> None:
    """A frame for each pack's room, filled from the left."""
    rows = np.arange(len(rooms))
    axes.barh(rows, rooms, color="white", edgecolor=FAINT, height=0.8)
    for row, numbers in enumerate(taken):
        starts = np.cumsum([0, *numbers[:-1]])
        shades = [SHADES[i % len(SHADES)] for i in range(len(numbers))]
        axes.barh([row] * len(numbers), numbers, left=starts, color=shades, height=0.8)
    axes.set_yticks(rows, [f"pack {row + 1}" for row in rows], fontsize=8.5)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8.5)

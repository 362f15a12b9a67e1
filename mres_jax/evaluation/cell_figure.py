"""The map of 35 cells that every figure of them shares.

Axes: a area bins, r ratio bins.
"""

import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mres_jax.evaluation.palette import INK

FEW = 5  # questions in a cell below which its colour is faint


def draw_cells(
    axes: Axes,
    values: np.ndarray,
    counts: np.ndarray,
    *,
    areas: Sequence[str],
    ratios: Sequence[str],
    colours: str,
    limits: tuple[float, float],
    form: str,
) -> None:
    """Draws a value in each cell, with the number of its questions.

    Args:
      axes: to draw on.
      values: `[a r]`; ignored where nothing was asked.
      counts: questions, `int [a r]`.
      areas, ratios: labels.
      colours: a colour map of matplotlib.
      limits: values at its ends.
      form: of a value, for example `{:.2f}`.
    """
    shades = mpl.colormaps[colours]
    strength = np.where(counts >= FEW, 1.0, np.where(counts > 0, 0.45, 0.0))
    for (row, column), asked in np.ndenumerate(counts):
        words, ink = "none\nasked", INK
        if asked:
            value, faint = values[row, column], 1 - strength[row, column]
            shade = shades((value - limits[0]) / (limits[1] - limits[0]))
            light = np.dot(shade[:3], (0.299, 0.587, 0.114)) * (1 - faint)
            ink = INK if light + faint > 0.5 else "white"
            words = f"{form.format(value)}\nn = {asked}"
        axes.text(column, row, words, ha="center", va="center", fontsize=8.5, color=ink)
    grid = np.where(counts > 0, values, np.nan)
    axes.imshow(grid, cmap=colours, vmin=limits[0], vmax=limits[1], alpha=strength, aspect="auto")
    axes.set_xticks(range(len(ratios)), ratios)
    axes.set_yticks(range(len(areas)), areas)
    axes.set_xlabel("width / height")
    axes.tick_params(length=0, labelsize=8.5)


def ratio_label(name: str, low: float, high: float) -> str:
    """Returns the name of a ratio bin with its ends, such as `AH` over `1/4-1/2`."""
    ends = [f"1/{1 / x:.3g}" if 0 < x < 1 else f"{x:.3g}" for x in (low, high)]
    if not low:
        return f"{name}\nbelow {ends[1]}"
    return f"{name}\nabove {ends[0]}" if np.isinf(high) else f"{name}\n{'-'.join(ends)}"


def figure_png(figure: Figure) -> bytes:
    """Returns a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

"""Exact match of each arm by the height of the capitals that had to be read."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from arms import ARMS, Name
from matplotlib.figure import Figure

from mres_jax.evaluation.cell_figure import figure_png
from mres_jax.evaluation.palette import BLUE, FAINT, FONT, RIGHT, WRONG

BINS = ((6, 7), (7, 8), (8, 10), (10, 14), (14, np.inf))  # px in the square of 256 px
COLOURS: dict[Name, str] = {"single": WRONG, "dual": BLUE, "tiles": RIGHT, "merged": FAINT}


def draw_by_height(scores: Mapping[Name, np.ndarray], heights: np.ndarray) -> bytes:
    """Returns a PNG: a line per arm, bands from the lowest of its seeds to the highest.

    Args:
      scores: of every arm, `[seeds, questions]`, 0 or 1.
      heights: of the capitals of each question, px in the square; 0 where nothing is to be read.
    """
    masks = [(heights >= low) & (heights < high) for low, high in BINS]
    named = [f"{low} to {high}" if np.isfinite(high) else f"from {low}" for low, high in BINS]
    with mpl.rc_context({"font.family": FONT, "font.size": 9}):
        figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(BINS))
        for name, some in scores.items():
            means = np.array([[row[mask].mean() for mask in masks] for row in some])
            label = f"{name}, {ARMS[name].side} px"
            axes.plot(places, means.mean(axis=0), color=COLOURS[name], marker="o", label=label)
            band = means.min(axis=0), means.max(axis=0)
            axes.fill_between(places, *band, color=COLOURS[name], alpha=0.15, linewidth=0)
        ticks = [f"{a}\n{mask.sum()} questions" for a, mask in zip(named, masks, strict=True)]
        axes.set_xticks(places, ticks)
        axes.set_xlabel("capitals in the square of 256 px, px")
        axes.set_ylabel("exact match")
        axes.set_ylim(0, 1)
        title = "Read in 256 visual tokens; bands: lowest and highest of the seeds"
        axes.set_title(title, fontsize=9, loc="left")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure_png(figure)

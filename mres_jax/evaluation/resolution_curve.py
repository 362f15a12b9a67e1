"""The curve of a task: uncertainty and score against resolution, with what was chosen."""

import io

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mres_jax.evaluation.figures import FAINT, FONT, INK, RIGHT, WRONG
from mres_jax.resolution.task import Choice, MeasuredTask
from mres_jax.scoring import wilson_interval


def draw_curve(task: MeasuredTask, choice: Choice) -> bytes:
    """Returns a PNG: means over the task's rows at each candidate, the choice and its interval.

    The band of the uncertainty is two standard errors; bars of the score are 95 % intervals.
    """
    tokens = task.tokens.mean(0)
    with mpl.rc_context({"font.family": FONT}):
        figure = Figure(figsize=(7.5, 4.2), dpi=140, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        mean = task.uncertainty.mean(0)
        error = 2 * task.uncertainty.std(0) / np.sqrt(len(task.ids))
        axes.plot(tokens, mean, marker="o", color=INK, label="uncertainty")
        axes.fill_between(tokens, mean - error, mean + error, color=INK, alpha=0.12, linewidth=0)
        bound = " (at least)" if task.is_bound else ""
        axes.set_ylabel(f"mean token entropy, nats{bound}", color=INK)
        axes.set_xlabel("mean visual tokens")
        if len(set(tokens.tolist())) > 1:
            axes.set_xscale("log", base=2)
        axes.set_xticks(tokens, [f"{n:.0f}" for n in tokens])
        axes.minorticks_off()
        if task.scores is not None:
            _draw_scores(axes.twinx(), task, tokens)
        chosen = [c.policy for c in task.candidates].index(choice.policy)
        axes.axvline(tokens[chosen], color=WRONG, linewidth=2, zorder=0)
        is_blind = choice.method == "sweep" and task.scores_alike
        sure = "all score alike" if is_blind else f"{choice.confidence:.0%} of resamplings"
        title = f"{task.name}: {choice.policy} by {choice.method}, {sure}"
        axes.set_title(title, fontsize=11, parse_math=False)
        axes.grid(color=FAINT, alpha=0.2)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_scores(axes, task: MeasuredTask, tokens: np.ndarray) -> None:
    assert task.scores is not None
    intervals = [wilson_interval(float(s), len(task.ids)) for s in task.scores.sum(0)]
    means = np.array([interval.mean for interval in intervals])
    ends = np.abs(np.array([[i.low, i.high] for i in intervals]).T - means)
    axes.errorbar(tokens, means, ends, marker="s", color=RIGHT, capsize=3)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("score", color=RIGHT)

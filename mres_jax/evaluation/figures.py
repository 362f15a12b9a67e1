"""Pictures of results: no display needed, colours that colour-blind readers tell apart."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from mres_jax.evaluation.palette import FAINT, FONT, INK, RIGHT, WRONG
from mres_jax.inference.show import draw_token_grid

WIDTH = 9.0  # inches
MARGIN, CAPTION, GAP, HEAD = 0.35, 0.48, 0.22, 0.95  # inches
BETWEEN = 0.5  # two columns, inches
MAX_PANEL = 2.0  # inches, height of one picture
DETAIL, MAX_DETAIL = 0.40, 2.4  # inches, height and width of the answer's own pixels


class Panel(NamedTuple):
    """One policy's view of a picture and what came of it.

    Attributes:
      policy: its string.
      pixels: what the model received, `uint8 [h w 3]`.
      answer: of the model.
      is_right: whether it is the expected one.
      visual_tokens: spent.
      retention_ratio: of native resolution.
      detail: part of `pixels` that holds the answer, to be shown large; None where there is none.
    """

    policy: str
    pixels: np.ndarray
    answer: str
    is_right: bool
    visual_tokens: int
    retention_ratio: float
    detail: np.ndarray | None = None


def draw_policies(
    panels: Sequence[Panel],
    *,
    question: str,
    expected: str,
    stride: int,
    note: str = "",
    columns: int = 1,
) -> bytes:
    """Returns a PNG: one picture under several policies, as the model received it, enlarged.

    Args:
      panels: from left to right, then from top to bottom.
      question: that was asked.
      expected: its answer.
      stride: side of one visual token, px; the ruling shows it.
      note: small print at the foot.
      columns: panels side by side.
    """
    wide = (WIDTH - 2 * MARGIN - (columns - 1) * BETWEEN) / columns
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    tall = [max(_panel_size(panel.pixels, wide)[0] for panel in row) for row in rows]
    height = HEAD + sum(h + CAPTION + GAP for h in tall) + (0.25 if note else 0.0)
    with mpl.rc_context({"font.family": FONT, "svg.fonttype": "none"}):
        figure = Figure(figsize=(WIDTH, height), dpi=150, facecolor="white")
        said = f"written there: {expected}     ruling: visual tokens"
        if any(panel.detail is not None for panel in panels):
            said += "     right: where it is written"
        _head(figure, height, question, said)
        top = height - HEAD
        for row, row_height in zip(rows, tall, strict=True):
            for i, panel in enumerate(row):
                _panel(figure, panel, stride, (MARGIN + i * (wide + BETWEEN), top, wide), height)
            top -= row_height + CAPTION + GAP
        if note:
            _text(figure, height, MARGIN, 0.2, note, size=7.5, color=FAINT)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _panel_size(pixels: np.ndarray, wide: float) -> tuple[float, float]:
    """Height and width of a picture in a column of that width, inches."""
    height, width = pixels.shape[:2]
    scale = min(wide / width, MAX_PANEL / height)
    return height * scale, width * scale


def _head(figure: Figure, height: float, question: str, said: str) -> None:
    title = textwrap.shorten(question, 90, placeholder=" ...")
    _text(figure, height, MARGIN, height - 0.42, title, size=13, weight="bold")
    _text(figure, height, MARGIN, height - 0.70, said, size=8.5, color=FAINT)


def _panel(
    figure: Figure, panel: Panel, stride: int, place: tuple[float, float, float], height: float
) -> None:
    """Draws at `place`: left and upper edge, and width of the column."""
    left, top, wide = place
    rows, columns = _panel_size(panel.pixels, wide)
    bottom = top - rows
    axes = figure.add_axes((left / WIDTH, bottom / height, columns / WIDTH, rows / height))
    zoom = max(1, round(150 * columns / panel.pixels.shape[1]))
    axes.imshow(draw_token_grid(panel.pixels, stride, zoom=zoom, strength=0.3))
    _frame(axes)
    colour, word = (RIGHT, "right") if panel.is_right else (WRONG, "wrong")
    _text(figure, height, left, bottom - 0.21, panel.policy, size=10, weight="bold")
    answer = panel.answer if len(panel.answer) <= 24 else panel.answer[:21] + "..."
    said = (f"“{answer}”" if answer else "(nothing)") + f"  {word}"
    _text(figure, height, left + 2.3, bottom - 0.21, said, size=10, weight="bold", color=colour)
    _text(figure, height, left, bottom - 0.42, _cost(panel), size=8.5, color=FAINT)
    if panel.detail is not None:
        _detail(figure, panel.detail, left + wide, bottom - 0.46, height)


def _detail(figure: Figure, pixels: np.ndarray, right: float, bottom: float, height: float) -> None:
    """The answer's own pixels, large, at the right under the picture."""
    rows, columns = pixels.shape[:2]
    tall = min(DETAIL, MAX_DETAIL * rows / columns)
    wide = tall * columns / rows
    place = ((right - wide) / WIDTH, bottom / height, wide / WIDTH, tall / height)
    axes = figure.add_axes(place)
    axes.imshow(pixels, interpolation="nearest", aspect="auto")
    _frame(axes)


def _frame(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_linewidth(0.8)


def _cost(panel: Panel) -> str:
    rows, columns = panel.pixels.shape[:2]
    return (
        f"{panel.visual_tokens} visual tokens   retention ratio {panel.retention_ratio:.2f}   "
        f"{columns} x {rows} px"
    )


def _text(figure: Figure, height: float, x: float, y: float, text: str, **style: Any) -> None:
    style = {"color": INK, "parse_math": False} | style
    figure.text(x / WIDTH, y / height, _drawable(text), **style)


def _drawable(text: str) -> str:
    """What the font can draw; a box stands for the rest."""
    known = get_font(findfont(FONT)).get_charmap()
    return "".join(c if ord(c) in known else "\u25a1" for c in text)

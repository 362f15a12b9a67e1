"""Draws the five pictures of docs/primer.md from generated documents and live answers of mres-tiny.

python scripts/primer.py     writes docs/images/primer-*.png; a minute or two on 2 CPU cores
"""

import pathlib

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import mres_jax
from mres_jax.data.documents import Document, Options, Question, make_document
from mres_jax.data.views import render_view
from mres_jax.evaluation.cell_figure import figure_png
from mres_jax.evaluation.palette import BLUE, FONT, RIGHT, WRONG
from mres_jax.geometry import Size, View
from mres_jax.inference.strip import draw_strip
from mres_jax.resolution.policies import parse_policy
from mres_jax.resolution.uniform import native_size, whole_view
from mres_jax.resolution.zoom import window_around, window_size

IMAGES = pathlib.Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    """Draws all five."""
    model = mres_jax.load()
    wide = make_document(2, area_bin="E", ratio_bin="BW")
    pictures = {
        "native": draw_native(model, wide),
        "dual": draw_dual(make_document(4, area_bin="D", ratio_bin="NM")),
        "allocation": draw_allocation(model),
        "task": draw_task(model),
        "zoom": draw_zoom(model, make_document(12, area_bin="F", ratio_bin="NM")),
    }
    for name, figure in pictures.items():
        (IMAGES / f"primer-{name}.png").write_bytes(figure_png(figure))
        print(f"primer-{name}.png", flush=True)


def draw_native(model: mres_jax.inference.VLM, document: Document) -> Figure:
    """One wide picture at its own size, and as a square of no fewer tokens."""
    figure, question = new_figure(8.6, 4.9), reading(document)
    native = model.answer(document.image, question.text, policy="native")
    side = 16 * int(np.ceil(native.cost.visual_tokens**0.5))
    square = model.answer(document.image, question.text, policy=f"fixed:{side}")
    for axes, answer, name in zip(
        figure.subplots(2, 1, height_ratios=(1, 2.4)),
        (native, square),
        ("at its own size", "squashed into a square"),
        strict=True,
    ):
        show(axes, seen(document, answer.views[0]), stride=model.spec.stride)
        caption(axes, f"{name}: {answer.cost.visual_tokens} tokens", answer.text, question)
    figure.suptitle(f"{question.text} (there: {question.answer})", fontsize=11)
    return figure


def draw_dual(document: Document) -> Figure:
    """A small and a large copy of a page whose grids are laid on each other."""
    figure = new_figure(8.6, 3.3)
    left, middle, right = figure.subplots(1, 3)
    height, width = document.image.shape[:2]
    small = whole_view(0, Size(height, width), Size(112, 112))
    large = whole_view(0, Size(height, width), Size(512, 512))
    show(left, seen(document, small), stride=14)
    left.set_xlabel("small: what is where\n8 x 8 cells", fontsize=9.5)
    show(middle, seen(document, large), stride=64)
    middle.set_xlabel("large: fine strokes\nthe same 8 x 8 cells", fontsize=9.5)
    for i in range(9):
        right.plot([0, 8], [i, i], [i, i], [0, 8], color=BLUE, linewidth=0.8)
    show(right, None)
    right.set(xlim=(0, 8), ylim=(8, 0), aspect="equal")
    right.set_xlabel("added, cell by cell\n64 tokens, no more than before", fontsize=9.5)
    for axes, sign in ((left, "+"), (middle, "=")):
        axes.annotate(
            sign, (1.09, 0.5), xycoords="axes fraction", ha="center", va="center", size=22
        )
    return figure


def draw_allocation(model: mres_jax.inference.VLM) -> Figure:
    """Six frames under one budget, alike and by need; the scales are set by hand."""
    frames = [
        make_document(
            20 + i, area_bin="D", ratio_bin="NM", options=Options(grounds=("plain",))
        ).image
        for i in range(6)
    ]
    size = Size(320, 400)
    frames = [render_view(f, whole_view(0, Size(*f.shape[:2]), size)) for f in frames]
    frames = [f if i in (1, 4) else np.full_like(f, np.median(f)) for i, f in enumerate(frames)]
    figure = new_figure(8.6, 3.4)
    native = [native_size(size, model.spec)] * len(frames)
    for axes, scales, name in zip(
        figure.subplots(2, 1),
        ([0.5] * 6, [0.25, 0.75, 0.25, 0.25, 0.75, 0.25]),
        ("every frame at half its sides", "two frames large, four small"),
        strict=True,
    ):
        views = [parse_policy(f"scale:{scale}")([size], "", model.spec)[0] for scale in scales]
        views = [whole_view(i, size, view.size) for i, view in enumerate(views)]
        tokens = sum(view.size.area for view in views) // model.spec.stride**2
        show(axes, draw_strip(frames, views, native))
        axes.set_title(f"{name}: {tokens} tokens", fontsize=10, loc="left")
    return figure


def draw_task(model: mres_jax.inference.VLM) -> Figure:
    """One page at four sizes, asked what needs only seeing and what needs reading.

    It is the first page that native reads and a quarter of its sides does not.
    """
    policies = ("scale:0.25", "scale:0.5", "scale:0.75", "native")
    for seed in range(50):
        document = make_document(seed, area_bin="D", ratio_bin="NM")
        see = next(question for question in document.questions if question.type == "sc")
        questions = (see, reading(document))
        rows = [
            [model.answer(document.image, each.text, policy=policy) for policy in policies]
            for each in questions
        ]
        right = [
            [answer.text == each.answer for answer in row]
            for row, each in zip(rows, questions, strict=True)
        ]
        if all(right[0]) and right[1][-1] and not right[1][0]:
            break
    figure = new_figure(8.6, 2.3)
    for column, axes in enumerate(figure.subplots(1, len(policies))):
        show(axes, seen(document, rows[0][column].views[0]))
        axes.set_title(f"{rows[0][column].cost.visual_tokens} tokens", fontsize=10)
        for row, answers in enumerate(rows):
            axes.annotate(
                answers[column].text or "(nothing)",
                (0.5, 0.0),
                xycoords="axes fraction",
                xytext=(0, -12 - 16 * row),
                textcoords="offset points",
                ha="center",
                va="center",
                color=RIGHT if right[row][column] else WRONG,
                weight="bold",
                parse_math=False,
            )
    figure.suptitle(
        f"above: {see.text} ({see.answer})      below: {reading(document).text} "
        f"({reading(document).answer})",
        fontsize=10,
        parse_math=False,
    )
    return figure


def draw_zoom(model: mres_jax.inference.VLM, document: Document) -> Figure:
    """The coarse picture, and a window at full size, which is set on the right place by hand."""
    figure, question = new_figure(8.6, 4.4), reading(document)
    size = Size(*document.image.shape[:2])
    box = question.box
    middle = (box.top + box.bottom) / 2, (box.left + box.right) / 2
    window = window_around(*middle, window_size(size, 0.25), size)
    coarse = model.answer(document.image, question.text, policy="budget:96")
    close = model.answer(
        document.image, question.text, policy=f"window:{'.'.join(map(str, window))}"
    )
    left, right = figure.subplots(1, 2)
    show(left, seen(document, coarse.views[0]))
    share = coarse.views[0].size.height / size.height
    corner, extent = (window.left * share, window.top * share), window.size
    frame = {"edgecolor": WRONG, "facecolor": "none", "linewidth": 1.5}
    left.add_patch(Rectangle(corner, extent.width * share, extent.height * share, **frame))
    caption(left, f"coarse: {coarse.cost.visual_tokens} tokens", coarse.text, question)
    show(right, seen(document, close.views[0]), stride=model.spec.stride)
    caption(right, f"the window: {close.cost.visual_tokens} tokens", close.text, question)
    figure.suptitle(f"{question.text} (there: {question.answer})", fontsize=11, parse_math=False)
    return figure


def reading(document: Document) -> Question:
    """Its first question that needs reading."""
    return next(question for question in document.questions if question.type == "rc")


def seen(document: Document, view: View) -> np.ndarray:
    """The pixels of a view."""
    return render_view(document.image, view)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches."""
    mpl.rcParams["font.family"] = FONT
    return Figure(figsize=(width, height), dpi=110, facecolor="white", layout="constrained")


def show(axes: Axes, pixels: np.ndarray | None, *, stride: int = 0) -> None:
    """Draws pixels without ticks, ruled every `stride` of them."""
    axes.set_xticks([])
    axes.set_yticks([])
    if pixels is None:
        return
    axes.imshow(pixels)
    height, width = pixels.shape[:2]
    rule = {"color": WRONG, "linewidth": 0.5, "alpha": 0.6}
    if stride:
        axes.vlines(np.arange(stride, width, stride) - 0.5, -0.5, height - 0.5, **rule)
        axes.hlines(np.arange(stride, height, stride) - 0.5, -0.5, width - 0.5, **rule)


def caption(axes: Axes, name: str, answer: str, question: Question) -> None:
    """What a picture is, and what was read from it."""
    axes.set_title(name, fontsize=10)
    colour = RIGHT if answer == question.answer else WRONG
    said = f"it reads: {answer or '(nothing)'}"
    axes.set_xlabel(said, fontsize=10, color=colour, weight="bold", parse_math=False)


if __name__ == "__main__":
    main()

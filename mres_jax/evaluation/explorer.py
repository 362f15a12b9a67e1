"""`index.html`: pick a picture, slide the token budget, see what the model got and what came of it.

One file without links: pictures are inside it, without loss, as the encoder received them. What a
model or a document says is data in it, never markup.
"""

import html
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mres_jax.data.views import render_view
from mres_jax.evaluation.html_parts import data_url, html_figure, html_table
from mres_jax.evaluation.pages import Page, detail_box
from mres_jax.evaluation.plan import Plan
from mres_jax.evaluation.trials import Trial

SMALLEST = "budget:16"  # begins the slider, below the smallest budget of the curve
THUMB = 96  # px, longer side


def slider_policies(plan: Plan) -> tuple[str, ...]:
    """Returns the steps of the slider, cheapest first."""
    return (SMALLEST, *plan.curve, plan.native)


def other_policies(plan: Plan) -> tuple[str, ...]:
    """Returns what can be chosen beside the slider."""
    return (plan.fixed, plan.squashed, plan.scale)


def make_explorer(
    pages: Sequence[Page],
    trials: Sequence[Trial],
    plan: Plan,
    *,
    stride: int,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    sentence: str,
    figures: Mapping[str, bytes],
    note: str,
) -> str:
    """Returns the page.

    Args:
      pages: to pick from.
      trials: of each page, under every policy of slider and choice.
      plan: the policies.
      stride: side of one visual token, px.
      headers, rows: of the table.
      caption: of the table.
      sentence: what it shows.
      figures: PNG files by what they show.
      note: model, date and command.
    """
    by_page: dict[str, dict[str, Trial]] = {}
    for trial in trials:
        by_page.setdefault(trial.question.id, {})[trial.policy] = trial
    content = {
        "slider": slider_policies(plan),
        "others": other_policies(plan),
        "pages": [
            _page(page, by_page[page.question.id], (*slider_policies(plan), *other_policies(plan)))
            for page in pages
        ],
        "stride": stride,
    }
    parts = {
        "data": json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"),
        "table": html_table(headers, rows),
        "caption": html.escape(caption),
        "sentence": html.escape(sentence),
        "figures": "\n".join(html_figure(name, png) for name, png in figures.items()),
        "note": html.escape(note),
    }
    template = (
        importlib.resources.files("mres_jax.evaluation")
        .joinpath("explorer.html")
        .read_text("utf-8")
    )
    for name, part in parts.items():
        template = template.replace(f"{{{{{name}}}}}", part, 1)
    return template


def _page(page: Page, trials: Mapping[str, Trial], policies: Sequence[str]) -> dict[str, Any]:
    height, width = page.image.shape[:2]
    pictures: dict[str, int] = {}  # one view, one picture, whatever policies chose it
    shown = {policy: _shown(page, trials[policy], pictures) for policy in policies}
    return {
        "name": page.path.name,
        "size": [width, height],
        "thumb": _thumb(page.image),
        "question": page.question.text,
        "expected": page.question.answer,
        "type": "reading" if page.question.type == "rc" else "seeing",
        "pictures": list(pictures),
        "policies": shown,
    }


def _shown(page: Page, trial: Trial, pictures: dict[str, int]) -> dict[str, Any]:
    view, cost = trial.answer.views[0], trial.answer.cost
    pixels = render_view(page.image, view)
    box = page.question.box
    return {
        "picture": pictures.setdefault(data_url(pixels), len(pictures)),
        "size": [pixels.shape[1], pixels.shape[0]],
        "detail": detail_box(view, box) if box else None,
        "answer": trial.answer.text,
        "right": trial.is_right,
        "tokens": cost.visual_tokens,
        "retention": cost.retention_ratio,
        "gflops": cost.flops / 1e9,
        "ms": sum(cost.ms.values()),
    }


def _thumb(image: np.ndarray) -> str:
    small = Image.fromarray(image)
    small.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    return data_url(np.asarray(small))

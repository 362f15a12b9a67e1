"""`index.html`: one file without links, with the very pixels, and no markup but our own."""

import base64
import html.parser
import io
import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.documents import Question
from mres_jax.data.views import render_view
from mres_jax.evaluation.explorer import make_explorer, other_policies, slider_policies
from mres_jax.evaluation.pages import Page
from mres_jax.evaluation.plan import make_plan
from mres_jax.evaluation.trials import Trial
from mres_jax.geometry import Box, Size
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import said
from mres_jax.testing.tiny import tiny_qwen2_vl

SPEC = tiny_qwen2_vl().spec
EVIL = '</script><img src=x onerror="alert(1)">'


class Reader(html.parser.HTMLParser):
    """Collects elements, the text of the data and what never was closed."""

    VOID = ("meta", "link", "img", "input", "br")

    def __init__(self):
        super().__init__()
        self.elements, self.open, self.data = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1][1].get("id") == "data":
            self.data += data


def make_trial(page: Page, policy: str) -> Trial:
    (view,) = parse_policy(policy)([Size(*page.image.shape[:2])], "", SPEC)
    answer = said(
        EVIL,
        views=(view,),
        visual_tokens=view.size.area // SPEC.stride**2,
        retention_ratio=0.5,
        flops=1e9,
        ms={"vision": 2.0},
    )
    return Trial(page.question, policy, answer)


@pytest.fixture(scope="module")
def made():
    plan = make_plan(SPEC, [Size(48, 64)])
    pages = []
    for i in range(2):
        question = Question(
            id=f"q{i}",
            text=EVIL,
            answer="7",
            type="rc",
            scorer="exact",
            box=Box(8, 8, 16, 24) if i else None,
            text_height=8,
            tags=("total", "invoice", "B", "NM"),
        )
        image = np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8)
        pages.append(Page(pathlib.Path(f"{i}-page.png"), image, question))
    policies = (*slider_policies(plan), *other_policies(plan))
    trials = [make_trial(page, policy) for page in pages for policy in policies]
    text = make_explorer(
        pages,
        trials,
        plan,
        stride=SPEC.stride,
        headers=["policy", EVIL],
        rows=[["native", EVIL]],
        caption="caption",
        sentence=EVIL,
        figures={EVIL: b"png"},
        note="tiny & more",
    )
    return text, plan, pages, trials


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    return reader


def test_the_page_is_whole_and_asks_nothing_of_the_network(made):
    text, *_ = made
    assert "{{" not in text
    links = re.findall(r"(?:https?:)?//[\w.]+|url\(|@import", re.sub(r"base64,[\w+/=]+", "", text))
    assert links == []
    sources = [attrs["src"] for _, attrs in read(text).elements if "src" in attrs]
    assert all(source.startswith("data:image/") for source in sources)
    (policy,) = (a["content"] for _, a in read(text).elements if "http-equiv" in a)
    assert "default-src 'none'" in policy


def test_what_models_and_documents_say_is_never_markup(made):
    text, *_ = made
    assert EVIL not in text
    assert [tag for tag, _ in read(text).elements].count("script") == 2  # data and program
    assert not any(name.startswith("on") for _, attrs in read(text).elements for name in attrs)


def test_every_policy_has_the_pixels_that_the_model_received(made):
    text, _, pages, trials = made
    content = json.loads(read(text).data)
    assert len(content["pages"]) == len(pages)
    for trial in trials:
        number = next(i for i, page in enumerate(pages) if page.question is trial.question)
        page = content["pages"][number]
        shown = page["policies"][trial.policy]
        picture = base64.b64decode(page["pictures"][shown["picture"]].partition(",")[2])
        with Image.open(io.BytesIO(picture)) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert np.array_equal(pixels, render_view(pages[number].image, trial.answer.views[0]))
        assert shown["tokens"] == trial.answer.cost.visual_tokens
        assert shown["answer"] == EVIL
        assert (shown["detail"] is None) == (trial.question.box is None)


def test_views_that_are_the_same_are_kept_once(made):
    text, plan, *_ = made
    for page in json.loads(read(text).data)["pages"]:
        assert len(page["pictures"]) < len(page["policies"])
        native, largest = (page["policies"][p]["picture"] for p in ("native", plan.curve[-1]))
        assert native == largest


def test_controls_are_labelled(made):
    text, *_ = made
    elements = read(text).elements
    labels = {attrs["for"] for tag, attrs in elements if tag == "label" and "for" in attrs}
    assert "budget" in labels  # the slider; the others stand inside their labels
    assert all("alt" in attrs for tag, attrs in elements if tag == "img")
    assert ("html", {"lang": "en"}) in elements

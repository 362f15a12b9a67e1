"""The demo as a whole, on a tiny random model: what it writes, says and counts."""

import dataclasses
import itertools
import json
import textwrap
import types

import numpy as np
import pytest
from PIL import Image

import mres_jax.evaluation.demo as demo_module
import mres_jax.evaluation.summary
from mres_jax.data.images import decode_image
from mres_jax.errors import MresError, PolicyError
from mres_jax.evaluation import second_look
from mres_jax.evaluation.asked_pages import Voice, shown
from mres_jax.evaluation.demo import run_demo
from mres_jax.evaluation.explorer import other_policies, slider_policies
from mres_jax.evaluation.pages import write_pages
from mres_jax.evaluation.plan import make_plan
from mres_jax.evaluation.summary import from_json, to_json
from mres_jax.evaluation.trials import NO_PICTURE, Tally
from mres_jax.geometry import Size
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.scoring import wilson_interval
from mres_jax.testing.tiny import tiny_qwen2_vl

FILES = {
    "index.html",
    "policies.png",
    "maps.png",
    "budgets.png",
    "zoom.png",
    "table.csv",
    "maps.csv",
    "budgets.csv",
    "results.json",
}


@pytest.fixture(scope="module")
def answerer() -> LocalAnswerer:
    made = tiny_qwen2_vl()
    spec = dataclasses.replace(made.spec, max_pixels=96**2)  # quick, and native is shrunk too
    return LocalAnswerer(made.model, spec, made.tokenizer)


@pytest.fixture(scope="module")
def demo(answerer, tmp_path_factory):
    lines, tables = [], []
    voice = Voice(say=lines.append, show=lambda *table: tables.append(table))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            mres_jax.evaluation.summary, "guess_shares", lambda seed: {"rc": 0.01, "sc": 0.2}
        )
        out = tmp_path_factory.mktemp("demo")
        result = run_demo(answerer, out=out, num_questions=3, voice=voice)
    return result, out, lines, tables


def test_eight_pages_are_on_disk_as_png_and_jpeg_and_are_what_was_asked_about(demo):
    result, out, *_ = demo
    kinds = {}
    for page in result.pages:
        with Image.open(page.path) as image:
            kinds[page.path.name] = image.format
        assert np.array_equal(decode_image(page.path), page.image)
    assert len(kinds) == 8
    assert set(kinds.values()) == {"PNG", "JPEG"}
    assert {path.name for path in out.iterdir()} == {*kinds, *FILES}


def test_the_table_comes_first_then_the_pages_then_one_sentence(demo):
    result, _, lines, ((headers, rows, title), _) = demo
    plan = result.summary.plan
    assert headers[0] == "policy"
    assert headers[3:] == ["visual tokens", "retention ratio", "MFLOPs", "ms"]
    assert [row[0] for row in rows] == list(plan.table)
    assert rows[-1][0] == NO_PICTURE
    assert rows[-1][3] == "0"
    assert "2 reading and 1 seeing" in title
    costs = [line for line in lines if line.endswith(" ms")]
    assert len(costs) == 8 * (len(plan.table) - 1)
    assert all(("right" in line) != ("WRONG" in line) for line in costs)
    assert lines[-1].startswith("\nAt ")
    assert lines[-1].endswith(".")


def test_the_results_hold_the_numbers_that_were_shown_and_are_a_record(demo):
    result, out, *_ = demo
    content = json.loads((out / "results.json").read_text())
    assert [row["answer"] for row in content["pages"]] == [t.answer.text for t in result.trials]
    read = from_json(content["answers"], source="results.json")
    assert to_json(read) == to_json(result.summary) == content["answers"]
    assert read.num_questions == 3
    assert len(read.tallies) == len(read.plan.everything)


def test_two_looks_come_with_their_controls_and_their_cost(demo):
    _, out, lines, (_, (_, rows, title)) = demo
    assert [row[0] for row in rows] == list(second_look.POLICIES)
    assert title == "two looks: 3 reading questions, one a page"
    told = json.loads((out / "results.json").read_text())["two_looks"]
    assert textwrap.fill(told["closing"], 100) == lines[-2].strip()
    tokens = {row["policy"]: row["visual_tokens"] for row in told["policies"]}
    assert tokens[second_look.ZOOM] > tokens[second_look.ONCE]
    assert tokens[second_look.ZOOM] > tokens[second_look.CHANCE]


def tally_of(policy: str, right: int, tokens: float) -> Tally:
    return Tally(policy, 24, {"rc": wilson_interval(right, 24)}, tokens, 0.5, 1e9, 1.0)


@pytest.mark.parametrize(
    ("by_chance", "verdict"),
    [(3, "so it is the place that counts"), (16, "which so few questions do not tell apart")],
)
def test_the_sentence_on_two_looks_says_what_the_numbers_say(by_chance, verdict):
    right = {"native": (22, 400), second_look.ONCE: (5, 90), second_look.SAME: (20, 185)}
    right |= {second_look.ZOOM: (19, 188), second_look.CHANCE: (by_chance, 99)}
    line = second_look.second_look_line(tuple(tally_of(p, *x) for p, x in right.items()))
    assert verdict in line
    assert "reads 0.79 [0.60, 0.91] of 24 values at 188 visual tokens" in line
    assert "one look at 185 tokens reads 0.83 (-0.04 for two), native 0.92 at 400." in line


def test_every_page_was_asked_under_every_policy_of_the_explorer(demo):
    result, *_ = demo
    plan = result.summary.plan
    expected = {*slider_policies(plan), *other_policies(plan)}
    for page in result.pages:
        asked = [t.policy for t in result.trials if t.question.id == page.question.id]
        assert len(asked) == len(set(asked))
        assert set(asked) == expected


def test_a_seed_changes_every_page_and_repeats_them(tmp_path):
    first, again, other = (
        [page.image for page in write_pages(tmp_path / name, seed)]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


class Enough(Exception):
    """Ends a call once what it was to be asked is known."""


def test_a_slow_machine_is_asked_one_round_and_a_number_that_was_given_is_kept(
    answerer, monkeypatch
):
    """A hundred seconds pass at each round, which is longer than it may take."""
    clock, asked, lines = itertools.count(0, 100), [], []

    def take(answerer, questions, policies, **options):
        asked.append(len(list(questions)))
        raise Enough

    monkeypatch.setattr(demo_module, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(demo_module, "time_trials", take)
    plan = make_plan(answerer.spec, [Size(64, 64)])
    for wanted in (None, 71):
        with pytest.raises(Enough):
            demo_module._ask_live(answerer, 0, wanted, plan, {}, Voice(progress=lines.append))
    assert asked == [70, 71]
    assert "no more are asked" in lines[1]


def test_no_questions_are_refused_before_anything_is_written(answerer, tmp_path):
    with pytest.raises(MresError, match="0 questions; ask at least 1"):
        run_demo(answerer, out=tmp_path / "demo", num_questions=0)
    assert not (tmp_path / "demo").exists()


def test_a_model_that_cannot_take_the_policies_is_refused_before_anything_is_written(tmp_path):
    made = tiny_qwen2_vl()
    spec = dataclasses.replace(made.spec, image_size=64)
    with pytest.raises(PolicyError, match="the model takes only 64 x 64 px"):
        run_demo(LocalAnswerer(made.model, spec, made.tokenizer), out=tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_answers_are_cut_and_cleaned_for_a_line():
    assert shown("") == "(nothing)"
    assert shown("a\x1b[2J") == "a\ufffd[2J"
    assert len(shown("x" * 100)) == 24


@pytest.mark.parametrize("seed", [0, 1])
def test_both_batches_of_a_round_have_pictures_of_about_the_same_sizes(seed):
    drawn = list(demo_module._draw(seed, demo_module.ROUND))
    evenly = demo_module._evenly(drawn)
    assert sorted(q.id for _, q in evenly) == sorted(q.id for _, q in drawn)
    areas = np.array([document.size.area for document, _ in evenly])
    first, second = areas[: demo_module.BATCH].mean(), areas[demo_module.BATCH :].mean()
    assert 0.75 < first / second < 1.33
    as_drawn = np.array([document.size.area for document, _ in drawn])
    assert as_drawn[: demo_module.BATCH].mean() / as_drawn[demo_module.BATCH :].mean() < 0.75

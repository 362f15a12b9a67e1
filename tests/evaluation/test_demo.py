"""The demo as a whole, on a tiny random model: what it writes, says and counts."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.images import decode_image
from mres_jax.errors import MresError, PolicyError
from mres_jax.evaluation.demo import default_policies, run_demo, shown, tally_rows
from mres_jax.evaluation.pages import write_pages
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.resolution.policies import check_policy, parse_policy
from mres_jax.testing.tiny import tiny_qwen2_vl

POLICIES = ("native", "budget:8")


@pytest.fixture(scope="module")
def answerer() -> LocalAnswerer:
    made = tiny_qwen2_vl()
    return LocalAnswerer(made.model, made.spec, made.tokenizer)


@pytest.fixture(scope="module")
def demo(answerer, tmp_path_factory):
    lines = []
    out = tmp_path_factory.mktemp("demo")
    result = run_demo(answerer, out=out, num_questions=3, policies=POLICIES, say=lines.append)
    return result, out, lines


def test_eight_pages_are_on_disk_as_png_and_jpeg_and_are_what_was_asked_about(demo):
    result, out, _ = demo
    kinds = {}
    for page in result.pages:
        with Image.open(page.path) as image:
            kinds[page.path.name] = image.format
        assert np.array_equal(decode_image(page.path), page.image)
    assert len(kinds) == 8
    assert set(kinds.values()) == {"PNG", "JPEG"}
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*kinds, "policies.png", "results.json"]
    )


def test_every_page_has_a_line_per_policy_with_answer_verdict_and_cost(demo):
    result, _, lines = demo
    costs = [line for line in lines if "visual tokens" in line]
    assert len(costs) == len(result.trials) == 8 * len(POLICIES)
    assert all(("right" in line) != ("WRONG" in line) for line in costs)
    assert all(line.endswith(" ms") for line in costs)


def test_the_results_hold_the_numbers_that_were_shown(demo):
    result, out, _ = demo
    content = json.loads((out / "results.json").read_text())
    assert [row["answer"] for row in content["pages"]] == [t.answer.text for t in result.trials]
    headers, rows = tally_rows(result.tallies)
    assert headers == ["policy", "reading (RC)", "seeing (SC)", "visual tokens", "retention ratio"]
    assert [row[0] for row in rows] == list(POLICIES)
    for row, cells in zip(content["table"], rows, strict=True):
        assert row["num_questions"] == 3
        assert cells[3] == f"{row['visual_tokens']:.0f}"


def test_a_seed_changes_every_page_and_repeats_them(tmp_path):
    first, again, other = (
        [page.image for page in write_pages(tmp_path / name, seed)]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_no_questions_are_refused_before_anything_is_written(answerer, tmp_path):
    with pytest.raises(MresError, match="0 questions; ask at least 1"):
        run_demo(answerer, out=tmp_path / "demo", num_questions=0)
    assert not (tmp_path / "demo").exists()


def test_a_policy_that_the_model_cannot_take_is_refused_before_anything_is_written(
    answerer, tmp_path
):
    with pytest.raises(PolicyError, match="fixed:12: 12 px is not a multiple of the 8 px"):
        run_demo(answerer, out=tmp_path / "demo", policies=("native", "fixed:12"))
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("patch_size", "max_pixels", "side"),
    [(8, 768**2, 256), (14, 768**2, 252), (14, 100**2, 84), (16, 768**2, 256)],
)
def test_the_policies_of_the_demo_suit_models_with_any_visual_token(
    answerer, patch_size, max_pixels, side
):
    spec = dataclasses.replace(
        answerer.spec, patch_size=patch_size, merge_size=2, max_pixels=max_pixels
    )
    policies = default_policies(spec)
    assert policies == ("native", f"fixed:{side}", "scale:0.5", "budget:128")
    for policy in policies:
        check_policy(parse_policy(policy), spec)


def test_answers_are_cut_and_cleaned_for_a_line():
    assert shown("") == "(nothing)"
    assert shown("a\x1b[2J") == "a\ufffd[2J"
    assert len(shown("x" * 100)) == 24

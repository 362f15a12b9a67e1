"""Summaries, the sentence made of them, records and figures, on answers known beforehand."""

import dataclasses
import io
import itertools
import json
import math

import jax.numpy as jnp
import pytest
from flax import nnx
from PIL import Image

import mres_jax.evaluation.summary
from mres_jax.data.documents import BINS, Question
from mres_jax.errors import MresError
from mres_jax.evaluation.chance import guess_shares
from mres_jax.evaluation.findings import closing_sentence
from mres_jax.evaluation.maps import counts_of, draw_curve, draw_maps, maps_csv, table_csv
from mres_jax.evaluation.plan import make_plan
from mres_jax.evaluation.records import find_record, fingerprint
from mres_jax.evaluation.summary import Summary, from_json, summarize, to_json
from mres_jax.evaluation.trials import NO_PICTURE, Trial
from mres_jax.geometry import Box, Size, View
from mres_jax.testing import said
from mres_jax.testing.tiny import tiny_qwen2_vl

SPEC = dataclasses.replace(tiny_qwen2_vl().spec, patch_size=8, merge_size=2, max_pixels=768**2)
PLAN = make_plan(SPEC, [Size(200, 300)])
CHANCE = {"rc": 0.01, "sc": 0.25}
MADE = {"model": "tiny", "fingerprint": "0", "seed": "1", "date": "2026-11-21", "device": "CPU"}
MADE |= {"command": "mres demo"}


def make_trial(index: int, kind: str, policy: str, *, is_right: bool, scale: float) -> Trial:
    question = Question(
        id=f"{kind}{index}",
        text="What is the total?",
        answer="7",
        type=kind,  # type: ignore[arg-type]
        scorer="exact",
        box=None,
        text_height=10 if kind == "rc" else 0,
        tags=("total", "invoice", *BINS[index % 35]),
    )
    side = round(160 * scale)
    view = View(item=0, crop=Box(0, 0, 160, 160), size=Size(side, side))
    tokens = 0 if policy == NO_PICTURE else round(100 * scale**2)
    answer = said(
        "7" if is_right else "1",
        views=() if policy == NO_PICTURE else (view,),
        visual_tokens=tokens,
        retention_ratio=scale**2,
        flops=1e6 * (1 + tokens),
    )
    return Trial(question, policy, answer)


def make_summary(patch: pytest.MonkeyPatch, right: dict[str, float], seen: float = 1.0) -> Summary:
    """Of 70 `rc` and 70 `sc` questions; `right` is the share of `rc` read, 0 where not named."""
    scales = {PLAN.scale: 0.5, PLAN.fixed: 1.2} | {
        policy: min(1.0, 0.3 + 0.15 * i) for i, policy in enumerate(PLAN.curve)
    }
    trials = []
    for policy, index in itertools.product(PLAN.everything, range(70)):
        scale = 0.4 if policy == PLAN.fixed and index % 2 else scales.get(policy, 1.0)
        reads = (index * 37 % 70) / 70 < right.get(policy, 0.0)
        sees = policy != NO_PICTURE and index / 70 < seen
        trials.append(make_trial(index, "rc", policy, is_right=reads, scale=scale))
        trials.append(make_trial(index, "sc", policy, is_right=sees, scale=scale))
    patch.setattr(mres_jax.evaluation.summary, "guess_shares", lambda seed: CHANCE)
    ms = dict.fromkeys(PLAN.everything, 5.0)
    return summarize(trials, PLAN, seed=1, made=MADE, ms=ms)


@pytest.fixture
def good(monkeypatch) -> Summary:
    """Native reads 0.9; a budget reads half from 7.5 px on."""
    budgets = dict(zip(PLAN.curve, (0.0, 0.1, 0.3, 0.8, 0.9), strict=True))
    return make_summary(monkeypatch, {"native": 0.9, PLAN.fixed: 0.3} | budgets)


def test_native_meets_fixed_on_three_kinds_of_questions_that_are_all_of_them(good):
    parts = (good.below, good.legible, good.enlarged)
    assert sum(part.num_questions for part in parts) == good.overall.num_questions == 70
    assert good.below.num_questions == 35  # shown at 0.4 of native, the others at 1.2
    assert good.legible.num_questions == 0
    assert good.overall.difference.mean == pytest.approx(42 / 70)
    assert 6.0 < good.limit < 7.75


def test_a_summary_survives_its_file(good):
    text = json.dumps(to_json(good), allow_nan=False)
    read = from_json(json.loads(text), source="a")
    assert to_json(read) == to_json(good)
    assert (read.plan, read.tallies, read.cells) == (good.plan, good.tallies, good.cells)
    assert math.isnan(read.legible.first)
    with pytest.raises(MresError, match=r"record\.json: is no summary of answers \('plan'\)"):
        from_json({}, source="record.json")


def test_the_closing_sentence_says_what_the_numbers_say(good, monkeypatch):
    said = closing_sentence(good)
    assert said.count(". ") == 0
    assert said.endswith(".")
    assert "native reads 0.90 of 70 values" in said
    assert "0.30, so native is AHEAD by +0.60" in said
    assert "on the 35 that fixed shows lower" in said
    assert "needs no pixels" in said
    assert "0.00 and 0.00 are right, not more than by the best constant guess" in said
    assert "native itself misses 0.10" in said


def test_the_closing_sentence_says_what_speaks_against_native_too(monkeypatch):
    level = make_summary(monkeypatch, {"native": 0.5, PLAN.fixed: 0.5})
    assert "a difference that so few questions do not show: +0.00" in closing_sentence(level)
    assert "no smaller budget reads what native does" in closing_sentence(level)
    behind = make_summary(
        monkeypatch, {"native": 0.1, PLAN.fixed: 0.6, PLAN.nothing: 0.4}, seen=0.5
    )
    said = closing_sentence(behind)
    assert "native is BEHIND by -0.50" in said
    assert "MORE than by the best constant guess" in said
    assert "at no height of text" in said


def test_maps_count_every_question_once(good):
    counts = counts_of(good, PLAN.native)
    assert set(counts) == set(BINS)
    assert sum(asked for asked, _ in counts.values()) == 70
    assert sum(right for _, right in counts.values()) == 63
    rows = [line.split(",") for line in maps_csv(good).splitlines()]
    native = [row for row in rows[1:] if row[:2] == ["native", "rc"]]
    assert sum(int(row[5]) for row in native) == 63


def test_the_csv_files_hold_the_tallies_with_their_intervals(good):
    header, *rows = [line.split(",") for line in table_csv(good).splitlines()]
    assert len(rows) == 2 * len(PLAN.everything)
    (row,) = (dict(zip(header, r, strict=False)) for r in rows if r[:2] == ["native", "rc"])
    assert (row["exact_match"], row["questions"], row["ms"]) == ("0.9000", "70", "5.0")
    untimed = [line.split(",") for line in table_csv(good, timed=False).splitlines()]
    assert untimed == [line[:-1] for line in (header, *rows)]  # without ms, the last column


@pytest.mark.parametrize("draw", [draw_maps, draw_curve])
def test_figures_change_with_the_numbers(draw, good, monkeypatch):
    other = make_summary(monkeypatch, {"native": 0.5, PLAN.fixed: 0.3})
    first, changed = (draw(s, note="a note") for s in (good, other))
    assert first != changed
    with Image.open(io.BytesIO(first)) as image:
        assert min(image.size) > 500


def test_chance_is_that_of_a_guesser_who_learned_on_other_documents():
    shares = guess_shares(7, num_questions=70)
    assert shares["rc"] < 0.05  # values are drawn from thousands
    assert 0.05 < shares["sc"] < 0.5  # two to eight answers a topic, 35 questions


def test_a_record_is_found_for_the_very_weights_and_no_others(good, tmp_path):
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    kept = dataclasses.replace(good, made=MADE | {"fingerprint": fingerprint(model)})
    (tmp_path / "a.json").write_text(json.dumps({"answers": to_json(kept)}))
    found = find_record(model, folder=tmp_path)
    assert found is not None
    assert to_json(found) == to_json(kept)
    model.kernel[...] = model.kernel[...].at[0, 0].add(jnp.float32(1e-6))
    assert find_record(model, folder=tmp_path) is None


def test_records_that_are_kept_can_be_read():
    assert find_record(nnx.Linear(2, 3, rngs=nnx.Rngs(0))) is None

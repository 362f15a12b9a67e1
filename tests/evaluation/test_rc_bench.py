"""RC-Bench: its published numbers, sets that are balanced and whole, predictions all or none."""

import csv
import io
import json
import pathlib
import pickle
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from mres_jax.data.documents.bins import BINS, bin_of, draw_size
from mres_jax.errors import MresError
from mres_jax.evaluation.rc_bench.annotations import open_source
from mres_jax.evaluation.rc_bench.building import build_set
from mres_jax.evaluation.rc_bench.compare import subtract
from mres_jax.evaluation.rc_bench.cuts import AREAS, CELLS, RATIOS, Cuts
from mres_jax.evaluation.rc_bench.drawing import draw_results
from mres_jax.evaluation.rc_bench.fits import apply_fit, plan_fit
from mres_jax.evaluation.rc_bench.folders import open_set
from mres_jax.evaluation.rc_bench.generated import CUTS, generate_items
from mres_jax.evaluation.rc_bench.items import Fit
from mres_jax.evaluation.rc_bench.predictions import read_predictions
from mres_jax.evaluation.rc_bench.results import read_result, summarize, write_result
from mres_jax.evaluation.rc_bench.scores import score_items
from mres_jax.evaluation.rc_bench.variation import coefficient_of_variation, measure, resample
from mres_jax.geometry import Box, Size
from mres_jax.scoring import paired_interval, wilson_interval

SMALL = Cuts.of_unit(32)

PUBLISHED = [  # area means A..G, ratio means, ACV, RCV as printed
    ("native", ".658 .438 .614 .684 .652 .596 .532", ".526 .597 .631 .637 .590", 14.2, 7.2),
    ("crop", ".520 .492 .630 .590 .432 .356 .330", ".294 .444 .597 .531 .526", 23.5, 25.0),
    ("fixed", ".576 .492 .546 .530 .424 .300 .298", ".303 .366 .514 .576 .503", 25.5, 25.2),
]


@pytest.mark.parametrize(("name", "areas", "ratios", "acv", "rcv"), PUBLISHED)
def test_variation_agrees_with_the_published_tables(name, areas, ratios, acv, rcv):
    """0.8: the means are read off maps of two decimals."""
    for means, printed in ((areas, acv), (ratios, rcv)):
        value = coefficient_of_variation([float(mean) for mean in means.split()])
        assert value == pytest.approx(printed, abs=0.8), name


def test_variation_by_hand():
    assert coefficient_of_variation([0.4, 0.5, 0.6]) == pytest.approx(20.0)
    assert coefficient_of_variation([0.3, 0.3, 0.3, 0.3]) == 0.0
    assert coefficient_of_variation([0.2, 0.6]) == pytest.approx(100 * 0.08**0.5 / 0.4)
    assert coefficient_of_variation([0.0, 0.0]) is None
    assert coefficient_of_variation([0.5]) is None


def table(means: np.ndarray, n: int) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Scores, n a cell, that have these means by cell exactly."""
    scores = [(np.arange(n) < round(m * n)).astype(float) for m in means.ravel()]
    return np.concatenate(scores), [cell for cell in CELLS for _ in range(n)]


def test_means_of_a_hand_made_table_are_exact():
    means = np.tile(np.array([0.2, 0.4, 0.6, 0.8, 1.0]), (7, 1))
    means[0] = 0.0
    got = measure(*table(means, 10), samples=50, seed=0)
    assert got.accuracy.mean == pytest.approx(6 * 0.6 / 7)
    assert [got.areas[a].mean for a in AREAS] == pytest.approx([0.0] + 6 * [0.6])
    assert [got.ratios[r].mean for r in RATIOS] == pytest.approx(
        [6 / 7 * x for x in (0.2, 0.4, 0.6, 0.8, 1.0)]
    )
    # seven areas, one at 0 and six at x: deviation x * sqrt(1/7), mean x * 6/7
    assert got.acv.value == pytest.approx(100 * (1 / 7) ** 0.5 * 7 / 6)
    assert got.rcv.value == pytest.approx(100 * 0.1**0.5 / 0.6)


def test_cells_count_alike_where_their_items_do_not():
    cells = [("A", "NM")] * 9 + [("A", "AW")] + [("B", "NM")] * 2
    scores = np.array([1.0] * 9 + [0.0] + [0.5, 0.5])
    got = measure(scores, cells, samples=20, seed=0)
    assert got.accuracy.mean == pytest.approx(10 / 12)
    assert {name: x.mean for name, x in got.areas.items()} == {"A": 0.5, "B": 0.5}
    assert got.acv.value == 0.0
    assert got.acv.noise is None  # one item alone says nothing of its spread


def test_nothing_right_has_no_variation_rather_than_nan():
    got = measure(*table(np.zeros((7, 5)), 4), samples=20, seed=0)
    assert got.accuracy == wilson_interval(0, 140)
    assert got.areas["A"] == wilson_interval(0, 20)
    assert got.ratios["NM"] == wilson_interval(0, 28)
    assert got.acv == (None, None, None)


def test_resamples_that_agree_are_no_certainty():
    """All right: Wilson's with the items of the bin, and no interval of a variation."""
    got = measure(*table(np.ones((7, 5)), 3), samples=20, seed=0)
    assert got.accuracy == wilson_interval(105, 105)
    assert got.areas["G"] == wilson_interval(15, 15)
    assert (got.acv.value, got.acv.interval) == (0.0, None)
    (alone,) = measure(np.array([1.0]), [("A", "NM")], samples=20, seed=0).areas.values()
    assert alone == wilson_interval(1, 1)


def drawn_sets(truth: np.ndarray, n: int, sets: int) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Scores of many sets of n a cell, `[sets 35n]`."""
    cells = [cell for cell in CELLS for _ in range(n)]
    draws = np.random.default_rng(n).uniform(size=(sets, 35 * n))
    return (draws < np.repeat(truth, n)).astype(float), cells


@pytest.mark.parametrize("n", [2, 4])
def test_intervals_of_few_items_a_cell_hold_the_truth(n):
    """1,200 sets, cells from 0.3 to 0.9: 95 % within 2.5, of one model and of two, paired.

    Drawing n of n, 85 % of the intervals hold it at two a cell, 91 % at four.
    """
    truth = np.linspace(0.3, 0.9, 35)
    scores, cells = drawn_sets(truth, n, 2400)
    drawn = resample(scores, cells, samples=400, seed=0).mean(axis=(2, 3))
    differences = drawn[:1200] - drawn[1200:]
    for resamples, mean in ((drawn, truth.mean()), (differences, 0.0)):
        low, high = np.percentile(resamples, (2.5, 97.5), axis=1)
        held = (low <= mean + 1e-9) & (mean - 1e-9 <= high)
        assert 0.925 < held.mean() < 0.975


def test_the_interval_of_one_item_a_cell_is_the_binomial_one():
    scores, cells = drawn_sets(np.linspace(0.3, 0.9, 35), 1, 100)
    for each in scores:
        low, high = measure(each, cells, samples=1000, seed=0).accuracy[1:]
        mean = each.mean()
        assert low < mean < high
        binomial = 3.92 * (mean * (1 - mean) / 35) ** 0.5
        assert high - low == pytest.approx(binomial, rel=0.15)


def test_a_cell_of_one_item_keeps_its_mean_and_takes_the_spread_of_the_set():
    cells = [("A", "NM")] * 8 + [("B", "NM"), ("G", "BW")]
    scores = np.array([[1.0, 0.0] * 4 + [1.0, 0.0], [0.5, 0.0] * 4 + [1.0, 0.0]])
    drawn = resample(scores, cells, samples=20_000, seed=0)
    for model, own in zip(drawn, scores, strict=True):
        for place, value in (((1, 2), 1.0), ((6, 4), 0.0)):
            mine = model[:, *place]
            assert mine.mean() == pytest.approx(value, abs=0.02)
            assert mine.var() == pytest.approx(own.var(ddof=1), rel=0.05)
    order = [8, 9, *range(8)]
    again = resample(scores[:, order], [cells[i] for i in order], samples=20_000, seed=0)
    np.testing.assert_array_equal(again, drawn)


def test_intervals_are_the_same_every_time_and_do_not_hang_on_the_order_of_items():
    rng = np.random.default_rng(0)
    scores, cells = table(rng.uniform(size=(7, 5)), 8)
    first = measure(scores, cells, samples=200, seed=3)
    assert first == measure(scores, cells, samples=200, seed=3)
    assert first != measure(scores, cells, samples=200, seed=4)
    order = np.argsort([CELLS.index(cell) % 5 for cell in cells], kind="stable")
    again = measure(scores[order], [cells[i] for i in order], samples=200, seed=3)
    assert again.acv.interval == pytest.approx(first.acv.interval)
    assert again.accuracy == pytest.approx(first.accuracy)


def test_intervals_hold_the_truth_and_noise_is_the_variation_of_equal_cells():
    """200 sets of 50 a cell, all cells 0.6: coverage within its noise, noise within a tenth."""
    rng = np.random.default_rng(1)
    cells = [cell for cell in CELLS for _ in range(50)]
    draws = [(rng.uniform(size=1750) < 0.6).astype(float) for _ in range(200)]
    got = [measure(scores, cells, samples=100, seed=0) for scores in draws]
    held = [x.accuracy.low <= 0.6 <= x.accuracy.high for x in got]
    assert 0.9 < np.mean(held) < 0.98
    for name in ("acv", "rcv"):
        values = [getattr(x, name) for x in got]
        seen = np.mean([x.value**2 for x in values]) ** 0.5
        assert seen == pytest.approx(np.mean([x.noise for x in values]), rel=0.1)


@pytest.mark.parametrize("cell", BINS, ids="-".join)
def test_generated_documents_are_in_the_cells_of_their_own_bins(cell):
    rng = random.Random(0)
    for size in (draw_size(rng, *cell) for _ in range(50)):
        assert CUTS.cell(size) == bin_of(size) == cell


def test_cuts_by_hand():
    cuts = Cuts()
    for size, cell in [  # labelled on the project page, width x height
        (Size(1783, 844), ("E", "AH")),
        (Size(2590, 500), ("D", "BH")),
        (Size(230, 884), ("C", "AW")),
        (Size(2204, 1712), ("G", "NM")),
        (Size(96, 96), ("B", "NM")),  # on a cut: the larger bin
        (Size(95, 97), ("A", "NM")),
        (Size(100, 200), ("B", "NM")),  # on a cut: nearer to the square
        (Size(100, 400), ("B", "AW")),
        (Size(400, 100), ("B", "AH")),
        (Size(401, 100), ("B", "BH")),
    ]:
        assert cuts.cell(size) == cell, size
    with pytest.raises(MresError, match="areas must be 6 rising numbers; got 1, 2, 3, 4, 4, 5"):
        Cuts(areas=(1, 2, 3, 4, 4, 5))
    with pytest.raises(MresError, match="ratios must be 4 rising numbers; got nan, 1, 2, 3"):
        Cuts(ratios=(float("nan"), 1, 2, 3))


@given(
    st.builds(Size, st.integers(2, 900), st.integers(2, 900)),
    st.sampled_from(CELLS),
    st.randoms(use_true_random=False),
)
@settings(max_examples=250)
def test_a_fitted_picture_is_in_its_cell_and_keeps_its_shape(size, cell, rng):
    cuts = Cuts.of_unit(64)
    fit = plan_fit(size, cell, cuts, rng, scales=(0.25, 4.0))
    if fit is None:
        return
    assert cuts.cell(fit.size) == cell
    assert 0.2 < fit.scale < 5
    top, left, bottom, right = fit.content
    assert 0 <= top < bottom <= fit.size.height
    assert 0 <= left < right <= fit.size.width
    inner = fit.content.size
    exact = size.height * fit.scale, size.width * fit.scale
    assert abs(inner.height - exact[0]) <= 1 + inner.height / inner.width
    assert abs(inner.width - exact[1]) <= 1 + inner.width / inner.height


def test_fitting_pads_with_the_border_and_touches_nothing_else():
    pixels = np.full((4, 6, 3), 200, np.uint8)
    pixels[1:3, 1:5] = 10
    fit = Fit(Size(4, 6), Box(1, 2, 5, 8), Size(7, 11))
    result = apply_fit(pixels, fit)
    assert (result[1:5, 2:8] == pixels).all()
    outside = np.ones((7, 11), bool)
    outside[1:5, 2:8] = False
    assert (result[outside] == 200).all()


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> pathlib.Path:
    """Questions about 400 pictures of many sizes, few of them extreme."""
    folder = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(400):
        side, ratio = 200 * rng.uniform() ** 1.5 + 5, np.exp(rng.normal(0, 0.7))
        size = round(side * ratio**0.5) + 1, round(side / ratio**0.5) + 1
        Image.new("RGB", size, tuple(rng.integers(256, size=3).tolist())).save(folder / f"{i}.png")
        answers = [[str(i)], [f"{i} kg"], [f"the {i} th house behind the old mill"]][i % 3]
        rows.append({"id": f"q{i}", "image": f"{i}.png", "question": "What?", "answers": answers})
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder / "rows.json"


@pytest.fixture(scope="module")
def balanced(pool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "balanced"
    scales = (0.25, 4.0)
    return build_set(open_source(pool), folder, cuts=SMALL, per_cell=3, seed=1, scales=scales)


def test_every_cell_has_as_many_and_every_picture_is_in_its_cell(balanced):
    assert len(balanced) == 105
    assert set(balanced.card["cells"].values()) == {3}
    assert len(balanced.card["cells"]) == 35
    assert len({item.source for item in balanced.items}) == 105
    for i, item in enumerate(balanced.items):
        height, width = balanced.image(i).shape[:2]
        assert item.size == (height, width)
        assert SMALL.cell(item.size) == item.cell


def test_pictures_that_need_nothing_keep_their_bytes(balanced, pool):
    plain = [i for i, item in enumerate(balanced.items) if item.fit is None]
    assert 30 < len(plain) < 105
    for i in plain:
        item, content = balanced[i]
        assert content == (pool.parent / item.source).read_bytes()
    assert balanced.card["pictures padded or resized"] == 105 - len(plain)


def test_a_set_is_made_again_byte_for_byte_and_another_seed_chooses_others(
    balanced, pool, tmp_path
):
    kwargs = {"cuts": SMALL, "per_cell": 3, "scales": (0.25, 4.0)}
    again = build_set(open_source(pool), tmp_path / "balanced", seed=1, **kwargs)
    for name in ("items.jsonl", "card.json", "README.md"):
        assert (again.folder / name).read_bytes() == (balanced.folder / name).read_bytes()
    assert [again[i][1] for i in range(105)] == [balanced[i][1] for i in range(105)]
    other = build_set(open_source(pool), tmp_path / "other", seed=2, **kwargs)
    assert {item.id for item in other.items} != {item.id for item in balanced.items}


def test_rules_of_scoring_are_guessed_from_answers_and_counted(balanced):
    for item in balanced.items:
        expected = {"0": "unit", "1": "unit", "2": "anls"}[str(int(item.id[1:]) % 3)]
        assert item.metric == expected
    assert balanced.card["metrics guessed"] == 105


def test_cells_that_cannot_be_filled_are_named_and_nothing_is_written(pool, tmp_path):
    with pytest.raises(
        MresError, match=r"400 pictures fill \d+ of 35 cells with 50; \d+ are short"
    ):
        build_set(open_source(pool), tmp_path / "set", cuts=SMALL, per_cell=50)
    assert not list(tmp_path.iterdir())


def test_a_set_is_a_source_that_travels_to_workers(balanced):
    balanced[0]
    copy = pickle.loads(pickle.dumps(balanced))
    assert copy[104] == balanced[104] == balanced[-1]
    with pytest.raises(IndexError):
        balanced[105]


def test_a_set_that_was_changed_is_refused(balanced, tmp_path):
    def copy(name: str) -> pathlib.Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in balanced.folder.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    items = copy("items") / "items.jsonl"
    items.write_text(items.read_text().replace("What?", "Who?", 1))
    with pytest.raises(MresError, match=r"items.jsonl is not what card.json was written for"):
        open_set(items.parent)
    pictures = copy("cut") / "pictures.array_record"
    content = pictures.read_bytes()
    pictures.write_bytes(content[: len(content) // 2])
    with pytest.raises(MresError, match=r"pictures.array_record (has 0 of 105|cannot be read)"):
        open_set(pictures.parent)[0]
    pictures.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    with pytest.raises(MresError, match=r"cannot be read|is damaged"):
        [open_set(pictures.parent)[i] for i in range(105)]
    with pytest.raises(MresError, match=r"has no card.json. Make a set with mres rcbench make"):
        open_set(tmp_path)


def test_generated_sets_are_balanced_and_answered_by_their_own_answers():
    items = [item for item, _ in generate_items(7, 1)]
    assert [item.cell for item in items] == list(CELLS)
    assert all(CUTS.cell(item.size) == item.cell for item in items)
    assert len({item.id for item in items}) == 35
    scored = score_items(items, [item.answers[0] for item in items])
    assert {each.score for each in scored} == {1.0}


def write_lines(path: pathlib.Path, rows) -> pathlib.Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def predictions_of(rc_set, path: pathlib.Path, wrong: int = 0) -> pathlib.Path:
    rows = [
        {"id": item.id, "prediction": "?" if i < wrong else item.answers[0], "more": 1}
        for i, item in enumerate(rc_set.items)
    ]
    return write_lines(path, reversed(rows))


def test_predictions_come_in_any_order_and_numbers_as_they_are_written(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('\ufeff{"prediction": 61.10, "id": "b"}\n\n{"id": "a", "prediction": "x"}\n')
    assert read_predictions(path, ["a", "b"]) == ["x", "61.10"]


GOOD = [json.dumps({"id": name, "prediction": "x"}) for name in "abd"]
BAD = {
    "missing": (GOOD[:1], "1 missing (first: b), of 2 items. Nothing was scored."),
    "duplicate": ([*GOOD[:2], GOOD[0]], "1 duplicate (first: a), of 2 items"),
    "unknown": (GOOD, "1 unknown (first: d), of 2 items"),
    "several": (
        [GOOD[0], GOOD[0], GOOD[2], "{not"],
        "1 not JSON (first: line 4), 1 unknown (first: d), 1 duplicate (first: a), 1 missing "
        "(first: b), of 2 items: no JSON",
    ),
    "no prediction": (
        [GOOD[0], '{"id": "b"}'],
        "1 unknown form (first: line 2), 1 missing (first: b), of 2 items: a line is an object",
    ),
    "null": (
        [GOOD[0], '{"id": "b", "prediction": null}'],
        "1 unknown form (first: b), of 2 items: a prediction is null. Nothing was scored.",
    ),
    "list": ([GOOD[0], '{"id": "b", "prediction": ["x"]}'], "a prediction is a list"),
    "no id": ([GOOD[0], '{"id": null, "prediction": "x"}'], "an id is null"),
    "NaN": ([GOOD[0], '{"id": "b", "prediction": NaN}'], "NaN is no prediction"),
    "surrogate": ([GOOD[0], '{"id": "b", "prediction": "\\ud800"}'], "half a character"),
    "huge": (
        [GOOD[0], json.dumps({"id": "b", "prediction": "x" * 30_000})],
        "1 too long (first: b), of 2 items: 30,000 characters of at most 20,000. Nothing was",
    ),
    "empty": ([], "the file is empty"),
    "csv": (["id,prediction"], "begins with 'id,predictio'"),
}


def test_a_picture_that_its_row_holds_is_no_file(tmp_path):
    row = {"id": "a", "image": "data:image/png;base64,AAAA", "question": "q", "answer": "x"}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    source = open_source(tmp_path / "rows.json")
    (finding,) = source.bad
    assert finding.kind == "unsafe path"
    assert finding.first[0][1].endswith("is an address; save it as a file")


@pytest.mark.parametrize("name", BAD)
def test_bad_predictions_are_counted_by_kind_in_one_error(name, tmp_path):
    lines, message = BAD[name]
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(MresError) as error:
        read_predictions(path, ["a", "b"])
    assert message in str(error.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_refused(encoding, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes('{"id": "a", "prediction": "é"}'.encode(encoding))
    with pytest.raises(MresError, match=r"not JSON \(first: line 1\).*utf-8|begins with"):
        read_predictions(path, ["a"])


@pytest.fixture(scope="module")
def results(balanced, tmp_path_factory) -> list[pathlib.Path]:
    """Two models: one is wrong in 40 items, the other in 10 of them."""
    folder = tmp_path_factory.mktemp("results")
    for name, wrong in (("weak", 40), ("strong", 10)):
        path = predictions_of(balanced, folder / f"{name}.jsonl", wrong)
        given = read_predictions(path, [item.id for item in balanced.items])
        scored = score_items(balanced.items, given)
        _, summary = summarize(scored, balanced, path, threshold=0.5, samples=200)
        write_result(folder / name, scored, summary)
    return [folder / "strong", folder / "weak"]


def test_scores_are_kept_per_item_with_what_was_compared(results, balanced):
    lines = [json.loads(line) for line in (results[1] / "scores.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [item.id for item in balanced.items]
    assert [line["score"] for line in lines] == [0.0] * 40 + [1.0] * 65
    assert lines[0].keys() >= {"question", "answers", "prediction", "metric", "area_bin"}
    summary = json.loads((results[1] / "summary.json").read_text())
    assert summary["accuracy"][0] == pytest.approx(65 / 105)
    assert summary["set"]["is_balanced"]
    assert sum(count["items"] for count in summary["metrics"].values()) == 105
    assert summary["bootstrap"] == {"samples": 200, "seed": 0}


def test_differences_are_paired(results):
    strong, weak = map(read_result, results)
    difference = subtract(strong, weak, samples=200)
    assert difference.accuracy.mean == pytest.approx(30 / 105)
    assert 0.1 < difference.accuracy.low < 30 / 105 < difference.accuracy.high
    assert (difference.counts == 3).all()
    same = subtract(weak, weak, samples=200)
    assert same.accuracy == paired_interval(0, 0, 105)
    assert (difference.low <= difference.means).all()
    assert (difference.means <= difference.high).all()


def test_a_cell_without_differences_is_not_said_to_have_none(results):
    """Agresti and Min's interval: 3 pairs that are alike may differ by 0.4 either way."""
    weak = read_result(results[1])
    same = subtract(weak, weak, samples=20)
    np.testing.assert_allclose([same.low, same.high], [[[-0.392] * 5] * 7, [[0.392] * 5] * 7], 1e-3)
    rows = list(csv.DictReader(draw_results([weak, weak])["difference.csv"].decode().splitlines()))
    assert rows[0] | {"difference": "+0.0000", "low": "-0.3920", "high": "+0.3920"} == rows[0]


def test_maps_are_pictures_and_the_numbers_behind_them(results):
    both = [read_result(folder) for folder in results]
    files = draw_results(both)
    assert list(files) == ["map.png", "map.csv", "difference.csv"]
    assert Image.open(io.BytesIO(files["map.png"])).size[0] > 1200
    rows = list(csv.DictReader(files["map.csv"].decode().splitlines()))
    assert len(rows) == 70
    mean = np.mean([float(row["accuracy"]) for row in rows if row["result"] == "weak"])
    assert mean == pytest.approx(65 / 105, abs=1e-3)
    cells = list(csv.DictReader(files["difference.csv"].decode().splitlines()))
    assert [(row["area_bin"], row["ratio_bin"]) for row in cells] == list(CELLS)
    assert np.mean([float(row["difference"]) for row in cells]) == pytest.approx(30 / 105, abs=1e-3)
    assert list(draw_results(both[:1])) == ["map.png", "map.csv"]


def test_results_on_other_sets_are_not_subtracted(results, pool, tmp_path):
    other = build_set(open_source(pool), tmp_path / "other", cuts=SMALL, per_cell=None)
    path = predictions_of(other, tmp_path / "p.jsonl")
    scored = score_items(other.items, read_predictions(path, [i.id for i in other.items]))
    _, summary = summarize(scored, other, path, threshold=0.5, samples=20)
    assert not summary["set"]["is_balanced"]
    write_result(tmp_path / "r", scored, summary)
    with pytest.raises(MresError, match=r"Differences are of answers to the same questions"):
        subtract(read_result(results[0]), read_result(tmp_path / "r"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"score": 1.0', '"score": NaN', "104 good lines of 105 in scores.jsonl, 1 damaged"),
        ('"score": 1.0', '"score": 2', "1 damaged (line 41: score 2 in cell"),
        ('"area_bin": "', '"area_bin": "X', "1 damaged (line 1: score 0.0 in cell"),
        ("}\n", "}", "damaged (line 1:"),
        ("{", "", "damaged (line 1:"),
    ],
)
def test_damaged_results_are_counted_and_not_drawn(old, new, message, results, tmp_path):
    for file in results[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    scores = tmp_path / "scores.jsonl"
    scores.write_text(scores.read_text().replace(old, new, 1))
    with pytest.raises(MresError) as error:
        read_result(tmp_path)
    assert message in str(error.value)


def test_a_folder_that_is_no_result_says_what_it_lacks(results, tmp_path):
    for name in ("empty", "set", "half"):
        (tmp_path / name).mkdir()
    (tmp_path / "set/card.json").write_text("{}")
    (tmp_path / "half/scores.jsonl").write_text("{}")
    for name, reason in {
        "gone": "no such file or directory",
        "empty": "has no scores.jsonl",
        "set": "is a set and has no scores.jsonl",
        "half": "has no summary.json",
    }.items():
        line = f"result {tmp_path / name}: {reason}. Make one with mres rcbench score."
        with pytest.raises(MresError, match=f"^{re.escape(line)}$"):
            read_result(tmp_path / name)


def test_a_result_cut_short_or_with_a_line_twice_is_no_result(results, tmp_path):
    for file in results[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    scores = tmp_path / "scores.jsonl"
    lines = scores.read_text().splitlines(keepends=True)
    for some, count in ((lines[:100], 100), ([*lines, lines[0]], 106)):
        scores.write_text("".join(some))
        with pytest.raises(MresError, match=rf"{count} good lines of 105"):
            read_result(tmp_path)


def test_scores_that_were_changed_are_not_drawn_under_the_old_numbers(results, tmp_path):
    for file in results[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    scores = tmp_path / "scores.jsonl"
    scores.write_text(scores.read_text().replace('"score": 1.0', '"score": 0.5', 1))
    with pytest.raises(
        MresError, match=r"scores\.jsonl is not what summary\.json was written for\. Score the pred"
    ):
        read_result(tmp_path)

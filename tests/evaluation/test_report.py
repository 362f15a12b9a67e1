"""The page of a report: one file, the numbers by hand, the very pixels, no markup but our own."""

import base64
import contextlib
import csv
import hashlib
import html.parser
import io
import itertools
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from mres_jax.config import EvalRun, QuestionFile
from mres_jax.data.views import render_view
from mres_jax.errors import MresError
from mres_jax.evaluation.arms import run_evaluation
from mres_jax.evaluation.report import make_report
from mres_jax.geometry import Size
from mres_jax.resolution.policies import parse_policy

EVIL = '</script><img src=x onerror="alert(1)"> {{flips}}'
SIZES = [(64, 64), (64, 200), (160, 64), (72, 72)]
READ = 9.0  # px of capitals that the reader needs


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Figures take longer than all the rest: one page has them."""
    monkeypatch.setattr("mres_jax.evaluation.arms.overview.draw_points", lambda *a, **k: b"")
    if "pixels" not in request.node.name:
        for name in ("draw_points", "draw_groups"):
            monkeypatch.setattr(f"mres_jax.evaluation.report.page.{name}", lambda *a, **k: b"")


def picture(i: int) -> np.ndarray:
    height, width = SIZES[i % 4]
    return np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)


def knows(request, tokens) -> str:
    """Reads what 40 visual tokens show, and is rude otherwise."""
    return "7" if tokens >= 40 else EVIL


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    content = []
    for i in range(12):
        Image.fromarray(picture(i)).save(folder / f"{i}.png")
        row = {"id": f"q{i}", "image": f"{i}.png", "question": f"{EVIL} {i}?", "answer": "7"}
        content.append({**row, "text_height": 12, "box": [4, 4, 20, 40], "type": "rc"})
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, content)))
    return folder / "q.jsonl"


@pytest.fixture
def evaluated(rows, tmp_path, enter, make_reader):
    run = EvalRun(
        name="both",
        out=str(tmp_path / "run"),
        tasks=(QuestionFile(path=str(rows)),),
        models={"reader": "here"},
        policies=("native", "budget:36"),
        batch=5,
    )
    entrants = {"reader": enter(make_reader(read=knows))}
    run_evaluation(run, entrants, versions={"mres-jax": "1", "device": "cpu"})
    return tmp_path / "run"


class Page(html.parser.HTMLParser):
    """Collects elements and addresses, and sees that every element is closed."""

    VOID = ("meta", "link", "img", "input", "br")

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "iframe", "object", "link")
        assert not any(name.startswith("on") for name, _ in attrs)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def table(path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_the_page_needs_nothing_else_and_shows_the_very_pixels(evaluated, spec, tmp_path):
    make_report([str(evaluated)], tmp_path / "out", flips=4)
    page = Page()
    page.feed((tmp_path / "out/index.html").read_text())
    page.close()
    assert not page.open
    assert page.sources
    assert all(source.startswith("data:") for source in page.sources)
    assert EVIL in page.text  # as text
    pixels = [decode(source) for source in page.sources if source.startswith("data:image/webp")]
    first = next(i for i in range(12) if flips(i, spec))
    for policy in ("native", "budget:36"):
        (view,) = parse_policy(policy)([Size(*picture(first).shape[:2])], "", spec)
        seen = render_view(picture(first), view)
        assert any(np.array_equal(seen, shown) for shown in pixels), policy


def decode(source: str) -> np.ndarray:
    data = base64.b64decode(source.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def tokens(i: int, policy: str, spec) -> int:
    (view,) = parse_policy(policy)([Size(*picture(i).shape[:2])], "", spec)
    return spec.num_visual_tokens(spec.grid(view.encoded_size))


def flips(i: int, spec) -> bool:
    return tokens(i, "native", spec) >= 40 > tokens(i, "budget:36", spec)


def test_the_tables_behind_it_are_counted_by_hand(evaluated, spec, tmp_path):
    make_report([str(evaluated)], tmp_path / "out", against="reader/native")
    rows = range(12)
    for point in table(tmp_path / "out/points.csv"):
        counts = [tokens(i, point["policy"], spec) for i in rows]
        assert float(point["visual_tokens"]) == pytest.approx(np.mean(counts), abs=0.01)
        score = np.mean([n >= 40 for n in counts])
        assert float(point["score"]) == pytest.approx(score, abs=1e-4)
        assert float(point["ms"]) > 0
    (difference,) = table(tmp_path / "out/differences.csv")
    lost = sum(flips(i, spec) for i in rows)
    assert lost >= 4
    assert (difference["won"], difference["lost"]) == ("0", str(lost))
    assert float(difference["difference"]) == pytest.approx(-lost / 12, abs=1e-4)
    groups = table(tmp_path / "out/groups.csv")
    by = {row["by"] for row in groups}
    assert by == {
        "area of the picture",
        "width / height",
        "capitals in the picture, px",
        "capitals as seen, px",
    }
    wide = [r for r in groups if r["bin"] == "AW" and r["policy"] == "native"]
    assert [row["questions"] for row in wide] == ["3"]  # 200 x 64 px
    for row in groups:
        if row["by"] == "capitals in the picture, px":
            assert (row["bin"], row["questions"]) == ("12-16", "12")


def test_evaluations_of_their_own_stand_in_one_figure(evaluated, rows, enter, tmp_path):
    run = EvalRun(
        name="other",
        out=str(tmp_path / "other"),
        tasks=(QuestionFile(path=str(rows)),),
        models={"reader": "here"},
        policies=("scale:0.5",),
    )
    run_evaluation(run, {"reader": enter()}, versions={"mres-jax": "1"})
    make_report([str(evaluated), str(tmp_path / "other")], tmp_path / "out", flips=0)
    assert [(row["run"], row["policy"]) for row in table(tmp_path / "out/points.csv")] == [
        ("both", "native"),
        ("both", "budget:36"),
        ("other", "scale:0.5"),
    ]
    against = {(r["run"], r["against_run"]) for r in table(tmp_path / "out/differences.csv")}
    assert against == {("both", "both"), ("other", "both")}


def test_pictures_that_are_gone_are_said_to_be(evaluated, rows, tmp_path):
    text = rows.read_text()
    rows.unlink()
    try:
        make_report([str(evaluated)], tmp_path / "out")
    finally:
        rows.write_text(text)
    assert "pictures are missing: " in (tmp_path / "out/index.html").read_text()


def test_what_cannot_be_reported_is_one_line_and_no_page(evaluated, tmp_path):
    with pytest.raises(MresError, match=r"no arm 'natve' \(did you mean native\?\)"):
        make_report([str(evaluated)], tmp_path / "out", against="natve")
    with pytest.raises(MresError, match="no such directory"):
        make_report([str(tmp_path / "x")], tmp_path / "out")
    with pytest.raises(MresError, match="is no evaluation"):
        make_report([str(tmp_path)], tmp_path / "out")
    with pytest.raises(MresError, match="are both both, reader, native on q with seed 0"):
        make_report([str(evaluated), str(evaluated)], tmp_path / "out")
    samples = evaluated / "reader/q/native-seed0/samples.jsonl"
    whole = samples.read_bytes()
    samples.write_bytes(whole.replace(b'"score": 1.0', b'"score": 0.0', 1))
    with pytest.raises(MresError, match=r"not what summary\.json was written for"):
        make_report([str(evaluated)], tmp_path / "out")
    (evaluated / "reader/q/native-seed0/summary.json").unlink()
    with pytest.raises(MresError, match=r"1 of 2 arms are not done \(first: reader/q/native-seed0"):
        make_report([str(evaluated)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_id_that_stands_for_two_questions_is_refused(evaluated, rows, enter, tmp_path):
    (tmp_path / "q.jsonl").write_text(
        re.sub(r" 3\?", " three?", rows.read_text()).replace('"image": "', '"image": "pictures/')
    )
    (tmp_path / "pictures").symlink_to(rows.parent)
    run = EvalRun(
        name="other",
        out=str(tmp_path / "other"),
        tasks=(QuestionFile(path=str(tmp_path / "q.jsonl"), images=str(tmp_path)),),
        models={"reader": "here"},
    )
    with pytest.raises(MresError, match="12 unsafe path"):
        run_evaluation(run, {"reader": enter()}, versions={})
    (tmp_path / "pictures").unlink()
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        Image.fromarray(picture(i)).save(tmp_path / f"pictures/{i}.png")
    run_evaluation(run, {"reader": enter()}, versions={})
    with pytest.raises(MresError, match="question 'q3' of task q is another one in both than in"):
        make_report([str(evaluated), str(tmp_path / "other")], tmp_path / "out")


TRIED = 8
WRONG = (5, -1, 1e400, "x", "\ud800", True, None, [], [5], {}, {"x": 5})


def places(content, path=()):
    """Every field of a JSON value, by its path."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in pairs:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def found(evaluated, name):
    return (
        evaluated if name == "evaluation.json" else evaluated / "reader/q/budget-36-seed0"
    ) / name


def spoil(evaluated, name, path, value):
    """Writes a value into a field of a file; of samples into the first line. Hashes fit it."""
    file = found(evaluated, name)
    first, *rest = file.read_text().splitlines() if "jsonl" in name else [file.read_text()]
    content = json.loads(first)
    inside = content
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    file.write_text("\n".join([json.dumps(content), *rest, ""]))
    if "jsonl" in name:
        summary = json.loads((file.parent / "summary.json").read_text())
        summary["samples_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        (file.parent / "summary.json").write_text(json.dumps(summary))
    return file


SPOILT = [  # each of them was an exception of another kind, or a page of nonsense
    ("evaluation.json", ("arms",), 5),
    ("evaluation.json", ("arms", 0), {}),
    ("evaluation.json", ("run",), "x"),
    ("summary.json", ("ms",), "x"),
    ("summary.json", ("identity", "versions", "device"), "\ud800"),
    ("summary.json", ("made", "task"), [5]),
    ("summary.json", ("identity", "model", "fingerprint"), 5),
    ("summary.json", ("identity", "model", "processor", "background"), 5),
    ("summary.json", ("identity", "sampling", "temperature"), None),
    ("samples.jsonl", ("cell",), 5),
    ("samples.jsonl", ("cell",), "AW"),
    ("samples.jsonl", ("cell",), ["A", "x"]),
    ("samples.jsonl", ("seen_height_px",), "x"),
    ("samples.jsonl", ("text_height_px",), -1),
    ("samples.jsonl", ("answers",), "x"),
    ("samples.jsonl", ("question",), "\ud800"),
    pytest.param("samples.jsonl", ("flops",), 10**400, id="flops-10**400"),
    ("samples.jsonl", ("views", 0), 5),
    ("samples.jsonl", ("views", 0, "size_px"), [5, 0]),
    ("samples.jsonl", ("views", 0, "item"), "x"),
]


@pytest.mark.parametrize(("name", "path", "value"), SPOILT)
def test_files_that_were_spoilt_are_refused_by_name_and_field(
    name, path, value, evaluated, tmp_path
):
    file = spoil(evaluated, name, path, value)
    with pytest.raises(MresError) as caught:
        make_report([str(evaluated)], tmp_path / "out")
    assert str(file) in str(caught.value)
    if value != "\ud800":
        (*_, field) = (part for part in path if isinstance(part, str) and part != "item")
        assert field in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["evaluation.json", "summary.json", "samples.jsonl"])
def test_whatever_a_file_says_it_is_reported_on_or_refused(name, evaluated, tmp_path):
    """A few of all fields and wrong values, drawn; `TRIED` may be raised to try all."""
    first = found(evaluated, name).read_text().splitlines()[0]
    whole = found(evaluated, name).read_text()
    content = json.loads(first if name == "samples.jsonl" else whole)
    cases = list(itertools.product(places(content), WRONG))
    for number in np.random.default_rng(0).permutation(len(cases))[:TRIED]:
        copy = tmp_path / f"copy{number}"
        shutil.copytree(evaluated, copy)
        spoil(copy, name, *cases[number])
        with contextlib.suppress(MresError):
            make_report([str(copy)], tmp_path / "out", flips=1)
        shutil.rmtree(copy)

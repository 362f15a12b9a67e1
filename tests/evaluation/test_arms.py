"""Laws of evaluations: resumed to the bit, refused where they were of something else, counted."""

import dataclasses
import itertools
import json
import math
import os
import pathlib
import signal

import numpy as np
import pytest
from PIL import Image

from mres_jax.config import Benchmark, EvalRun, Generated, QuestionFile, from_json
from mres_jax.data.types import Rung
from mres_jax.errors import ConfigError, MresError, PolicyError, RunError
from mres_jax.evaluation.arms import METRICS, Contestant, Entrant, read_run, run_evaluation
from mres_jax.evaluation.arms.bootstrap import difference_interval, mean_interval
from mres_jax.evaluation.arms.contestants import files_digest, trained_policies
from mres_jax.evaluation.arms.figures import kind_of
from mres_jax.evaluation.arms.metrics import grade_row
from mres_jax.evaluation.arms.points import points_of
from mres_jax.evaluation.arms.tasks import open_task
from mres_jax.evaluation.csv_text import to_csv
from mres_jax.evaluation.rc_bench.cuts import Cuts
from mres_jax.evaluation.rc_bench.folders import write_set
from mres_jax.evaluation.rc_bench.generated import generate_items
from mres_jax.geometry import Size
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.handle import VLM
from mres_jax.inference.view_json import view_from_json, whole_view_to_json
from mres_jax.protocols import Clip
from mres_jax.resolution.policies import parse_policy
from mres_jax.resolution.task_policy import choice_file
from mres_jax.scoring import paired_interval, wilson_interval
from mres_jax.testing import said, tiny_qwen2_vl

VERSIONS = {"mres-jax": "1"}
ROW = {"id": "a", "images": ["p.png"], "question": "What?", "answer": "7"}


def describe(out, **changes) -> EvalRun:
    fields = {
        "name": "e",
        "out": str(out),
        "tasks": (Generated(num_questions=22),),
        "models": {"reader": "here"},
        "policies": ("native", "budget:6"),
        "batch": 4,
    }
    return EvalRun(**fields | changes)


def evaluate(out, entrant, *, versions=VERSIONS, **changes):
    return run_evaluation(describe(out, **changes), {"reader": entrant}, versions=versions)


def lines_of(out) -> dict[str, list[dict]]:
    """Every arm's lines without their clock, and that they have one."""
    found = {}
    for path in sorted(pathlib.Path(out).rglob("samples.jsonl")):
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        assert all(row.keys() >= {"ms", "score", "visual_tokens", "views"} for row in rows)
        found[str(path.relative_to(out))] = [
            json.dumps({k: v for k, v in row.items() if k != "ms"}) for row in rows
        ]
    return found


def contents_of(out) -> dict[str, bytes]:
    files = (path for path in pathlib.Path(out).rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def write_rows(folder, *rows):
    Image.new("RGB", (40, 30), "white").save(folder / "p.png")
    text = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "q.jsonl").write_text("\n".join(text))
    return QuestionFile(path=str(folder / "q.jsonl"))


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Evaluations without their figure, which takes longer than the rest; reports have theirs."""
    monkeypatch.setattr("mres_jax.evaluation.arms.overview.draw_points", lambda *a, **k: b"")


@pytest.fixture(scope="module")
def tiny() -> Entrant:
    """A model of random weights that reads pictures of up to 48 visual tokens."""
    made = tiny_qwen2_vl()
    ladder = (Rung(max_patches=256, max_tokens=512, max_views=4, max_examples=4),)
    answerer = LocalAnswerer(*made, ladder=ladder, rows=(4,))
    vlm = VLM("tiny", answerer, trained_policy="native")

    def load() -> Contestant:
        return dataclasses.replace(
            Contestant.of_model("reader", "here", vlm), answerer=answerer, trained=()
        )

    return Entrant(spec=made.spec, policy="native", open=load)


def test_a_model_killed_in_a_batch_and_resumed_writes_the_same_lines(tiny, tmp_path, monkeypatch):
    """With real packs: which questions share one is the same, so sums round alike."""
    settings = {"tasks": (Generated(num_questions=10),), "max_new_tokens": 4, "batch": 4}
    evaluate(tmp_path / "whole", tiny, **settings)
    contestant = tiny.open()
    answer, calls = contestant.answerer.answer, []

    def killed(requests, **options):
        calls.append(len(requests))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return answer(requests, **options)

    monkeypatch.setattr(contestant.answerer, "answer", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "cut", tiny, **settings)
    monkeypatch.undo()
    torn = tmp_path / "cut/reader/generated/native-seed0/samples.jsonl"
    whole = torn.read_bytes().splitlines(keepends=True)
    assert len(whole) == 8
    torn.write_bytes(b"".join(whole[:6]) + whole[6][:30])  # as a kill within a write leaves it
    assert not list((tmp_path / "cut").rglob("summary.json"))
    evaluate(tmp_path / "cut", tiny, **settings)
    there, again = lines_of(tmp_path / "whole"), lines_of(tmp_path / "cut")
    assert there == again
    assert [len(rows) for rows in there.values()] == [10, 10]
    assert len({json.loads(row)["prediction"] for rows in there.values() for row in rows}) > 5


@pytest.mark.parametrize("left", [0, 3, 8])
def test_wherever_it_is_killed_no_question_is_asked_for_twice(left, enter, make_reader, tmp_path):
    evaluate(tmp_path / "whole", enter())
    reader = make_reader(left=left)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "cut", enter(reader))
    assert not list((tmp_path / "cut").glob("summary.json"))
    rest = make_reader()
    results = evaluate(tmp_path / "cut", enter(rest))
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "cut")
    assert len(reader.asked) + len(rest.asked) == 2 * 22
    assert [len({sample.id for sample in result.samples}) for result in results] == [22, 22]
    done = make_reader()
    evaluate(tmp_path / "cut", enter(done))
    assert not done.asked  # it is all there


def test_sigterm_ends_it_after_the_batch_and_it_goes_on(enter, make_reader, tmp_path):
    def read(request, tokens):
        if len(reader.asked) == 12 and request.id == reader.asked[8]:  # in the third batch
            os.kill(os.getpid(), signal.SIGTERM)
        return f"{request.id} {tokens}"

    whole, said = make_reader(read=lambda request, tokens: f"{request.id} {tokens}"), []
    evaluate(tmp_path / "whole", enter(whole))
    reader = make_reader(read=read)
    run = describe(tmp_path / "cut")
    found = run_evaluation(run, {"reader": enter(reader)}, versions=VERSIONS, log=said.append)
    assert found == []
    assert len(reader.asked) == 12
    assert said[-1] == "e: stopped by SIGTERM; run it again and it goes on"
    assert not list((tmp_path / "cut").rglob("summary.json"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    evaluate(tmp_path / "cut", enter(make_reader(read=whole.read)))
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "cut")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_new_tokens": 9}, "sampling.max_new_tokens: 32 -> 9"),
        ({"batch": 5}, "batch: 4 -> 5"),
        ({"suffix": " Shortly."}, "suffix: '' -> ' Shortly.'"),
        ({"tasks": (Generated(num_questions=23),)}, "task.num_questions: 22 -> 23"),
        ({"versions": {"mres-jax": "2"}}, "versions.mres-jax: '1' -> '2'"),
    ],
)
def test_another_configuration_is_refused_by_name(changes, named, enter, tmp_path):
    evaluate(tmp_path, enter())
    before = contents_of(tmp_path)
    with pytest.raises(MresError, match="was begun with another configuration") as caught:
        evaluate(tmp_path, enter(), **changes)
    assert named in str(caught.value)
    assert contents_of(tmp_path) == before


def test_other_weights_are_another_configuration(enter, tmp_path):
    evaluate(tmp_path, enter())
    with pytest.raises(MresError, match=r"model\.fingerprint: 'f+' -> 'e'"):
        evaluate(tmp_path, enter(fingerprint="e"))


def test_a_policy_more_asks_only_what_is_new(enter, make_reader, tmp_path):
    evaluate(tmp_path, enter())
    reader = make_reader()
    results = evaluate(tmp_path, enter(reader), policies=("native", "budget:6", "no picture"))
    assert len(reader.asked) == 22
    assert [result.policy for result in results] == ["native", "budget:6", "no picture"]
    blind = results[2].samples
    assert {(s.visual_tokens, s.retention_ratio, s.views) for s in blind} == {(0, 0.0, ())}


def test_a_run_that_is_added_to_and_killed_shows_nothing_of_what_it_was(
    enter, make_reader, tmp_path
):
    evaluate(tmp_path, enter())
    there = {"summary.json", "results.csv", "scores.png"}
    assert {path.name for path in tmp_path.iterdir()} >= there
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, enter(make_reader(left=1)), policies=("native", "budget:6", "budget:9"))
    assert not there & {path.name for path in tmp_path.iterdir()}
    evaluate(tmp_path, enter(), policies=("native", "budget:6", "budget:9"))
    assert "budget:9" in (tmp_path / "results.csv").read_text()


def test_one_run_crosses_models_policies_budgets_and_seeds(enter, tmp_path):
    run = describe(
        tmp_path,
        models={"one": "here", "two": "there"},
        policies=("native", "budget:{budget}"),
        budgets=(4, 16),
        seeds=(0, 1),
        tasks=(Generated(num_questions=6), Generated(num_questions=4, types=("sc",), name="see")),
    )
    entrants = {name: enter(name=name) for name in run.models}
    results = run_evaluation(run, entrants, versions=VERSIONS)
    assert len(results) == 2 * 3 * 2 * 2
    arms = {(r.model, r.policy, r.seed, r.task) for r in results}
    assert ("two", "budget:16", 1, "see") in arms
    assert len(arms) == 24
    points = points_of(results)
    assert sum(point.num_questions for point in points) == 2 * 3 * 2 * (6 + 4)
    ids = {tuple(sample.id for sample in result.samples) for result in results}
    assert len(ids) == 4  # of the two tasks, fresh ones for each seed
    assert len(read_run(tmp_path)) == 24


def test_damaged_lines_are_counted_and_nothing_is_asked(enter, make_reader, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, enter(make_reader(left=5)))
    path = tmp_path / "reader/generated/native-seed0/samples.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    nan = lines[1].replace(b'"score": 0.0', b'"score": NaN')
    reader = make_reader()
    for damaged, count, reason in (
        ([lines[0], lines[0], *lines[2:]], "1 damaged lines of 12", "is there twice"),
        ([lines[0], nan, b"{}\n", *lines[3:]], "2 damaged lines of 12", "score is nan"),
        ([*lines[4:], *lines[:4]], "line 1 is about", "Name another out"),
    ):
        path.write_bytes(b"".join(damaged))
        with pytest.raises(MresError, match=count) as caught:
            evaluate(tmp_path, enter(reader))
        assert reason in str(caught.value)
    assert not reader.asked


def test_files_of_rows_are_used_whole_or_counted(tmp_path):
    bad = [
        ROW,
        ROW,
        {**ROW, "id": "n", "metric": "number", "answer": "seven"},
        {**ROW, "id": "m", "metric": "nope"},
        {**ROW, "id": "x", "images": ["../p.png"]},
        {**ROW, "id": "y", "images": ["q.png"]},
        "{oops",
        {**ROW, "id": "z", "answer": None},
        {**ROW, "id": "h", "answer": "x" * 30_000},
        {**ROW, "id": "s", "metric": "span_iou", "answer": "12"},
        {**ROW, "id": "v", "video": "no.mp4"},
        {**ROW, "id": "o", "options": ["6", "7"], "answer": "C"},
        {**ROW, "id": "t", "answers": ["8"]},
        {**ROW, "id": "nan", "answer": math.nan},
        {**ROW, "id": "inf", "answer": ["7", -math.inf]},
    ]
    with pytest.raises(MresError) as caught:
        open_task(write_rows(tmp_path, *bad), 0)
    counted = (
        "1 not JSON (first: #6), 4 unknown form (first: m, t, nan), 4 no answer (first: n, z, s), "
        "1 unsafe path (first: x), 1 missing picture (first: y), 1 missing video (first: v), "
        "1 duplicate id (first: a), 1 too long (first: h), of 15 rows"
    )
    assert counted in str(caught.value)
    with pytest.raises(ConfigError, match=r"'exat'.*did you mean exact"):
        open_task(dataclasses.replace(write_rows(tmp_path, ROW), metric="exat"), 0)


def nine_pictures(folder, suffix="png"):
    names = [f"{i}.{suffix}" for i in range(9)]
    task = write_rows(folder, *({**ROW, "id": f"r{n[0]}", "images": [n]} for n in names))
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    for name in names:
        Image.fromarray(noise).save(folder / name)
    return task


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp"])
def test_pictures_that_break_off_are_counted_before_anything_is_asked(
    suffix, enter, make_reader, tmp_path
):
    task, reader = nine_pictures(tmp_path, suffix), make_reader()
    for i in (3, 6):
        path = tmp_path / f"{i}.{suffix}"
        path.write_bytes(path.read_bytes()[:-200])
    whole = tmp_path / f"7.{suffix}"
    whole.write_bytes(whole.read_bytes() + b"\0" * 50)  # nobody minds what stands behind it
    with pytest.raises(MresError, match=r"2 bad picture \(first: r3, r6\), of 9 rows: .*3\."):
        evaluate(tmp_path / "out", enter(reader), tasks=(task,))
    assert not reader.asked
    assert not (tmp_path / "out").exists()


def test_a_picture_that_is_damaged_inside_stops_the_run_and_no_summary_is_left(enter, tmp_path):
    task = nine_pictures(tmp_path)
    content = (tmp_path / "6.png").read_bytes()
    (tmp_path / "6.png").write_bytes(content[:-900] + content[-20:])
    with pytest.raises(MresError, match=r"'r6' cannot be asked: .*8 answers are kept"):
        evaluate(tmp_path / "out", enter(), tasks=(task,))
    assert not list((tmp_path / "out").rglob("summary.json"))
    with pytest.raises(MresError, match="2 of 2 arms are not done"):
        read_run(tmp_path / "out")
    (tmp_path / "6.png").write_bytes(content)  # another file than the one that was begun with
    with pytest.raises(MresError, match="questions_sha256"):
        evaluate(tmp_path / "out", enter(), tasks=(task,))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows.pop(3), "1 taken out (r3)"),
        (lambda rows: [rows.pop() for _ in range(4)], "4 taken out (r5, r6, r7, ...)"),
        (lambda rows: rows.append({**rows[0], "id": "r9"}), "1 added (r9)"),
        (lambda rows: rows[2].update(question="Why?"), "1 worded otherwise (r2)"),
        (lambda rows: rows[2].update(id="x"), "1 taken out (r2), 1 added (x)"),
        (lambda rows: rows[2].update(answer="8"), "of those answered here all are there as they "),
        (lambda rows: rows.reverse(), "of those answered here all are there as they were worded; "),
    ],
)
def test_questions_that_are_others_are_told_apart(change, told, enter, tmp_path):
    task = nine_pictures(tmp_path)
    evaluate(tmp_path / "out", enter(), tasks=(task,))
    before = contents_of(tmp_path / "out")
    rows = [json.loads(line) for line in pathlib.Path(task.path).read_text().splitlines()]
    change(rows)
    with pytest.raises(MresError) as caught:
        evaluate(tmp_path / "out", enter(), tasks=(write_rows(tmp_path, *rows),))
    assert f" (questions: {told}" in str(caught.value)
    assert str(caught.value).endswith(
        "). Name another out, put the questions back, or delete the directory."
    )
    assert contents_of(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("metric", "answers", "given", "score"),
    [
        ("exact", ["7", "seven"], " Seven. ", 1.0),
        ("exact", ["7"], "17", 0.0),
        ("unit", ["$12.50"], "12.5 USD", 1.0),
        ("unit", ["61.1%"], "61.1", 0.0),
        ("anls", ["main street"], "main stret", 10 / 11),
        ("anls", ["main street"], "elsewhere", 0.0),
        ("choice", ["B"], "(B) two", 1.0),
        ("choice", ["two"], "B", 1.0),
        ("choice", ["A"], "B", 0.0),
        ("choices", ["A, C"], "C and A", 1.0),
        ("choices", ["A, C"], "A", 0.0),
        ("choice_f1", ["A, C"], "A", 2 / 3),
        ("number", ["1,250"], "about 1251", 1.0),
        ("number", ["1,250"], "about 1300", 0.0),
        ("closeness", ["10"], "8", 0.8),
        ("rouge_l", ["the cat has sat"], "the cat sat", 6 / 7),
        ("rouge", ["a b"], "a b", 1.0),
        ("words", ["a b c d"], "a b x d", 0.75),
        ("relaxed", ["7", "100"], " 104 ", 1.0),
        ("relaxed", ["7", "100"], "106", 0.0),
        ("vqa", ["Yes", "yes", "yes", "no"], "yes", (3 * 2 / 3 + 1) / 4),
        ("contains", ["7 M"], "it is 7 m", 1.0),
        ("contains", ["7 M"], "it is 7m", 0.0),
        ("formula", ["a+b"], "a + b", 1.0),
        ("formula", ["a+b"], "A + b", 0.0),
        ("span_iou", ["0 to 10"], "from 5 to 15", 1 / 3),
        ("span_iou", ["0 to 10"], "5-15", 1 / 3),
        ("span_iou", ["0:00 to 0:10", "5 15"], "[5, 15]", 1.0),
    ],
)
def test_metrics_score_as_by_hand(metric, answers, given, score, tmp_path):
    row = {"question": "?", "answers": answers, "metric": metric}
    if metric.startswith("choice"):
        row["options"] = ["one", "two", "three"]
    (question,) = open_task(write_rows(tmp_path, row), 0).draw()
    assert question.grade(said(given)) == pytest.approx(score, abs=1e-12)


def test_every_metric_is_scored_by_hand_or_needs_a_place():
    tried = test_metrics_score_as_by_hand.pytestmark[0].args[1]
    assert {case[0] for case in tried} | {"point", "box"} == set(METRICS)


def test_places_are_scored_in_the_one_view_that_they_are_meant_in(spec, tmp_path):
    row = {**ROW, "answer": None, "metric": "point", "box": [3, 4, 9, 12]}
    (question,) = open_task(write_rows(tmp_path, row), 0).draw()
    (view,) = parse_policy("native")([Size(30, 40)], "", spec)
    assert question.grade(said("(200, 200)", views=[view])) == 1.0
    assert question.grade(said("(900, 200)", views=[view])) == 0.0
    with pytest.raises(MresError, match="looked at 2"):
        question.grade(said("(200, 200)", views=[view, view]))


def test_clips_are_opened_as_the_model_samples_them(tmp_path):
    (tmp_path / "clip").mkdir()
    for i in range(6):
        Image.new("RGB", (40, 30), (40 * i, 0, 0)).save(tmp_path / f"clip/{i}.png")
    row = {"id": "v", "video": "clip", "question": "When?", "answer": "0 2", "metric": "span_iou"}
    (question,) = open_task(write_rows(tmp_path, row), 0).draw()
    (clip,) = question.open(tiny_qwen2_vl().spec)
    assert isinstance(clip, Clip)
    assert [int(frame[0, 0, 0]) for frame in clip.frames] == [40 * i for i in range(6)]
    assert question.grade(said("from 1 to 2")) == 0.5
    listed = {**row, "video": None, "frames": ["clip/5.png", "clip/0.png"]}
    (question,) = open_task(write_rows(tmp_path, listed), 0).draw()
    (clip,) = question.open(tiny_qwen2_vl().spec)
    assert [int(frame[0, 0, 0]) for frame in clip.frames] == [200, 0]


def test_sets_and_benchmarks_are_tasks(tmp_path):
    made = {"name": "set", "origin": "generated", "seed": 0, "type": "rc"}
    items = itertools.islice(generate_items(0, 1), 4)
    write_set(tmp_path / "set", items, cuts=Cuts.of_unit(128), made=made)
    task = open_task(Benchmark(name="rcbench", path=str(tmp_path / "set")), 0, limit=3)
    questions = list(task.draw())
    assert (task.num_questions, len(questions)) == (3, 3)
    assert questions[1].cell == ("A", "AH")
    (picture,) = questions[1].open(None)
    assert picture.shape[:2] == tuple(questions[1].sizes[0])
    assert questions[1].grade(said(questions[1].answers[0])) == 1.0
    with pytest.raises(MresError, match="no such file"):
        open_task(Benchmark(name="hrbench4k", path=str(tmp_path / "x.tsv")), 0)


def test_two_sets_of_one_benchmark_are_told_apart_by_their_labels(enter, tmp_path):
    made = {"name": "set", "origin": "generated", "seed": 0, "type": "rc"}
    tasks = []
    for label in ("rc", "sc"):
        items = itertools.islice(generate_items(len(tasks), 1), 3)
        write_set(tmp_path / label, items, cuts=Cuts.of_unit(128), made=made)
        tasks.append(Benchmark(name="rcbench", path=str(tmp_path / label), label=label))
    results = evaluate(tmp_path / "out", enter(), tasks=tuple(tasks), policies=("native",))
    assert [result.task for result in results] == ["rc", "sc"]
    assert {point.benchmark for point in points_of(results)} == {"rcbench"}
    with pytest.raises(ConfigError, match=r"two are called 'rcbench'; .* Benchmark label="):
        describe(tmp_path, tasks=tuple(dataclasses.replace(task, label="") for task in tasks))
    with pytest.raises(ConfigError, match="'r/c' is no name"):
        describe(tmp_path, tasks=(dataclasses.replace(tasks[0], label="r/c"),))


def test_a_run_that_was_saved_before_benchmarks_had_labels_is_read():
    before = '{"type": "mres_jax.config:Benchmark", "name": "chartqa", "path": "x"}'
    assert from_json(before) == Benchmark(name="chartqa", path="x")
    assert from_json(before).called == "chartqa"


def test_whoever_was_trained_otherwise_is_warned_of(enter, tmp_path):
    with pytest.warns(UserWarning, match="trained with native, not with budget:6: scores"):
        evaluate(tmp_path / "a", enter(trained=("native",)), policies=("native", "budget:6"))
    evaluate(tmp_path / "b", enter(trained=("native", "budget:6")))  # warnings are errors here


def test_the_policies_of_a_mixture_were_all_trained_with(tiny):
    answerer = tiny.open().answerer
    facts = {"run": {"policies": {"native": 2.0, "fixed:8": 0.0, "budget:9": 1.0}}}
    mixed = VLM("m", answerer, facts, trained_policy="native")
    assert trained_policies(mixed) == ("native", "budget:9")
    assert trained_policies(VLM("m", answerer, trained_policy="scale:0.5")) == ("scale:0.5",)
    assert trained_policies(VLM("m", answerer)) == ()


def test_an_unknown_policy_is_refused_before_anything_is_loaded(enter, tmp_path):
    def load():
        raise AssertionError("loaded")

    entrant = dataclasses.replace(enter(), open=load)
    with pytest.raises(PolicyError, match="bdget"):
        evaluate(tmp_path / "out", entrant, policies=("native", "bdget:4"))
    assert not (tmp_path / "out").exists()


def test_a_policy_is_known_by_the_files_that_it_names(tmp_path):
    file = tmp_path / "t.json"
    digests = []
    for policy in ("budget:4", "budget:9"):
        file.write_bytes(choice_file(policy, {}))
        digests.append(files_digest(f"task,file={file}"))
    assert None not in digests
    assert len(set(digests)) == 2
    assert (files_digest("budget:4"), files_digest("no picture")) == (None, None)


def test_a_folder_that_happens_to_be_called_as_an_option_is_none_of_the_files(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("model", "generic", "crop"):  # options of zoom
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"large")
    assert files_digest("zoom") is None
    (tmp_path / "own.json").write_text("{}")
    assert files_digest("zoom,prompts=own.json") is not None


def test_a_task_of_several_types_has_its_mean_too_unless_it_is_generated(enter, tmp_path):
    rows = [{**ROW, "id": f"r{i}", "type": "ab"[i % 2]} for i in range(4)]
    mixed = evaluate(tmp_path / "mixed", enter(), tasks=(write_rows(tmp_path, *rows),))
    drawn = evaluate(tmp_path / "drawn", enter())
    assert [point.type for point in points_of(mixed[:1])] == ["", "a", "b"]
    assert [point.type for point in points_of(drawn[:1])] == ["rc", "sc"]


def test_a_score_that_is_no_number_ends_the_run(enter, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "mres_jax.evaluation.arms.files.grade_row", lambda row, answer: float("nan")
    )
    with pytest.raises(RunError, match="metric exact gave nan"):
        evaluate(tmp_path / "out", enter(), tasks=(write_rows(tmp_path, ROW),))
    assert grade_row  # the name that was replaced


@pytest.mark.parametrize("policy", ["native", "fixed:64,mode=pad", "tiles,max=4", "budget:9"])
def test_views_come_back_from_json(policy, spec):
    for size in (Size(50, 400), Size(333, 210), Size(9, 9)):
        for view in parse_policy(policy)([size, size], "", spec):
            assert view_from_json(json.loads(json.dumps(whole_view_to_json(view, spec)))) == view


def test_intervals_draw_questions_about_one_picture_together():
    alone = [str(i) for i in range(40)]
    scores = [1.0] * 30 + [0.0] * 10
    assert mean_interval(scores, alone) == wilson_interval(30, 40)
    fourfold = mean_interval(
        [s for s in scores for _ in range(4)], [g for g in alone for _ in "four"]
    )
    assert fourfold.mean == 0.75
    # four equal questions say what one does: a width of 40 trials (0.26), not of 160 (0.13)
    assert 0.22 < fourfold.high - fourfold.low < 0.30
    assert mean_interval([1.0] * 8, ["p"] * 4 + ["q"] * 4)[1:] == wilson_interval(2, 2)[1:]


def test_differences_are_paired():
    groups = [str(i) for i in range(60)]
    hard = np.random.default_rng(0).integers(0, 2, 60).astype(float)
    better = np.where(np.arange(60) < 6, 1.0, hard)
    difference, ahead = difference_interval(better.tolist(), hard.tolist(), groups)
    assert difference.mean == pytest.approx(better.mean() - hard.mean())
    won = int((better > hard).sum())
    # against the closed form for matched pairs, which is drawn towards 0 by half a pair
    assert difference[1:] == pytest.approx(paired_interval(won, 0, 60)[1:], abs=0.04)
    assert ahead > 0.9
    assert difference_interval([1.0] * 60, [1.0] * 60, groups)[0] == paired_interval(0, 0, 60)


def test_kinds_of_policies_and_harmless_tables():
    assert kind_of("zoom,window=0.25,prompts=generic") == "zoom,window,prompts=generic"
    assert to_csv(["a"], [["=1+1"], ["x,y"], [2]]) == 'a\n\'=1+1\n"x,y"\n2\n'


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"budgets": (4,)}, "no policy with {budget}"),
        ({"policies": ("budget:{budget}",)}, "give both or neither"),
        ({"policies": ("native", "native")}, "stands twice"),
        ({"tasks": (QuestionFile(path="q"),), "seeds": (0, 1)}, "same questions"),
        ({"models": {"a/b": "x"}}, "no name"),
        ({"tasks": (Generated(), Generated())}, "two are called 'generated'"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.5}, "top_p=0.5 does nothing at temperature=0; set one"),
        ({"seeds": ()}, "seeds is empty"),
    ],
)
def test_impossible_evaluations_are_refused(changes, reason, tmp_path):
    with pytest.raises(ConfigError) as caught:
        describe(tmp_path, **changes)
    assert reason in str(caught.value)

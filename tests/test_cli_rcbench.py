"""`mres rcbench`: from pictures to a map, and the one line that each bad input gets."""

import json
import pathlib
import re

import pytest
from PIL import Image

from mres_jax.cli import main
from mres_jax.evaluation.rc_bench.folders import open_set


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> pathlib.Path:
    """Questions about a dozen pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = []
    for i in range(12):
        Image.new("RGB", (20 + 15 * i, 100), (20 * i, 0, 0)).save(folder / f"{i}.png")
        rows.append({"id": f"q{i}", "image": f"{i}.png", "question": "What?", "answer": f"{i} kg"})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def rc_set(source, tmp_path_factory) -> pathlib.Path:
    """All of them, as they are."""
    folder = tmp_path_factory.mktemp("sets") / "set"
    assert main(["rcbench", "make", str(source), "-o", str(folder), "--all", "--unit", "100"]) == 0
    return folder


def predict(folder: pathlib.Path, wrong: int) -> pathlib.Path:
    path = folder / f"p{wrong}.jsonl"
    lines = [
        json.dumps({"id": f"q{i}", "prediction": "?" if i < wrong else f"{i}.0 kilos"}) + "\n"
        for i in range(12)
    ]
    path.write_text("".join(lines))
    return path


def test_a_set_says_what_it_is(rc_set):
    card = json.loads((rc_set / "card.json").read_text())
    assert card["origin"] == "as given"
    assert card["num_items"] == 12 == sum(card["cells"].values())
    readme = (rc_set / "README.md").read_text()
    assert "its counts are not the official 35 x 50" in readme
    assert {item.metric for item in open_set(rc_set).items} == {"unit"}


def test_from_predictions_to_maps(rc_set, tmp_path, capsys):
    for wrong in (0, 3):
        path = predict(tmp_path, wrong)
        out = tmp_path / f"r{wrong}"
        assert main(["rcbench", "score", str(rc_set), str(path), "-o", str(out)]) == 0
    text, err = capsys.readouterr()
    assert re.search(r"^accuracy +0\.750 \[0\.\d+, [01]\.\d+\]", text, re.MULTILINE)
    assert re.search(r"^unit +12 +0\.750$", text, re.MULTILINE)
    assert "cells differ in number" in err
    words = ["rcbench", "plot", str(tmp_path / "r0"), str(tmp_path / "r3")]
    assert main([*words, "-o", str(tmp_path / "maps")]) == 0
    with Image.open(tmp_path / "maps/map.png") as image:
        assert image.size[0] > 1000
    difference = (tmp_path / "maps/difference.csv").read_text()
    assert len(difference.splitlines()) == 36
    assert "+1.0000" in difference


def test_scores_are_one_json_object_and_the_same_every_time(rc_set, tmp_path, capsys):
    path = predict(tmp_path, 3)
    texts = []
    for _ in range(2):
        assert main(["rcbench", "score", str(rc_set), str(path), "--json"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    content = json.loads(texts[0])
    assert content["accuracy"][0] == 0.75
    assert not list(tmp_path.glob("*/summary.json"))  # nothing is written unasked


def test_bad_rows_are_refused_or_left_out_and_counted(source, tmp_path, capsys):
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    (source.parent / "torn.png").write_bytes((source.parent / "9.png").read_bytes()[:-30])
    (source.parent / "text.png").write_text("<html>")
    rows[0]["answer"] = " "
    rows[1]["image"] = "../rows.jsonl"
    rows[2]["image"] = "gone.png"
    rows[3]["image"] = "text.png"
    rows[4]["id"] = "q5"
    rows[6]["metric"] = "bleu"
    rows[7]["image"] = "torn.png"
    rows[8]["answer"] = float("nan")
    dirty = source.with_name("dirty.jsonl")
    dirty.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["rcbench", "make", str(dirty), "-o", str(tmp_path / "set"), "--all"]
    assert main(words) == 2
    line = capsys.readouterr().err
    for kind in (
        "2 no answer (first: q0, q8)",
        "1 unsafe path (first: q1)",
        "1 missing picture (first: q2)",
        "1 bad picture (first: q3)",
        "1 duplicate id (first: q5)",
        "1 unknown form (first: q6)",
    ):
        assert kind in line
    assert line.count("\n") == 1
    assert not list(tmp_path.iterdir())
    assert main([*words, "--skip-bad"]) == 0
    card = json.loads((tmp_path / "set/card.json").read_text())
    assert card["num_items"] == 4
    assert sum(card["rows left out"].values()) == 8
    assert card["rows left out"]["bad picture"] == 2


def test_a_torn_picture_is_found_before_anything_is_written(source, tmp_path, capsys):
    (source.parent / "torn.png").write_bytes((source.parent / "9.png").read_bytes()[:-30])
    row = {"id": "a", "image": "torn.png", "question": "What?", "answer": "1"}
    path = source.with_name("torn.jsonl")
    path.write_text(json.dumps(row))
    assert main(["rcbench", "make", str(path), "-o", str(tmp_path / "set"), "--all"]) == 2
    assert "1 damaged of 1 pictures (first: row a: picture torn.png: dam" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["make", "-o", "x"], "name a file of questions, or give --generate."),
        (["make", "gone.json", "-o", "x"], "rcbench gone.json: no such file."),
        (["make", ".", "-o", "x"], "a directory without parquet files; name the file of questions"),
        (["make", "SRC", "-o", "."], "the folder is not empty. Name a new one."),
        (["make", "SRC", "-o", "x", "--images", "gone"], "picture folder gone is no directory."),
        (["make", "SRC", "-o", "x", "--all", "--per-cell", "3"], "leave out --per-cell."),
        (["make", "SRC", "-o", "x", "--per-cell", "0"], "--per-cell 0 must be at least 1."),
        (["make", "SRC", "-o", "x", "--scales", "2"], "--scales 2: two numbers, one below"),
        (["make", "SRC", "-o", "x", "--area-cuts", "1,b"], "--area-cuts 1,b: numbers with commas"),
        (["make", "SRC", "-o", "x", "--ratio-cuts", "1,2"], "ratios must be 4 rising numbers"),
        (["make", "SRC", "-o", "x"], "12 pictures fill 0 of 35 cells with 50; 35 are short"),
        (["make", "SRC", "--generate", "-o", "x"], "draws its own pictures; leave out source."),
        (["make", "SRC", "--perCell", "3", "-o", "x"], "unknown argument '--perCell'. Did you"),
        (["score", "SET", "gone.jsonl"], "predictions gone.jsonl: no such file."),
        (["score", ".", "few.jsonl"], "has no card.json. Make a set with mres rcbench make."),
        (["score", "SET", "few.jsonl", "-o", "r"], "11 missing (first: q1, q2, q3), of 12 items."),
        (["score", "SET", "few.jsonl", "--anls-threshold", "2"], "2.0 is not in [0, 1]."),
        (["plot", "gone", "-o", "x"], "result gone: no such file or directory."),
        (["plot", "a", "b", "c", "-o", "x"], "3 results; one or two can be drawn."),
        (["draw"], "invalid choice: 'draw' (choose from"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    words, message, source, rc_set, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.jsonl").write_text('{"id": "q0", "prediction": "x"}\n')
    places = {"SRC": str(source), "SET": str(rc_set)}
    assert main(["rcbench", *(places.get(word, word) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["few.jsonl"]


SPOILT = {  # a part of a summary that is another -> what is said of it
    "set.num_items": ("12", "num_items cannot be"),
    "set.name": (None, "name cannot be"),
    "set.cuts.areas": ([1, 2], "Cuts: areas must be 6 rising numbers; got 1, 2."),
    "set.cuts": ([], "list indices must be integers"),
    "set": ("x", "string indices must be integers"),
    "accuracy": ([0.5, 0.4], "accuracy cannot be"),
    "acv.value": ("x", "acv cannot be"),
    "accuracy ": (..., "no 'accuracy'"),
    "rcv.value ": (..., "no 'value'"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_damaged_summary_is_one_line(name, rc_set, tmp_path, capsys):
    value, message = SPOILT[name]
    out = tmp_path / "r"
    assert main(["rcbench", "score", str(rc_set), str(predict(tmp_path, 3)), "-o", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    *path, last = name.strip().split(".")
    place = summary
    for part in path:
        place = place[part]
    place[last] = value
    if value is ...:
        del place[last]
    (out / "summary.json").write_text(json.dumps(summary))
    capsys.readouterr()
    assert main(["rcbench", "plot", str(out), "-o", str(tmp_path / "maps")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"result {out}: summary.json is damaged ({message}" in err
    assert not (tmp_path / "maps").exists()

"""The page of benchmarks says what their result files say."""

import importlib.util
import json
import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "experiments/benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table():
    return load("table")


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(FOLDER / "sort.py"), "--items", "8", "/home/me/pictures"])
    return load("measure")


def test_the_page_is_made_from_the_newest_results(table):
    assert table.PAGE.read_text() == table.page(), "run python experiments/benchmarks/table.py"


def test_a_result_appears_in_the_page_with_all_that_its_numbers_depend_on(
    measure, table, tmp_path, monkeypatch
):
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "FOLDERS", (tmp_path,))
    file = measure.write_result(
        "sort",
        [{"side": "ours", "items/s": 12_345}, {"side": "theirs", "items/s": 1.5, "kind": "C"}],
        title="Sorting",
        about="Two sorts.",
        dtype="int32",
        notes=["Theirs is slow."],
        versions={"torch": "2.0"},
        results=tmp_path,
    )
    old = file.with_name("2020-01-01-sort.json")
    old.write_text(file.read_text().replace("12345", "1"))
    record = json.loads(file.read_text())
    text = table.page().partition("## ")[2]
    assert text.splitlines()[:8] == [
        "Sorting",
        "",
        "Two sorts.",
        "",
        "| side | items/s | kind |",
        "|---|---|---|",
        "| ours | 12,345 |  |",
        "| theirs | 1.5 | C |",
    ]
    assert "- Theirs is slow.\n\n`python experiments/benchmarks/sort.py --items 8 pictures`" in text
    for part in ("device", "dtype", "date", "commit"):
        assert f", {record[part]}" in text or f" {record[part]};" in text
    assert "torch 2.0" in text
    assert text.count("## ") == 0  # the older result is not shown


def test_each_side_is_called_as_often_and_once_before_the_clock_runs(measure):
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    seconds = measure.time_in_turn(runs, rounds=3)
    assert calls == ["a", "b"] + ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}

"""Task files that point lmms-eval's tasks at local copies, beside a stand-in for its package."""

import importlib
import importlib.util
import json
import sys
import types

import pytest

from mres_jax.errors import MresError
from mres_jax.harness import write_task_files
from mres_jax.harness.__main__ import main
from mres_jax.harness.judging import hrbench_process_results
from mres_jax.harness.task_files import TASKS


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package `lmms_eval` that can be found, and is never imported."""
    package = tmp_path / "site/lmms_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(package.parent))
    importlib.invalidate_caches()
    return package


def fields(file) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in file.read_text().splitlines())


def test_a_task_is_that_of_the_harness_but_for_where_its_rows_are(installed, tmp_path):
    table, shards = tmp_path / "hr_bench_4k.tsv", tmp_path / "ChartQA"
    table.touch()
    (shards / "data").mkdir(parents=True)
    (shards / "data/test-00000-of-00001.parquet").touch()
    out = tmp_path / "tasks"
    names = write_task_files(out, {"hrbench4k": str(table), "chartqa": str(shards)})
    assert names == ["hrbench4k_local", "chartqa_local"]
    hr, chart = (fields(out / f"{name}.yaml") for name in names)
    assert json.loads(hr["include"]) == str(installed / "tasks/hrbench/hrbench4k.yaml")
    assert hr["task"] == "hrbench4k_local"
    assert hr["dataset_path"] == "csv"
    assert json.loads(hr["dataset_kwargs"]) == {
        "data_files": {"hrbench_4k": str(table)},
        "delimiter": "\t",
    }
    assert hr["process_results"] == "!function mres_jax.harness.judging.hrbench_process_results"
    assert (chart["dataset_path"], chart["test_split"]) == ("parquet", "test")
    (pattern,) = json.loads(chart["dataset_kwargs"])["data_files"].values()
    assert pattern == str(shards / "**/*.parquet")
    assert "process_results" not in chart


@pytest.mark.parametrize(
    ("task", "copy", "error"),
    [
        ("chartq", "here", r"'chartq': not known here \(did you mean chartqa\?\)"),
        ("chartqa", "none", "none: no such file or folder"),
        ("chartqa", "here", "is no parquet file and no folder of them"),
        ("hrbench4k", "here/a.json", "is no parquet file"),
        ("ocrbench", "part", r"part: 1 of 2 shards missing \(test-00000-of-00002\.parquet\)"),
    ],
)
def test_copies_that_cannot_be_pointed_at_are_refused(task, copy, error, installed, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here/a.json").touch()
    (tmp_path / "part/data").mkdir(parents=True)
    (tmp_path / "part/data/test-00001-of-00002.parquet").touch()
    with pytest.raises(MresError, match=error):
        write_task_files(tmp_path / "tasks", {task: str(tmp_path / copy)})
    assert not list((tmp_path / "tasks").glob("*.yaml"))


def test_without_the_harness_it_says_what_to_install(tmp_path):
    with pytest.raises(MresError, match=r"pip install 'mres-jax\[lmms\]'"):
        write_task_files(tmp_path / "tasks", {"chartqa": str(tmp_path)})


def test_the_command_writes_and_names_the_tasks(installed, tmp_path, capsys):
    (tmp_path / "a.parquet").touch()
    assert main([str(tmp_path / "tasks"), f"ocrbench={tmp_path}/a.parquet"]) == 0
    assert "--tasks ocrbench_local --model mres_jax" in capsys.readouterr().out
    assert main([str(tmp_path / "tasks"), f"ocrbench={tmp_path}/b.parquet"]) == 2
    assert capsys.readouterr().err.startswith("mres: lmms-eval task ocrbench: ")
    assert main(["tasks"]) == 2


@pytest.mark.parametrize(("said", "score"), [("B", 1), ("A", 0), ("neither", 0)])
def test_an_answer_without_an_option_is_wrong_and_nobody_else_is_asked(said, score, monkeypatch):
    evaluator = types.SimpleNamespace(can_infer=lambda text, options: text in options and text)
    utils = types.SimpleNamespace(
        hrbench_doc_to_options=lambda document: {"A": "red", "B": "blue"},
        hrbench_evaluator=evaluator,
    )
    monkeypatch.setitem(sys.modules, "lmms_eval.tasks.hrbench.utils", utils)
    monkeypatch.setattr(importlib, "import_module", lambda name: sys.modules[name])
    document = {"index": 3, "answer": "B", "category": "single", "cycle_category": "cycle0"}
    scores = hrbench_process_results(document, [f" {said}\n"])
    expected = {"index": 3, "cycle_category": "cycle0", "gpt_score": score}
    assert scores == {"single": expected, "average": expected}


def test_a_question_of_vstar_that_holds_another_end_of_line_is_one_row(tmp_path):
    (tmp_path / "a.png").touch()
    line = json.dumps({"image": "a.png", "text": "col\u2028our?"}, ensure_ascii=False)
    (tmp_path / "test_questions.jsonl").write_text(f"{line}\n\n{line}\n", "utf-8")
    convert = TASKS["vstar_bench"].convert
    assert convert is not None
    assert [row["text"] for row in convert(tmp_path)] == ["col\u2028our?"] * 2

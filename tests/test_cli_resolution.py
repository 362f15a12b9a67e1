"""`mres resolution`: table, curve and file, and one line where it cannot."""

import json

import numpy as np
import pytest
from PIL import Image

from mres_jax.cli import main
from mres_jax.errors import MresError
from mres_jax.models.registry import LoadedModel, export_hf
from mres_jax.testing import Reply, serve_script, tiny_llava

CANDIDATES = [word for n in (16, 64, 256) for word in ("-p", f"budget:{n}")]
QUICK = ["--perturbations", "1", "--complexity", "gradient"]


def write_task(folder, *, contrast: int, answers: bool = True, rows: int = 4):
    """Pictures of noise; the server below needs the more pixels the paler they are."""
    folder.mkdir()
    draw, lines = np.random.default_rng(contrast), []
    for i in range(rows):
        pixels = draw.integers(0, contrast, (360, 480, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        row = {"id": f"{i}", "images": [f"{i}.png"], "question": "Is it?"}
        lines.append(json.dumps(row | ({"answer": "yes"} if answers else {})))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder


def script(received):
    """Right and sure from 64 tokens on; from 16 on where contrast is high."""
    (image,) = received.images
    tokens = image.shape[0] * image.shape[1] // 28**2
    good = tokens >= (40 if image.max() < 120 else 10)
    return Reply(text="yes" if good else "no", probabilities=(0.97,) if good else (0.5, 0.5))


def resolution(task, out, *words: str) -> int:
    with serve_script(script) as server:
        where = ["--task", str(task), "-m", server.address, "--out", str(out)]
        return main(["resolution", *where, *CANDIDATES, *QUICK, *words])


def test_a_sweep_prints_its_table_and_writes_the_file_that_the_policy_takes(tmp_path, capsys):
    task = write_task(tmp_path / "pale", contrast=60)
    assert resolution(task, tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert "visual tokens are counted by Qwen2-VL's rule, 28 px a side of each" in err
    assert "pale: means of 4 rows" in out
    assert "sweep: budget:64, 100% of resamplings" in out
    assert "0.29 of the largest's, score 1.000 for 1.000" in out
    content = json.loads((tmp_path / "out/pale.json").read_text())
    assert (content["policy"], content["entropies_are_bounds"]) == ("budget:64", True)
    with Image.open(tmp_path / "out/pale.png") as curve:
        assert curve.width > 500
    # and `mres ask` follows it
    file = f"task,file={tmp_path / 'out/pale.json'}"
    with serve_script(script) as server:
        picture = str(task / "0.png")
        assert main(["ask", picture, "-q", "x", "-m", server.address, "-p", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["visual_tokens"] == 63


@pytest.mark.slow
def test_a_llava_of_one_size_is_measured_at_several_once_it_may_take_any(tmp_path, capsys):
    task, model = write_task(tmp_path / "task", contrast=60, rows=2), tmp_path / "llava"
    export_hf(LoadedModel(**tiny_llava()._asdict()), model)
    words = ["resolution", "--task", str(task), "-m", str(model), "--out", str(tmp_path / "out")]
    assert main([*words, *QUICK]) == 2
    assert '"input_image_size": 0' in capsys.readouterr().err
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"input_image_size": 0}))
    sides = [word for side in (16, 24, 32, 48) for word in ("-p", f"fixed:{side}")]
    assert main([*words, *QUICK, *sides, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["policy"].startswith("fixed:")
    assert [row["visual_tokens"] for row in content["candidates"]] == [16, 36, 64, 144]


def test_a_formula_from_reference_tasks_chooses_for_a_task_without_answers(tmp_path, capsys):
    references = [
        word
        for i, contrast in enumerate((60, 250))
        for word in ("--reference", str(write_task(tmp_path / f"r{i}", contrast=contrast)))
    ]
    task = write_task(tmp_path / "open", contrast=80, answers=False)
    words = ["--mean-tokens", "100", "--json"]
    assert resolution(task, tmp_path / "out", *references, *words) == 0
    content = json.loads(capsys.readouterr().out)
    (choice,) = content["choices"]
    assert choice["method"] == "formula"
    assert content["policy"] == choice["policy"]
    assert content["calibration"]["combine"] == "product"
    assert set(content["per_image"]["policies"]) == {"0", "1", "2", "3"}
    assert content["per_image"]["mean_tokens"] <= 100
    kept = ["--calibration", str(tmp_path / "out/open.json"), "--json"]
    assert resolution(task, tmp_path / "again", *kept) == 0
    assert json.loads(capsys.readouterr().out)["choices"] == content["choices"]


def test_a_kept_calibration_measures_as_it_was_measured_and_refuses_what_differs(tmp_path, capsys):
    formula = {
        "combine": "product",
        "base_side": 112.0,
        "coefficients": [0.5],
        "complexity_ref": 1.0,
        "variance_ref": 0.1,
    }
    content = {
        "version": 1,
        "policy": "budget:64",
        "model": "http://elsewhere:1/v1#m",
        "complexity": {"measure": "gradient"},
        "perturbations": 1,
        "candidates": [{"policy": f"budget:{n}"} for n in (16, 64, 256)],
        "calibration": formula,
    }
    file, task = tmp_path / "kept.json", write_task(tmp_path / "t", contrast=80, answers=False)

    def told(change: dict, *words: str) -> tuple[int, str]:
        file.write_text(json.dumps(content | change))
        with serve_script(script) as server:
            address = f"{server.address.partition('#')[0]}#m"
            where = ["--task", str(task), "-m", address, "--out", str(tmp_path / "out")]
            code = main(["resolution", *where, "--calibration", str(file), *words])
        return code, capsys.readouterr().err

    assert told({})[0] == 0  # candidates, measure and perturbations are those of the file
    written = json.loads((tmp_path / "out/t.json").read_text())
    assert (written["complexity"]["measure"], written["perturbations"]) == ("gradient", 1)
    assert [row["policy"] for row in written["candidates"]] == [
        "budget:16",
        "budget:64",
        "budget:256",
    ]
    cases = [
        ({}, ["--complexity", "mdl"], "complexity mdl, but the calibration in"),
        ({}, ["--perturbations", "2"], "perturbations 2, but the calibration in"),
        ({}, [*CANDIDATES, "-p", "budget:32"], "measured with budget:16, budget:64, budget:256"),
        ({"model": "other"}, [], "#m, but the calibration in"),
        ({}, ["--combine", "product"], "--combine product is of fitting"),
        ({"calibration": formula | {"complexity_ref": 0}}, [], "complexity_ref=0 must be finite"),
        ({"calibration": formula | {"coefficients": [float("nan")]}}, [], "must be finite"),
    ]
    for change, words, message in cases:
        code, err = told(change, *words)
        assert (code, message in err) == (2, True), err
        assert sum("resolution: " in line for line in err.splitlines()) == 1


def test_candidates_that_score_alike_and_empty_answers_are_told(tmp_path, capsys):
    task = write_task(tmp_path / "t", contrast=80)
    words = ["resolution", "--task", str(task), "--out", str(tmp_path / "out"), *CANDIDATES, *QUICK]
    empty = json.dumps({"choices": [{"message": {"content": ""}}]}).encode()
    with serve_script(lambda received: Reply(raw=empty)) as server:
        assert main([*words, "-m", server.address]) == 0
    out = capsys.readouterr().out
    assert "sweep: budget:16, for its cost alone, since all score alike, side" in out
    assert "note: t: 12 of 12 answers have no token" in out
    assert len(json.loads((tmp_path / "out/t.json").read_text())["notes"]) == 2


def test_a_reference_task_on_which_nothing_scores_is_refused_by_name(tmp_path, capsys):
    task = write_task(tmp_path / "t", contrast=80)
    blind = write_task(tmp_path / "blind", contrast=80)
    rows = (blind / "rows.jsonl").read_text()
    (blind / "rows.jsonl").write_text(rows.replace('"yes"', '"perhaps"'))
    other = write_task(tmp_path / "other", contrast=60)
    words = ["--reference", str(other), "--reference", str(blind)]
    assert resolution(task, tmp_path / "out", *words) == 2
    assert "scores anything on reference task blind (4 rows)" in capsys.readouterr().err


def test_a_held_out_error_that_cannot_be_had_ends_no_run(tmp_path, capsys, monkeypatch):
    def broken(*args, **options):
        raise MresError("no signal is left")

    monkeypatch.setattr("mres_jax.cli.resolution.leave_one_out", broken)
    references = [
        word
        for i, contrast in enumerate((60, 70, 80, 250))
        for word in ("--reference", str(write_task(tmp_path / f"r{i}", contrast=contrast, rows=2)))
    ]
    task = write_task(tmp_path / "t", contrast=80, rows=2)
    assert resolution(task, tmp_path / "out", *references) == 0
    assert "left out in turn: unknown how many candidates off" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/t.json").read_text())["leave_one_out"]["formula"] is None


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys):
    task = write_task(tmp_path / "open", contrast=80, answers=False)
    one = write_task(tmp_path / "one", contrast=80, rows=1)
    broken = write_task(tmp_path / "broken", contrast=80)
    (broken / "1.png").unlink()
    pale, open2 = (
        write_task(tmp_path / name, contrast=80, answers=name == "pale")
        for name in ("pale", "open2")
    )
    cut = write_task(tmp_path / "cut", contrast=80)
    (cut / "2.png").write_bytes((cut / "2.png").read_bytes()[:9_000])
    cases = [
        (task, ["--reference", str(pale)], "1 reference task, but the product form needs"),
        (task, ["--reference", str(pale)] * 2, "are one task"),
        (pale, ["--reference", f"{pale}/", "--reference", str(open2)], "are one task"),
        (cut, [], "task cut: row 2: "),
        (pale, ["--mean-tokens", "nan"], "--mean-tokens nan must be finite"),
        (pale, ["--mean-tokens", "5"], "--mean-tokens 5 is below the "),
        (pale, ["--mean-tokens", "-1"], "--mean-tokens -1.0 must be"),
        (pale, ["--max-new-tokens", "0"], "--max-new-tokens 0 must be at least 1"),
        (pale, ["--seed", "-1"], "--seed -1 must be at least 0"),
        (task, [], "rows without an answer, so a sweep cannot choose"),
        (
            task,
            ["--reference", str(pale), "--reference", str(open2)],
            "reference task open2 has rows without an answer",
        ),
        (one, [], "1 row, but at least 2 are needed"),
        (broken, [], "row 1: picture 1.png: no such file"),
        (tmp_path / "none", [], "is no folder with rows.jsonl"),
        (broken, ["--calibration", "none.json"], "row 1: picture 1.png"),
        (task, ["--complexity", "mdk"], "did you mean mdl"),
        (task, ["--calibration", str(task / "rows.jsonl")], "is no file of mres resolution"),
    ]
    for folder, words, message in cases:
        assert resolution(folder, tmp_path / "out", *words) == 2, message
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_server_without_log_probabilities_fails_in_one_line(tmp_path, capsys):
    task = write_task(tmp_path / "t", contrast=80)
    with serve_script(lambda received: Reply(text="yes", probabilities=None)) as server:
        words = ["--task", str(task), "-m", server.address, "--out", str(tmp_path / "out")]
        assert main(["resolution", *words, *CANDIDATES, *QUICK]) == 1
    assert "it sent no log-probabilities" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--candidate", "native"], ["-p", "budget:16"]])
def test_candidates_that_cannot_be_compared_are_refused(words, tmp_path, capsys):
    task = write_task(tmp_path / "t", contrast=80)
    base = ["resolution", "--task", str(task), "-m", "http://127.0.0.1:9/v1#m"]
    assert main([*base, "--out", str(tmp_path / "out"), *words]) == 2
    assert "candidate" in capsys.readouterr().err

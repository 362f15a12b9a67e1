"""`mres eval` and `mres report`: from questions to a page, and the line that bad input gets."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from mres_jax.cli import main
from mres_jax.config import EvalRun, Generated, from_json
from mres_jax.errors import ConfigError
from mres_jax.resolution.policies import POLICIES
from mres_jax.testing import Received, Reply, serve_script

RUN_FILE = """
from mres_jax.config import EvalRun, Generated, QuestionFile

def get_config():
    return EvalRun(
        name="crossed",
        out={out!r},
        tasks=(QuestionFile(path={path!r}),),
        models={{"served": {address!r}}},
        policies=("budget:{{budget}}", "no picture"),
        budgets=(2, 16),
        batch=4,
        smoke={{"limit": "2"}},
    )
"""


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Nine pictures, of which the last three are large."""
    folder = tmp_path_factory.mktemp("questions")
    rows = []
    for i in range(9):
        side = 80 if i < 6 else 300
        noise = np.random.default_rng(i).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
        rows.append({"id": f"q{i}", "images": [f"{i}.png"], "question": "Side?", "answer": "large"})
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "q.jsonl"


def say_size(received: Received) -> str:
    """Small pictures are brought to 84 x 84 px, large ones shrunk to more where 16 tokens may."""
    return "large" if received.images and received.images[0].size > 3 * 84**2 else "small"


def test_a_run_file_is_crossed_asked_resumed_and_reported(questions, tmp_path, capsys):
    file, out = tmp_path / "evaluate.py", tmp_path / "out"
    with serve_script(say_size) as server:
        text = RUN_FILE.format(out=str(out), path=str(questions), address=server.address)
        file.write_text(text)
        assert main(["eval", str(file), "--print-config"]) == 0
        run = from_json(capsys.readouterr().out)
        assert isinstance(run, EvalRun)
        assert run.crossed_policies == ("budget:2", "budget:16", "no picture")
        words = ["--smoke", "--batch=3", "--max-new-tokens=7", "--print-config"]
        assert main(["eval", str(file), *words]) == 0
        smoke = from_json(capsys.readouterr().out)
        assert (smoke.out, smoke.limit, smoke.batch) == (f"{out}-smoke", 2, 3)
        assert smoke.max_new_tokens == 7
        assert main(["eval", str(file)]) == 0
        asked = len(server.received)
        table = capsys.readouterr().out
        assert main(["eval", str(file)]) == 0
        assert len(server.received) == asked == 3 * 9
    assert "served  q     budget:16" in table
    arms = json.loads((out / "summary.json").read_text())["arms"]
    assert [arm["score"][0] for arm in arms] == pytest.approx([0, 1 / 3, 0])
    assert arms[0]["identity"]["model"]["processor"]["template_sha256"] is None  # the server's own
    assert (out / "scores.png").read_bytes()[:4] == b"\x89PNG"
    page = tmp_path / "page"
    assert main(["report", str(out), "-o", str(page), "--against", "budget:16"]) == 0
    assert "3 lost" in (page / "index.html").read_text()
    assert capsys.readouterr().out.endswith("in a browser\n")


def test_tokens_of_a_server_are_counted_by_the_processor_that_is_named(questions, tmp_path, capsys):
    """Told as `mres serve` does, by squares of 16 px; under Qwen2-VL's rule it is refused."""

    def saw(received: Received) -> Reply:
        tokens = sum(image.shape[0] * image.shape[1] // 16**2 for image in received.images)
        return Reply(text="large", visual_tokens=tokens, prompt_tokens=tokens + 25)

    with serve_script(saw) as server:
        words = ["eval", str(questions), "-m", server.address, "-p", "budget:16", "--limit", "2"]
        assert main([*words, "-o", str(tmp_path / "a")]) == 1
        err = capsys.readouterr().err
        assert "note: server" in err
        assert "visual tokens are counted by Qwen2-VL's rule, 28 px a side of each" in err
        assert "and 9 were counted here, 28 px a side of each" in err
        assert main([*words, "-o", str(tmp_path / "b"), "--processor", "mres-tiny"]) == 0
    assert "Qwen2-VL" not in capsys.readouterr().err
    (arm,) = json.loads((tmp_path / "b/summary.json").read_text())["arms"]
    facts = arm["identity"]["model"]["processor"]
    assert (facts["stride"], facts["template_sha256"] is None) == (16, False)
    samples = (tmp_path / "b/scripted/q/budget-16-seed0/samples.jsonl").read_text().splitlines()
    assert {json.loads(line)["visual_tokens"] for line in samples} == {16}


def test_processors_are_of_servers_in_a_run_file():
    kwargs = {"name": "x", "out": "y", "tasks": (Generated(),)}
    models = {"here": "mres-tiny", "served": "http://h:1/v1#m"}
    EvalRun(**kwargs, models=models, processors={"served": "org/name"})
    for name in ("here", "sreved"):
        with pytest.raises(ConfigError, match=rf"processors: '{name}' is no server's name\..*Have"):
            EvalRun(**kwargs, models=models, processors={name: "org/name"})


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nope.jsonl", "-o", "x"], "no task 'nope.jsonl'"),
        (["hrbench4:x", "-o", "x"], "Did you mean 'hrbench4k'?"),
        (["generated:many", "-o", "x"], "the number of questions is a whole number"),
        (["generated"], "name a directory for the results with -o"),
        (["generated", "-o", "x", "--smoke"], "--smoke goes with a run file"),
        (["generated", "-o", "x", "--limit", "0"], "limit=0 must be at least 1"),
        (["e.py", "-p", "native"], "--policy goes with a task, not with a run file"),
        (["e.py"], "no such run file"),
        (["hrbench4k"], "hrbench4k needs the path of a local copy: hrbench4k:FILE."),
        (["chartqa:", "-o", "x"], "chartqa needs the path of a local copy: chartqa:DIR."),
        (["generated:5", "-o", "x", "--metric", "nosuch"], "--metric goes with a file of quest"),
        (["chartqa:x", "-o", "x", "--images", "y"], "--images goes with a file of questions"),
        (["e.py", "--nme"], "unknown argument '--nme'"),
        (["generated", "-o", "x", "-m", "a/b", "-m", "c/b"], "would both be called b"),
        (["generated", "-o", "x", "-m", "/nowhere"], "/nowhere: no such directory"),
    ],
)
def test_bad_usage_is_one_line(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", *words]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert line in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_names_every_policy_that_is_taken(capsys):
    def policies_of(command: str) -> set[str]:
        assert main([command, "--help"]) == 0
        words = set(re.findall(r"[a-z]+", capsys.readouterr().out.replace("no picture", "blind")))
        return words & {*POLICIES, "blind"}

    assert policies_of("eval") == {*POLICIES, "blind"}
    assert policies_of("ask") == set(POLICIES)
    assert policies_of("serve") == {*POLICIES} - {"zoom"}


def test_a_run_file_of_another_kind_is_refused(tmp_path, capsys):
    (tmp_path / "e.py").write_text("def get_config():\n    return 3\n")
    assert main(["eval", str(tmp_path / "e.py")]) == 2
    assert "get_config() returned a int, not an EvalRun" in capsys.readouterr().err


def test_bad_rows_and_unfinished_runs_exit_with_two(questions, tmp_path, capsys):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(questions.read_text() + "\n{oops\n")
    words = ["eval", str(bad), "--images", str(questions.parent), "-o", str(tmp_path / "out")]
    assert main([*words, "-m", "http://127.0.0.1:9/v1#x"]) == 2
    assert "1 not JSON (first: #9), of 10 rows" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "page")]) == 2
    assert "is no evaluation of mres eval" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "page").exists()


def test_what_zoom_cannot_look_at_is_told_before_anything_is_asked(questions, tmp_path, capsys):
    cases = (
        ("zoom,window=100", "question 'q0' cannot be asked: .* 100 x 100 px is larger than"),
        ("zoom,context=both", "metric point needs one that places are meant in"),
        ("zoom,candidates=2", "metric point needs one that places are meant in"),
    )
    points = tmp_path / "points.jsonl"
    box = {"images": ["0.png"], "question": "Where?", "box": [1, 1, 9, 9]}
    points.write_text(json.dumps({"id": "p", "scorer": "point", **box}))
    with serve_script(say_size) as server:
        for policy, message in cases:
            file = questions if "window" in policy else points
            words = ["eval", str(file), "-m", server.address, "-o", str(tmp_path / "out")]
            words += ["--images", str(questions.parent)]
            assert main([*words, "-p", "native", "-p", policy]) == 2
            assert re.search(message, capsys.readouterr().err)
        assert server.received == []


def test_windows_that_were_not_found_are_counted(questions, tmp_path, capsys):
    with serve_script(lambda received: "large") as server:
        words = ["eval", str(questions), "-m", server.address, "-p", "zoom", "--limit", "2"]
        assert main([*words, "-o", str(tmp_path / "out")]) == 0
    assert "q, zoom: 2 of 2 answers have a note" in capsys.readouterr().err
    (arm,) = json.loads((tmp_path / "out/summary.json").read_text())["arms"]
    assert arm["notes"]["count"] == 2
    assert arm["notes"]["first"].startswith("no window: no box and no point in 'large'")

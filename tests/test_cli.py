"""The command line: what scripts rely on, and the one line that each bad input gets."""

import errno
import json
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import mres_jax.cli.ask
import mres_jax.cli.doctor
import mres_jax.inference.doctor
from mres_jax.cli import main
from mres_jax.cli._report import Place
from mres_jax.cli.ask import place_pictures
from mres_jax.errors import PromptError, RunError
from mres_jax.inference import VLM, load
from mres_jax.models.registry import LoadedModel, export_hf
from mres_jax.testing.tiny import tiny_clip, tiny_qwen2_vl

FIELDS = {
    "answer",
    "model",
    "policy",
    "views",
    "visual_tokens",
    "text_tokens",
    "retention_ratio",
    "flops",
    "ms",
    "finish_reason",
    "versions",
}
ASK = ["--max-new-tokens", "4"]
RESADAPT = pathlib.Path(__file__).parents[1] / "configs" / "resadapt" / "tiny.py"


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> pathlib.Path:
    """A small random model as a Hugging Face directory."""
    made = tiny_qwen2_vl()
    path = tmp_path_factory.mktemp("models") / "tiny"
    loaded = LoadedModel(**made._asdict())
    export_hf(loaded, path)
    return path


@pytest.fixture(scope="module")
def loaded_once(directory) -> VLM:
    return load(directory)


@pytest.fixture
def model(directory, loaded_once, monkeypatch) -> VLM:
    """The model that `mres ask` uses when none is named; it is read from disk once."""
    vlm = VLM("tiny", loaded_once.answerer)
    place = Place("tiny", directory)
    monkeypatch.setattr(mres_jax.cli.ask, "find_model", lambda name: place)
    monkeypatch.setattr(mres_jax.cli.ask, "open_model", lambda place, **_: vlm)
    return vlm


@pytest.fixture
def picture(tmp_path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def test_one_policy_prints_one_object_with_exactly_the_fields_of_the_contract(
    model, picture, capsys
):
    code = main(["ask", picture, "-q", "what is the total", "-p", "scale:0.5", "--json", *ASK])
    out = capsys.readouterr().out
    content = json.loads(out)
    assert code == 0
    assert set(content) == FIELDS
    assert set(content["ms"]) == {"host", "vision", "prefill", "decode"}
    (view,) = content["views"]
    assert view["crop_px"] == [0, 0, 40, 64]
    assert view["tokens"] == content["visual_tokens"] == np.prod(view["size_px"]) // 8**2
    assert content["policy"] == "scale:0.5"


@pytest.fixture
def frames(tmp_path) -> pathlib.Path:
    """A folder of five frames."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, frame in enumerate(tiny_clip(0, 16, 24, frames=5).frames):
        Image.fromarray(frame).save(folder / f"{i}.png")
    return folder


def test_a_folder_of_frames_is_asked_about_and_saved_as_seen(model, frames, tmp_path, capsys):
    seen = tmp_path / "seen"
    words = ["--fps", "4", "--max-frames", "4", "--json", "--save", str(seen), *ASK]
    assert main(["ask", str(frames), "-q", "what is the total", *words]) == 0
    content = json.loads(capsys.readouterr().out)
    assert set(content) == FIELDS
    # four of five frames at four a second, in pairs
    assert [view["frames"] for view in content["views"]] == [[0, 1], [2, 3]]
    assert [view["time_s"] for view in content["views"]] == [0.125, 0.625]
    assert content["visual_tokens"] == sum(view["tokens"] for view in content["views"])
    names = [f"native-item0-frame{i:04d}-{i / 4:.2f}s-view.png" for i in range(4)]
    names += [f"native-item0-frame0000-0.00s-{kind}.png" for kind in ("tokens", "crop")]
    assert {file.name for file in seen.iterdir()} == set(names)


def test_a_video_file_is_sampled_and_asked_about(model, tmp_path, capsys):
    """Two seconds at ten frames a second; the model looks at two a second."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 24, "bgr0"
        for frame in tiny_clip(0, 16, 24, frames=20).frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    words = [str(tmp_path / "clip.mkv"), "-q", "what is the total", "--json", *ASK]
    assert main(["ask", *words]) == 0
    views = json.loads(capsys.readouterr().out)["views"]
    assert [(view["frames"], view["time_s"]) for view in views] == [([0, 1], 0.25), ([2, 3], 1.25)]
    content = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "clip.mkv").write_bytes(content[: len(content) // 2])
    assert main(["ask", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "damaged or truncated" in line


def test_views_of_a_clip_are_counted_in_the_table(model, frames, picture, capsys):
    assert main(["ask", picture, str(frames), "-q", "what is the total", *ASK]) == 0
    assert "64 x 40, 3 of 24 x 16" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fps", "0"], "fps=0.0 must be above 0"),
        (["--fps", "nan"], "fps=nan must be above 0"),
        (["--max-frames", "0"], "max_frames=0"),
        (["--max-frames", "1"], "1 frames, but a clip has two or more"),
        (["-p", "budget:1"], "need at least 3 visual tokens"),
    ],
)
def test_a_clip_that_cannot_be_looked_at_is_one_line(model, frames, words, message, capsys):
    assert main(["ask", str(frames), "-q", "what is the total", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_several_policies_are_rows_of_one_object(model, picture, capsys):
    words = ["-p", "native", "-p", "scale:0.5"]
    code = main(["ask", picture, "-q", "what is the total", *words, "--json", *ASK])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert code == 0
    assert [row["policy"] for row in rows] == ["native", "scale:0.5"]
    assert rows[0]["retention_ratio"] == 1.0 > rows[1]["retention_ratio"]


def test_plain_output_is_a_row_per_policy_and_nothing_a_terminal_would_obey(model, picture, capsys):
    words = ["-p", "native", "-p", "budget:4"]
    assert main(["ask", picture, "-q", "what is\n\x1b[31mthe total", *words, *ASK]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["native", "budget:4"]
    assert "\x1b" not in out


def test_saved_pictures_are_what_the_model_received(model, picture, tmp_path, capsys):
    words = ["-p", "native", "-p", "fixed:16,mode=pad", "--save", str(tmp_path / "saw")]
    assert main(["ask", picture, "-q", "what", *words, "--json", *ASK]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    names = sorted(path.name for path in (tmp_path / "saw").iterdir())
    assert names == sorted(
        f"{stem}-item0-{kind}.png"
        for stem in ("native", "fixed-16-mode-pad")
        for kind in ("view", "tokens", "crop")
    )
    for row, stem in zip(rows, ("native", "fixed-16-mode-pad"), strict=True):
        with Image.open(tmp_path / "saw" / f"{stem}-item0-view.png") as view:
            assert [view.height, view.width] == row["views"][0]["size_px"]


def test_sampling_follows_its_seed(model, picture, capsys):
    words = ["ask", picture, "-q", "what", "--json", "--temperature", "2", *ASK]
    answers = []
    for seed in ("1", "1", "2", "3"):
        main([*words, "--seed", seed])
        answers.append(json.loads(capsys.readouterr().out)["answer"])
    assert answers[0] == answers[1]
    assert len(set(answers)) > 1


def test_a_streamed_answer_is_written_first_and_is_the_one_in_the_table(model, picture, capsys):
    words = ["ask", picture, "-q", "what is the total", "--max-new-tokens", "12"]
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)["answer"]
    assert main([*words, "--stream"]) == 0
    streamed, _, table = capsys.readouterr().out.partition("what is the total\n")
    assert " ".join(streamed.split()) == " ".join(answer.split())
    assert "retention ratio" in table
    assert main([*words, "--stream"]) == 0
    assert "mres: native: ms includes compilation\n" in capsys.readouterr().err
    assert main([*words, "--json", "--stop", answer[2:4], "--stop", "never"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["answer"] == answer[: answer.index(answer[2:4])].strip()
    assert content["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("marks", "items"),
    [
        ("<image>", "p"),
        ("<video>", "c"),
        ("<image>", "c"),  # as in rows, where no picture is
        ("<image>\n<video> ", "pc"),
        ("<video><image><video>", "cpc"),
        ("<image> <image>", "pp"),
        ("", "pc"),
    ],
)
def test_marks_of_pictures_and_clips_are_no_text_of_the_question(marks, items):
    assert place_pictures(f"{marks}what?", [item == "c" for item in items]) == "what?"


@pytest.mark.parametrize(
    ("question", "items", "message"),
    [
        ("<video>what?", "", "1 <video> placeholders in the question for 0 pictures. Give as many"),
        ("<video>what?", "p", "1 <video> placeholders in the question for 1 picture. Give"),
        ("<image>what?", "pc", "1 <image> placeholders in the question for 1 picture and 1 clip."),
        ("<image><image>what?", "c", "2 <image> placeholders in the question for 1 clip."),
        ("<image><image>what?", "pc", "2 <image> placeholders in the question for 1 picture and"),
        ("<video><image>what?", "pc", "has <video>, <image>, the command its pictures and"),
        ("what <video>?", "c", "<video> stands inside the question; pictures and clips stand"),
        ("<image> what <video>?", "pc", "<video> stands inside the question"),
    ],
)
def test_marks_that_name_other_pictures_and_clips_are_refused(question, items, message):
    with pytest.raises(PromptError, match=re.escape(message)):
        place_pictures(question, [item == "c" for item in items])


def test_a_text_only_question_has_no_views(model, capsys):
    assert main(["ask", "-q", "what is the total", "--json", *ASK]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["views"] == []
    assert content["visual_tokens"] == 0


def test_pictures_may_stand_after_options(model, picture, capsys):
    assert main(["ask", picture, "-q", "what", picture, "--json", *ASK]) == 0
    assert [view["item"] for view in json.loads(capsys.readouterr().out)["views"]] == [0, 1]


def test_a_narrow_model_says_when_it_is_asked_for_something_else(model, picture, capsys):
    narrow = {"name": "tiny", "knows": "generated documents", "min_logprob": -1e9}
    model.facts = {"domain": narrow}
    assert main(["ask", picture, "-q", "what is the total", "--json", *ASK]) == 0
    inside = capsys.readouterr()
    assert "note" not in json.loads(inside.out)
    assert main(["ask", picture, "-q", "why does that kitten sleep", "--json", *ASK]) == 0
    outside = capsys.readouterr()
    assert "100% of the question's words" in json.loads(outside.out)["note"]
    assert "Qwen2-VL-2B-Instruct (2.2 B parameters, 4.4 GB" in outside.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["aks"], "no command 'aks'. Did you mean 'ask'?"),
        (["ask"], "ask: the following arguments are required: -q/--question."),
        (
            ["ask", "-q", "x", "--polcy", "native"],
            "unknown argument '--polcy'. Did you mean '--policy'?",
        ),
        (["ask", "-q", "x", "-p", "natve"], "unknown policy 'natve' (did you mean native?)"),
        (["ask", "-q", "x", "-p", "scale:fast"], "policy scale: "),
        (["ask", "nothing.png", "-q", "x"], "nothing.png"),
        (["ask", "-q", "x", "-m", "nowhere"], "nowhere: no such directory"),
        (["ask", "-q", "x", "-m", "http://h:1/v1"], "with the name of its model behind #"),
        (["demo", "-m", "http://h:1/v1#m"], "needs a model's weights, and a server keeps them"),
        (["ask", "-q", "x", "--temperature", "-1"], "temperature=-1.0 must be >= 0"),
        (["ask", "-q", "x", "--temperature", "nan"], "temperature=nan must be >= 0 and finite"),
        (["ask", "-q", "x", "--temperature", "inf"], "temperature=inf must be >= 0 and finite"),
        (["ask", "-q", "x", "--top-p", "nan"], "top_p=nan in (0, 1]"),
        (["ask", "-q", "x", "--top-p", "0"], "top_p=0.0 in (0, 1]"),
        (
            ["ask", "-q", "x", "--top-p", "0.5"],
            "ask: --top-p 0.5 does nothing at temperature 0, which takes the likeliest token.",
        ),
        (["ask", "-q", "x", "--top-k", "5"], "ask: --top-k 5 does nothing at temperature 0"),
        (
            ["ask", "-q", "x", "--fps", "2"],
            "ask: --fps 2.0 is of videos and folders of frames, and none is given. Leave it out.",
        ),
        (["ask", "x.png", "-q", "x", "--max-frames", "2"], "ask: --max-frames 2 is of videos and"),
        (["ask", "-q", "x", "--max-new-tokens", "0"], "max_new_tokens=0 must be at least 1"),
        (["ask", "-q", "x", "--seed", "one"], "argument --seed: invalid int value: 'one'"),
        (["ask", "-q", "<image> x"], "1 <image> placeholders in the question for 0 pictures"),
        (["ask", "-q", "x", "--stop", ""], "an empty stop text would end every answer"),
        (
            ["ask", "-q", "x", "--stream", "--json"],
            "--stream writes one answer as it grows: one policy, no --json.",
        ),
        (["serve", "--max-waiting", "0"], "serve: max_waiting=0 must be at least 1."),
        (["serve", "--upstream", "http://h:1"], "serve: --upstream needs --model too"),
        (["serve", "-m", "nowhere"], "nowhere: no such directory"),
        (["serve", "--grace", "-1"], "serve: --grace must be at least 0"),
        (["serve", "--port", "x"], "argument --port: invalid int value: 'x'"),
        (["train", "configs/none.py"], "configs/none.py: no such run file."),
        (
            ["train", "x.py", "--schedule.num_steps", "3"],
            "train: --schedule.num_steps needs its value after an equals sign",
        ),
        (
            ["train", str(RESADAPT), "--multihost"],
            "train: an allocator is trained by one process",
        ),
        (["train", "x.py", "--smok"], "unknown argument '--smok'. Did you mean '--smoke'?"),
        (["doctor", "-m", "nowhere"], "nowhere: no such directory"),
        (["demo", "--questions", "many"], "argument --questions: invalid int value: 'many'"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-q", "  "], "has an empty text. Write the question."),
        (["-q", "what", "-p", "fixed:16,mode=sqash"], "policy fixed: "),
        (["-q", "what " * 600], "tokens"),
        (["-q", "what", "--max-new-tokens", "100000"], "tokens"),
    ],
)
def test_what_the_model_cannot_take_is_one_line_and_exit_code_2(
    model, picture, words, message, capsys
):
    assert main(["ask", picture, *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1]
    assert captured.out == ""


def test_a_picture_that_is_none_is_named(model, tmp_path, capsys):
    bad = tmp_path / "page.png"
    bad.write_text("<html>")
    assert main(["ask", str(bad), "-q", "what", *ASK]) == 2
    assert str(bad) in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_and_exits_1(model, picture, tmp_path, monkeypatch, capsys):
    written, write = [], pathlib.Path.write_bytes

    def full_after_two(path, content):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        return write(path, content)

    monkeypatch.setattr(pathlib.Path, "write_bytes", full_after_two)
    target = tmp_path / "new" / "saw"
    assert main(["ask", picture, "-q", "what", "--save", str(target), *ASK]) == 1
    assert "no space left on device. Free space or choose another disk" in capsys.readouterr().err
    assert len(written) == 2
    assert not target.parent.exists()


def test_a_full_disk_keeps_the_files_of_before(model, picture, tmp_path, monkeypatch, capsys):
    assert main(["ask", picture, "-q", "what", "--save", str(tmp_path / "saw"), *ASK]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "saw").iterdir()}

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    words = ["-p", "scale:0.5", "--save", str(tmp_path / "saw")]
    assert main(["ask", picture, "-q", "what", *words, *ASK]) == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "saw").iterdir()} == before


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "mres: interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 1, "runs/x: no space left"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 GB"), 1, "mres: out of memory."),
        (KeyError("depth"), 1, "mres: unexpected KeyError: 'depth' (MRES_DEBUG=1 shows where)"),
    ],
)
def test_a_failure_is_one_line(error, code, line, monkeypatch, capsys):
    def fail(args):
        raise error

    monkeypatch.setattr(mres_jax.cli.ask, "run", fail)
    assert main(["ask", "-q", "x"]) == code
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1


def test_an_unexpected_message_is_cut_and_shows_no_address(monkeypatch, capsys):
    def fail(args):
        raise RuntimeError(f"cannot read <_io.BytesIO object at 0x7f2fde404f10>\n{'x ' * 999}")

    monkeypatch.setattr(mres_jax.cli.ask, "run", fail)
    assert main(["ask", "-q", "x"]) == 1
    err = capsys.readouterr().err
    assert "cannot read <_io.BytesIO object at ...>" in err
    assert len(err) < 400


def test_libraries_do_not_log_around_the_one_line(monkeypatch, capsys):
    def fail(args):
        logging.getLogger("absl").error("a page of traceback")
        warnings.warn("picture a.gif: it is animated", stacklevel=1)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mres_jax.cli.ask, "run", fail)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["ask", "-q", "x"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "mres: warning: picture a.gif: it is animated",
        "mres: no space left on device. Free space or choose another disk.",
    ]


def test_debugging_lets_the_exception_through(monkeypatch):
    def fail(args):
        raise KeyError("depth")

    monkeypatch.setattr(mres_jax.cli.ask, "run", fail)
    monkeypatch.setenv("MRES_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["ask", "-q", "x"])


@pytest.mark.parametrize("words", [["--help"], ["ask", "--help"], ["train", "--help"]])
def test_help_imports_nothing_heavy(words):
    code = (
        "import sys, time; start = time.perf_counter()\n"
        "from mres_jax.cli import main\n"
        f"code = main({words!r})\n"
        "heavy = [m for m in ('jax', 'numpy', 'flax', 'PIL', 'rich') if m in sys.modules]\n"
        "print(code, heavy, file=sys.stderr)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    assert done.stderr.strip() == "0 []"
    for file in re.findall(r"configs/\S+\.py", done.stdout):
        assert (pathlib.Path(__file__).parents[1] / file).is_file(), file
    assert "usage: mres" in done.stdout


def test_a_table_stops_quietly_when_its_reader_has_gone():
    code = "from mres_jax.cli import main; import sys; sys.exit(main(['--help']))"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    shell = f'{sys.executable} -c "{code}" | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, check=False, env=env
    )
    assert "Traceback" not in done.stderr


def test_a_process_whose_server_still_runs_a_program_ends_at_once_with_its_code():
    code = (
        "import atexit, threading, time\n"
        "from mres_jax.cli import _main\n"
        "_main.main = lambda: 3\n"
        "atexit.register(print, 'not reached')\n"
        "threading.Thread(target=time.sleep, args=(60,), name='mres-engine').start()\n"
        "print('said')\n"
        "_main.program()"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "")


def test_a_model_on_disk_is_asked_converted_there_and_back_and_stays_the_same(
    directory, picture, tmp_path, capsys
):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert main(["convert", str(directory), str(ours)]) == 0
    assert main(["convert", str(ours), str(theirs)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{ours}: orbax checkpoint",
        f"{theirs}: Hugging Face directory",
    ]
    rows = []
    for path in (directory, ours, theirs):
        assert main(["ask", picture, "-q", "what", "-m", str(path), "--json", *ASK]) == 0
        rows.append(json.loads(capsys.readouterr().out))
    assert rows[0]["model"] == str(directory)
    assert len({row["answer"] for row in rows}) == 1
    weights = "model.safetensors"
    assert (theirs / weights).read_bytes() == (directory / weights).read_bytes()


def test_converting_onto_something_is_refused_and_touches_nothing(directory, tmp_path, capsys):
    (tmp_path / "kept").write_text("x")
    assert main(["convert", str(directory), str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_model_without_its_tokenizer_is_one_line(directory, picture, tmp_path, capsys):
    target = tmp_path / "model"
    shutil.copytree(directory, target)
    (target / "tokenizer.json").unlink()
    assert main(["ask", picture, "-q", "what", "-m", str(target)]) == 2
    assert "tokenizer.json" in capsys.readouterr().err.splitlines()[-1]


def test_the_doctor_reports_a_random_model_as_one_that_cannot_read(directory, capsys):
    assert main(["doctor", "-m", str(directory), "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    states = {check["name"]: check["state"] for check in content["checks"]}
    assert states["keys"] == states["pixel limits"] == "ok"
    assert states["page"] == "failed"
    assert states["transformers"] in ("skipped", "ok")  # without torch and with it
    assert not content["healthy"]


def test_the_doctor_says_what_a_process_may_have_and_what_is_too_little(monkeypatch, tmp_path):
    doctor = mres_jax.inference.doctor
    memory = tmp_path / "memory.max"
    memory.write_text("8000000000\n")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(doctor, "CGROUP_LIMITS", (memory, tmp_path / "nowhere"))
    monkeypatch.setattr(doctor, "SHARED", tmp_path)
    for free, few, shared, limits in (
        (64e6, 2**40, "failed", "failed"),
        (2e9, 1, "ok", "ok"),
    ):
        monkeypatch.setattr(doctor, "FEW_FILES", few)
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, n=free: usage._replace(free=n))
        found = {check.name: check for check in (doctor._shared_memory(), doctor._limits())}
        assert found["shared memory"].state == shared
        assert found["limits"].state == limits
        assert ("--shm-size=1g" in found["shared memory"].detail) == (shared == "failed")
        assert ("ulimit -n" in found["limits"].detail) == (limits == "failed")
        assert "8.0 GB of memory for this container" in found["limits"].detail


def test_the_doctor_names_missing_keys(directory, tmp_path, capsys):
    target = tmp_path / "model"
    shutil.copytree(directory, target)
    tensors = load_file(target / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, target / "model.safetensors")
    assert main(["doctor", "-m", str(target)]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if " keys " in line]
    assert line.startswith("failed")
    assert "model.norm.weight" in line


@pytest.mark.parametrize(
    "error", [RunError("no numbers\nat all"), KeyError("depth"), OSError(5, "")]
)
def test_the_doctor_finishes_its_report_whatever_a_check_meets(
    error, directory, loaded_once, monkeypatch, capsys
):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(mres_jax.cli.doctor, "open_model", lambda place, exact: loaded_once)
    monkeypatch.setattr(loaded_once.answerer, "answer", fail)
    monkeypatch.setattr(mres_jax.cli.doctor, "check_parity", fail)
    monkeypatch.setattr(mres_jax.inference.doctor, "_hub", fail)
    assert main(["doctor", "-m", str(directory), "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    details = {c["name"]: c["detail"] for c in content["checks"] if c["state"] == "failed"}
    assert details.keys() >= {"hub", "page", "transformers"}
    assert len({details[name] for name in ("hub", "page", "transformers")}) == 1
    assert "\n" not in details["page"]
    assert type(error).__name__ in details["page"] or details["page"] == "no numbers"


def test_the_doctor_reports_a_model_that_does_not_load(directory, monkeypatch, capsys):
    def fail(place, exact):
        raise NotImplementedError("this type of weights")

    monkeypatch.setattr(mres_jax.cli.doctor, "open_model", fail)
    assert main(["doctor", "-m", str(directory)]) == 1
    assert "NotImplementedError: this type of weights" in capsys.readouterr().out


def test_the_resolved_run_is_printed_as_json_that_reads_back(tmp_path, capsys):
    from mres_jax.config import Run, from_json

    path = tmp_path / "tiny.py"
    path.write_text(
        "from mres_jax.config import *\n"
        "from mres_jax.data.types import Rung\n"
        "def get_config():\n"
        "    return Run(name='x', model=Schedule(num_steps=1), data=(Documents(),),\n"
        "        policies={'native': 1.0}, optimizer=OptimizerConfig(),\n"
        "        ladder=(Rung(max_patches=4, max_tokens=4, max_views=1, max_examples=1),),\n"
        "        schedule=Schedule(num_steps=9), checkpoint=CheckpointConfig(dir='runs/x'),\n"
        "        smoke={'schedule.num_steps': '2'})\n"
    )
    words = ["train", str(path), "--smoke", "--seed=5", "policies.scale:0.5=1", "--print-config"]
    assert main(words) == 0
    run = from_json(capsys.readouterr().out)
    assert isinstance(run, Run)
    assert (run.schedule.num_steps, run.seed, run.policies["scale:0.5"]) == (2, 5, 1.0)
    assert main([*words, "--schedule.nun_steps=1"]) == 2
    assert "Did you mean 'num_steps'?" in capsys.readouterr().err

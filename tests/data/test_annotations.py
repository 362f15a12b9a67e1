"""Published annotations become rows that rewards can pay; what cannot is named by file and line."""

import json
import re

import pytest

from mres_jax.cli import main
from mres_jax.data.rows import read_questions
from mres_jax.data.rows.annotations import convert_annotations
from mres_jax.data.rows.annotations.reading import Sources, span
from mres_jax.data.rows.types import Fault
from mres_jax.errors import BadRowError, ConfigError, MresError
from mres_jax.rewards import parse_span, reward

# As the data set's card shows it, and one of each other kind.
VIDEO_R1 = {
    "problem_id": 2,
    "problem": "What appears on the screen?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. A notification", "B. A command", "C. A warning", "D. An update"],
    "process": "<think>Let me think.</think>",
    "solution": "<answer>A</answer>",
    "path": "./LLaVA-Video-178K/videos/ytb.mp4",
    "data_source": "LLaVA-Video-178K/30_60_s",
}
PICTURE = {"data_type": "image", "path": "./Chart/x.png", "options": []}
R1 = [
    VIDEO_R1,
    VIDEO_R1 | PICTURE
    | {"problem_id": 3, "problem_type": "numerical", "solution": "<answer>57.41</answer>"},
    VIDEO_R1 | PICTURE
    | {"problem_id": 4, "problem_type": "OCR", "solution": "<answer>a b</answer>"},
    VIDEO_R1
    | {"problem_id": 5, "problem_type": "free-form", "solution": "<answer>He eats.</answer>"},
    VIDEO_R1 | {"problem_id": 6, "problem_type": "regression", "solution": "<answer>2.5</answer>"},
    VIDEO_R1 | {"problem_id": 7, "options": ["red", "blue"], "solution": "<answer>B</answer>"},
    VIDEO_R1 | {"problem_id": 8, "solution": "<answer>A, C</answer>"},
]  # fmt: skip
HEAD = "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"
GQA = [
    HEAD,
    "4882821564,2697,640,480,why did the boy move,unwrap it,1,CW,share,sit,unwrap it,play,gesture",
    '2435100235,1906,640,480,"how, in short, does he",show him,7,CH,give,walk,show him,off,"a, b"',
]
SPANS = {
    "4882821564": {"duration": 90, "location": {"1": [[13.8, 29.8]]}, "fps": 29.97},
    "2435100235": {"duration": 64, "location": {"7": [[-0.1, 5.8], [20, 23.5]]}, "fps": 29.97},
}
PLACES = {"4882821564": "1104/4882821564", "2435100235": "0063/2435100235"}
CHARADES = [
    "3MSZA 24.3 30.4##person turn a light on.",
    "AO8RW 0.0 6.9##a person is putting a book on a shelf.",
    "",
    "3MSZA 24.3 30.4##person flipped the light switch near the door.",
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "r1.json").write_text(json.dumps(R1))
    (tmp_path / "val.csv").write_text("\n".join(GQA) + "\n")
    (tmp_path / "gsub_val.json").write_text(json.dumps(SPANS))
    (tmp_path / "map.json").write_text(json.dumps(PLACES))
    (tmp_path / "sta.txt").write_text("\n".join(CHARADES) + "\n")
    return tmp_path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def grounded(folder):
    return Sources(spans=folder / "gsub_val.json", videos=folder / "map.json")


def test_video_r1_becomes_rows_of_every_kind(folder):
    made = convert_annotations("video-r1", folder / "r1.json", folder / "out.jsonl")
    rows = read(made.target)
    assert made.by_type == {
        "choice": 3, "free_text": 1, "number": 1, "ocr": 1, "regression": 1
    }  # fmt: skip
    assert rows[0] == {
        "id": "2",
        "video": "LLaVA-Video-178K/videos/ytb.mp4",
        "question": "What appears on the screen?",
        "answer": "A",
        "type": "choice",
        "options": ["A notification", "A command", "A warning", "An update"],
        "tags": ["LLaVA-Video-178K/30_60_s"],
    }
    assert (rows[1]["images"], rows[1]["answer"]) == (["Chart/x.png"], "57.41")
    assert (rows[5]["options"], rows[5]["answer"]) == (["red", "blue"], "B")
    assert (made.rows, made.bad) == (7, ())


def test_nextgqa_asks_for_the_answer_and_for_when_it_is_seen(folder):
    source = folder / "val.csv"
    made = convert_annotations("nextgqa", source, folder / "out.jsonl", sources=grounded(folder))
    first, second = read(made.target)
    assert (first["id"], first["video"], first["tags"]) == (
        "4882821564-1", "1104/4882821564.mp4", ["CW"]
    )  # fmt: skip
    assert (first["type"], first["answer"]) == ("grounded", "C <> [13.8, 29.8]")
    assert second["answer"] == "C <> [0.0, 5.8]; [20.0, 23.5]"
    assert second["options"][-1] == "a, b"
    assert second["question"].startswith("how, in short, does he\nAnswer with the letter")
    assert [(note.kind, note.count, note.names) for note in made.notes] == [
        ("span from the start", 1, "val.csv, line 3")
    ]
    plain = convert_annotations("nextgqa", source, folder / "plain.jsonl")
    assert [row["type"] for row in read(plain.target)] == ["choice", "choice"]
    assert read(plain.target)[0]["video"] == "4882821564.mp4"


def test_charades_sta_asks_when(folder):
    made = convert_annotations("charades-sta", folder / "sta.txt", folder / "out.jsonl")
    rows = read(made.target)
    assert [row["id"] for row in rows] == ["3MSZA-1", "AO8RW-2", "3MSZA-4"]
    assert [row["answer"] for row in rows] == ["[24.3, 30.4]", "[0.0, 6.9]", "[24.3, 30.4]"]
    assert rows[1]["video"] == "AO8RW.mp4"
    assert "a person is putting a book on a shelf." in rows[1]["question"]


@pytest.mark.parametrize(
    ("form", "name"), [("video-r1", "r1.json"), ("nextgqa", "val.csv"), ("charades-sta", "sta.txt")]
)
def test_the_right_answer_earns_everything_and_the_rows_are_read(folder, form, name):
    made = convert_annotations(
        form, folder / name, folder / "out.jsonl",
        sources=grounded(folder) if form == "nextgqa" else None,
    )  # fmt: skip
    for row in read(made.target):
        for file in [row["video"]] if "video" in row else row["images"]:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(PNG)
    rows = read_questions(made.target)
    assert len(rows) == made.rows
    for row in rows:
        said = row.answer.split(";")[0]
        earned = reward(f"<answer>{said}</answer>", row.answer, row.type, options=row.options)
        assert earned.accuracy == (2.0 if row.type == "grounded" else 1.0)
        assert reward("nothing", row.answer, row.type, options=row.options).accuracy < 0.5


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c6368"
    "0000000200010001d8af4d0000000049454e44ae426082"
)


def r1(**changes):
    return "video-r1", "bad.json", json.dumps([VIDEO_R1, VIDEO_R1 | {"problem_id": 9} | changes])


def gqa(line):
    return "nextgqa", "bad.csv", "\n".join([*GQA[:2], line])


def sta(line):
    return "charades-sta", "bad.txt", f"{CHARADES[0]}\n{line}"


@pytest.mark.parametrize(
    ("bad", "kind", "reason"),
    [
        (r1(problem_type="essay"), "unknown form", "problem_type 'essay'; have multiple choice"),
        (r1(data_type="audio"), "unknown form", "data_type 'audio'; have video, image"),
        (r1(path=""), "unknown form", "path is missing or empty"),
        (r1(solution="<answer> </answer>"), "no answer", "the solution is empty"),
        (r1(solution="<answer>E</answer>"), "no answer", "'E' is none of A, B, C, D"),
        (r1(options=["A. a", "C. c"]), "unknown form", "2 options are lettered 'AC'"),
        (r1(options=["A. a"]), "unknown form", "1 options of a multiple choice"),
        (r1(problem_id=2), "duplicate id", "an earlier annotation has the id 2"),
        (gqa("1,2,3,4,why,x,1,CW,a,b,c,d,e"), "no answer", "0 of the options are 'x'"),
        (gqa("1,2,3,4,why,a,1,CW,a,a,c,d,e"), "no answer", "2 of the options are 'a'"),
        (gqa("1,2,3,4,why,a"), "unknown form", "another number of fields"),
        (gqa("1,2,3,4,why,a,1,CW,a,b,c,d,e,f"), "unknown form", "another number of fields"),
        (gqa("1,2,3,4,,a,1,CW,a,b,c,d,e"), "unknown form", "question is missing"),
        (sta("3MSZA 24.3##no end"), "unknown form", "is not VIDEO START END##SENTENCE"),
        (sta("3MSZA 1 2 no mark"), "unknown form", "is not VIDEO START END##SENTENCE"),
        (sta("3MSZA 30.4 24.3##x"), "no answer", "30.4 to 24.3 s is no span of time"),
        (sta("3MSZA nan 24.3##x"), "no answer", "nan to 24.3 s is no span of time"),
        (sta("3MSZA a b##x"), "no answer", "a to b is no span of time"),
    ],
)  # fmt: skip
def test_bad_annotations_are_named_by_file_and_line(folder, bad, kind, reason):
    form, name, content = bad
    (folder / name).write_text(content)
    made = convert_annotations(form, folder / name, folder / "out.jsonl")
    assert made.rows == 1
    ((found, first),) = [(finding.kind, finding.first) for finding in made.bad]
    place = {"bad.json": "row 2", "bad.csv": "line 3", "bad.txt": "line 2"}[name]
    assert (found, first[0][0]) == (kind, f"{name}, {place}")
    assert reason in first[0][1]
    with pytest.raises(BadRowError, match=f"{name}, {place}: .*{re.escape(reason)}"):
        convert_annotations(form, folder / name, folder / "raised.jsonl", on_bad="raise")
    assert not (folder / "raised.jsonl").exists()


def test_spans_and_places_that_are_not_there_are_told(folder):
    for name, content, reason in (
        ("gsub_val.json", {"4882821564": {"location": {"1": [[1]]}}}, "are not start and end"),
        ("gsub_val.json", {"4882821564": {"location": {}}}, "no span of question 1"),
        ("map.json", {}, "no place of video 4882821564"),
    ):
        before = (folder / name).read_text()
        (folder / name).write_text(json.dumps(content))
        with pytest.raises(MresError, match=f"nothing in it can be used: .*{reason}"):
            convert_annotations(
                "nextgqa", folder / "val.csv", folder / "out.jsonl", sources=grounded(folder)
            )
        (folder / name).write_text(before)
    (folder / "map.json").write_text("[]")
    with pytest.raises(MresError, match=r"map\.json: is no object of videos"):
        convert_annotations(
            "nextgqa", folder / "val.csv", folder / "out.jsonl", sources=grounded(folder)
        )


def test_files_that_are_missing_are_left_out_where_somebody_looks(folder):
    (folder / "videos").mkdir()
    (folder / "videos" / "AO8RW.mp4").touch()
    made = convert_annotations(
        "charades-sta", folder / "sta.txt", folder / "out.jsonl", folder=folder / "videos"
    )
    assert [row["id"] for row in read(made.target)] == ["AO8RW-2"]
    assert str(made.bad[0]) == ("2 missing video (first: sta.txt, line 1, sta.txt, line 4)")
    hostile = "../../etc/passwd 1 2##x"
    (folder / "sta.txt").write_text(f"{CHARADES[1]}\n{hostile}\n")
    made = convert_annotations(
        "charades-sta", folder / "sta.txt", folder / "out.jsonl", folder=folder / "videos"
    )
    assert [finding.kind for finding in made.bad] == ["unsafe path"]


@pytest.mark.parametrize("start", [-0.5, -0.0, 0, 0.25, "3"])
def test_spans_are_those_that_rewards_read(start):
    found = parse_span(span(start, 7.5))
    assert found == (max(float(start), 0.0), 7.5)


@pytest.mark.parametrize("times", [(-0.6, 4), (4, 4), (None, 1), (0, float("inf")), (-0.2, 0)])
def test_what_is_no_span_is_none(times):
    with pytest.raises(Fault, match="is no span of time"):
        span(*times)


def test_the_command_says_what_it_wrote_and_what_it_left_out(folder, capsys):
    (folder / "sta.txt").write_text("\n".join([*CHARADES, "x"]))
    words = ["data", "convert", str(folder / "sta.txt"), str(folder / "out.jsonl")]
    assert main([*words, "--format", "charades-sta"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].endswith("out.jsonl: 3 rows (3 grounding)")
    assert "sta.txt, line 5" in out
    assert "nobody looked" in err
    assert main([*words, "--format", "charades-sta", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bad"][0]["count"] == 1
    for more, message in (
        (["--format", "charades"], "no format 'charades' (did you mean charades-sta?)"),
        (["--format", "charades-sta", "--spans", "x"], "--spans and --videos are of nextgqa"),
        (["--format", "nextgqa"], "no column video_id"),
    ):
        assert main([*words, *more]) == 2
        assert message in capsys.readouterr().err


def test_what_is_no_such_file_is_one_line(folder):
    with pytest.raises(MresError, match="no such file"):
        convert_annotations("video-r1", folder / "gone.json", folder / "out.jsonl")
    with pytest.raises(ConfigError, match="have video-r1, nextgqa, charades-sta"):
        convert_annotations("x", folder / "r1.json", folder / "out.jsonl")
    (folder / "sta.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(MresError, match="not UTF-8"):
        convert_annotations("charades-sta", folder / "sta.txt", folder / "out.jsonl")
    (folder / "bad.csv").write_text(f'{HEAD}\n"1')
    with pytest.raises(MresError, match="no CSV"):
        convert_annotations("nextgqa", folder / "bad.csv", folder / "out.jsonl")
    assert not (folder / "out.jsonl").exists()

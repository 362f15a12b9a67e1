"""Task folders: one row format, graded by one function, refused whole where a row is broken."""

import json

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.documents.sets import write_set
from mres_jax.data.rows import QuestionRow, read_task
from mres_jax.data.video import FrameSampling
from mres_jax.errors import BadRowError, MresError
from mres_jax.geometry import Box, Size, View
from mres_jax.scoring import SCORERS, grade

ROW = {"id": "a", "images": ["p.png"], "question": "What?", "answer": ["7", "seven"]}


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "p.png")
    return tmp_path


def write(folder, *rows):
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder


def test_rows_come_with_their_pictures_options_and_boxes(folder):
    box = {**ROW, "id": "b", "scorer": "point", "box": [1, 2, 3, 4], "tags": ["x"], "type": "gui"}
    choice = {**ROW, "id": "c", "options": ["6", "7"], "answer": "B"}
    task = read_task(write(folder, ROW, box, choice, {"question": "No picture?"}))
    plain, point, letter, text = task.rows
    assert task.name == folder.name
    assert plain.sizes() == [Size(30, 40)]
    assert plain.images()[0].shape == (30, 40, 3)
    assert (plain.answers, plain.scorer) == (("7", "seven"), "exact")
    assert (point.box, point.tags, point.type) == (Box(1, 2, 3, 4), ("x",), "gui")
    assert (letter.scorer, letter.prompt) == ("choice", "What?\nA. 6\nB. 7")
    assert (text.id, text.pictures, text.is_graded) == ("#3", (), False)
    assert not task.is_graded


def test_rows_may_have_clips_as_folders_or_listed_frames(folder):
    (folder / "clip").mkdir()
    for i in range(3):
        Image.fromarray(np.full((8, 12, 3), i, np.uint8)).save(folder / f"clip/{i}.png")
    listed = {**ROW, "id": "b", "frames": ["clip/2.png", "clip/0.png"]}
    rows = read_task(write(folder, {**ROW, "video": "clip"}, listed)).rows
    (_, whole), (picture, two) = (row.items(FrameSampling(fps=1)) for row in rows)
    assert picture.shape == (30, 40, 3)
    assert [frame[0, 0, 0] for frame in whole.frames] == [0, 1, 2]
    assert [frame[0, 0, 0] for frame in two.frames] == [2, 0]
    assert whole.times == (0.0, 1.0, 2.0)


def test_sets_of_generated_documents_are_tasks(tmp_path):
    rows = write_set(tmp_path / "docs", 0, 2)
    task = read_task(rows.parent)
    assert task.is_graded
    assert {row.scorer for row in task.rows} <= set(SCORERS)
    assert any(row.box is not None for row in task.rows)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "row #1: no JSON"),
        ({"id": "b", "answer": "7"}, "row b: a row of a task is an object with a question"),
        ({**ROW, "id": "b", "images": ["q.png"]}, "row b: picture q.png: no such file"),
        ({**ROW, "id": "b", "images": ["../p.png"]}, r"row b: ../p.png has \.\. in it"),
        ({**ROW, "id": "b", "scorer": "vqa"}, "row b: scorer 'vqa'; have exact"),
        ({**ROW, "id": "b", "scorer": "box"}, "row b: scorer box needs the box"),
        ({**ROW, "id": "b", "box": [5, 5, 5, 9]}, "row b: box .* is not top, left"),
        ({**ROW, "id": "b", "box": [1, 2, "3", 4]}, "row b: box .* is not top, left"),
        ({**ROW, "id": "b", "options": ["6"]}, "row b: scorer choice needs at least two"),
        ({**ROW, "id": "b", "answer": {"x": 1}}, "row b: answer is an object"),
        (ROW, "row a: an earlier row has the same id"),
        ({**ROW, "id": "b", "video": "x.mp4", "frames": ["p.png"]}, "has both video and frames"),
        ({**ROW, "id": "b", "frames": ["p.png", "q.png"]}, "row b: picture q.png: no such file"),
        ({**ROW, "id": "b", "video": "x.mp4"}, "row b: clip .*x.mp4: no such file or folder"),
    ],
)
def test_a_broken_row_refuses_the_task_by_name(row, message, folder):
    with pytest.raises(BadRowError, match=message):
        read_task(write(folder, ROW, row))


def test_a_task_without_rows_or_with_too_few_is_refused(folder):
    with pytest.raises(MresError, match=r"has no rows\.jsonl or rows\.json"):
        read_task(folder)
    with pytest.raises(MresError, match=r"is no folder with rows\.jsonl"):
        read_task(folder / "none")
    with pytest.raises(MresError, match="1 row, but at least 2 are needed"):
        read_task(write(folder, ROW), least=2)
    bad = QuestionRow(id="x", pictures=(b"\x89PNG\r\n\x1a\n",), question="q")
    with pytest.raises(BadRowError, match="row x: picture of 8 bytes"):
        bad.images()


def test_every_scorer_grades_right_and_wrong():
    view = View(item=0, crop=Box(0, 0, 100, 200), size=Size(50, 100))
    place = {"box": Box(10, 20, 30, 60), "views": [view]}
    cases = {
        "exact": ("Seven.", "six", ["seven"], {}),
        "unit": ("$12.50", "12", ["12.5 USD"], {}),
        "anls": ("invoce", "bill", ["invoice"], {}),
        "point": ("(200, 200)", "(900, 200)", [], place),
        "box": ("[100, 100, 300, 300]", "[100, 100, 110, 110]", [], place),
        "choice": ("B", "A", ["B"], {"options": ["x", "y"]}),
    }
    assert set(cases) == set(SCORERS)
    for scorer, (right, wrong, answers, more) in cases.items():
        assert grade(scorer, right, answers, **more) == 1.0, scorer
        assert grade(scorer, wrong, answers, **more) == 0.0, scorer
    with pytest.raises(ValueError, match="no box and 0 views"):
        grade("point", "(1, 2)", [])
    with pytest.raises(ValueError, match="scorer 'judge'"):
        grade("judge", "x", ["x"])

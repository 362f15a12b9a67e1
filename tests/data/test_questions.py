"""Rows of questions about clips and pictures: every form is read, and a bad row is named."""

import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.rows import read_questions
from mres_jax.data.video import FrameSampling
from mres_jax.errors import BadRowError, MresError
from mres_jax.protocols import Clip, frames_of

ROW = {"id": "a", "frames": ["0.png", "1.png", "2.png"], "question": "What?", "answer": "x"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clip").mkdir()
    for i in range(3):
        pixels = np.full((8, 12 + 4 * (i == 2), 3), 40 * i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        Image.fromarray(pixels[:, :12]).save(tmp_path / f"clip/{i}.png")
    return tmp_path


def read(folder, *rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_questions(path)


def test_each_form_gives_its_frames_in_order(folder):
    rows = read(
        folder,
        ROW | {"frames": ["1.png", "0.png"]},
        {"video": "clip", "question": "What?", "answer": 7, "type": "number"},
        ROW | {"id": "c", "frames": None, "images": ["2.png", "0.png"], "options": ["u", "v"]},
        ROW | {"id": "d", "frames": ["1.png"]},
    )
    assert [row.id for row in rows] == ["a", "#1", "c", "d"]
    assert [row.type for row in rows] == ["text", "number", "choice", "text"]
    assert rows[1].answer == "7"
    assert rows[2].prompt == "What?\nA. u\nB. v"
    items = [row.items(FrameSampling()) for row in rows]
    assert [isinstance(some[0], Clip) for some in items] == [True, True, False, False]
    values = [[int(frame[0, 0, 0]) for frame in frames_of(some)] for some in items]
    assert values == [[40, 0], [0, 40, 80], [80, 0], [40]]  # a clip of one frame is a picture
    (thinned,) = rows[1].items(FrameSampling(max_frames=2, min_frames=2))
    assert len(thinned.frames) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW | {"images": ["0.png"]}, "one of video, frames, images is needed"),
        ({"id": "a", "question": "What?", "answer": "x"}, "got none"),
        (ROW | {"answer": ""}, "nobody knows what is right"),
        (ROW | {"question": " "}, "an object with a question"),
        (ROW | {"frames": ["9.png"]}, "9.png"),
        (ROW | {"frames": ["../x.png"]}, "has .. in it"),
        (ROW | {"frames": None, "video": "no.mp4"}, "no video"),
        (ROW | {"options": "AB"}, "options is not a list"),
        (ROW | {"answer": math.nan}, "a text or a finite number is needed, got nan"),
    ],
)
def test_a_row_that_cannot_be_used_refuses_the_file_by_name(row, message, folder):
    with pytest.raises(BadRowError, match=f"row a: .*{re.escape(message)}"):
        read(folder, ROW | {"id": "first"}, row)


def test_twice_the_same_id_and_no_rows_are_refused(folder):
    with pytest.raises(BadRowError, match="same id"):
        read(folder, ROW, ROW)
    with pytest.raises(MresError, match="no such file"):
        read_questions(folder / "none.jsonl")


def test_frames_of_two_sizes_are_no_clip(folder):
    (row,) = read(folder, ROW)
    with pytest.raises(
        BadRowError, match=r"row a: .*frame 2 is 16 x 8 px, but the first one 12 x 8"
    ):
        row.items(FrameSampling())

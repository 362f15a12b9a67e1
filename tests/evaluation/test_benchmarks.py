"""Public benchmarks from files of their released form; scores counted by hand."""

import base64
import csv
import dataclasses
import importlib.util
import json

import numpy as np
import pytest

from mres_jax.data.rows import QuestionRow
from mres_jax.errors import MresError
from mres_jax.evaluation.benchmarks import (
    hits_element,
    load_hr_bench,
    load_screenspot_pro,
    load_vstar,
    score_hr_bench,
    score_screenspot_pro,
    score_vstar,
    window_recall,
)
from mres_jax.geometry import Box, Size, View
from mres_jax.inference.show import png
from mres_jax.protocols import Answer
from mres_jax.testing import said

WHOLE = Box(0, 0, 100, 200)


def seen(text: str, crop: Box = WHOLE) -> Answer:
    return said(text, views=[View(item=0, crop=crop, size=Size(100, 200))])


def picture(seed: int = 0) -> bytes:
    return png(np.random.default_rng(seed).integers(0, 256, (100, 200, 3), np.uint8))


ELEMENT = {
    "id": "blender_windows_0",
    "img_filename": "blender_windows/s.png",
    "bbox": [20, 10, 60, 30],
    "instruction": "open preferences",
    "instruction_cn": "打开首选项",
    "application": "blender",
    "platform": "windows",
    "img_size": [200, 100],
    "ui_type": "text",
    "group": "CAD",
}


@pytest.fixture
def screens(tmp_path):
    (tmp_path / "images/blender_windows").mkdir(parents=True)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images/blender_windows/s.png").write_bytes(picture())

    def write(*changes: dict):
        rows = [{**ELEMENT, "id": f"e{i}", **change} for i, change in enumerate(changes)]
        (tmp_path / "annotations/blender_windows.json").write_text(json.dumps(rows))
        return tmp_path

    return write


def test_screenspot_pro_rows_are_elements_with_boxes(screens):
    one, two = load_screenspot_pro(screens({}, {"ui_type": "icon", "group": "Dev"}))
    assert (one.question, one.type, one.box) == ("open preferences", "text", Box(10, 20, 30, 60))
    assert two.tags == ("Dev", "blender", "windows")
    assert load_screenspot_pro(screens({}), language="cn")[0].question == "打开首选项"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("(100, 100)", 1.0),  # x 20, y 10: a corner, and edges count
        ("(300, 300)", 1.0),  # the corner opposite
        ("(301, 200)", 0.0),
        ("(200, 99)", 0.0),
        ("<|box_start|>(100,100),(300,300)<|box_end|>", 1.0),
        ("[0, 0, 1000, 1000]", 0.0),  # its centre is elsewhere
        ("in the menu", 0.0),
        ("(3000, 200)", 0.0),
    ],
)
def test_an_element_is_hit_by_a_point_or_the_centre_of_a_box_edges_included(text, score, screens):
    (row,) = load_screenspot_pro(screens({}))
    assert hits_element(row, seen(text)) == score


def test_a_look_at_several_views_is_refused_and_none_is_wrong(screens):
    (row,) = load_screenspot_pro(screens({}))
    answer = seen("(200, 99)")
    with pytest.raises(MresError, match=f"{row.id}.* metric element needs the one view .* at 2"):
        hits_element(row, dataclasses.replace(answer, views=answer.views * 2))
    assert hits_element(row, dataclasses.replace(answer, views=())) == 0.0


def test_a_hit_inside_a_window_is_mapped_back_first(screens):
    (row,) = load_screenspot_pro(screens({}))
    crop = Box(0, 0, 50, 100)  # a quarter: its (400, 400) is x 40, y 20
    assert hits_element(row, seen("(400, 400)", crop)) == 1.0
    assert hits_element(row, seen("(400, 400)")) == 0.0


def test_screenspot_pro_averages_over_rows_not_over_groups(screens):
    kinds = [{}, {}, {"ui_type": "icon", "group": "Dev"}]
    rows = load_screenspot_pro(screens(*kinds))
    scores = score_screenspot_pro(rows, [seen("(200, 200)"), seen("?"), seen("(200, 200)")])
    means = {name: score.mean for name, score in scores.items()}
    assert means == {
        "average": pytest.approx(2 / 3),
        "text": 0.5,
        "icon": 1.0,
        "CAD": 0.5,
        "Dev": 1.0,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [60, 10, 20, 30]}, "are reversed or outside"),
        ({"bbox": [1, 2, 3]}, "is not left, top, right, bottom"),
        ({"img_size": [100, 200]}, r"img_size is \[100, 200\], its picture \[200, 100\]"),
        ({"img_filename": "none.png"}, "no such file"),
        ({"instruction": " "}, "instruction is ' ', not a str"),
        ({"ui_type": "link"}, "ui_type 'link'; have text, icon"),
    ],
)
def test_broken_elements_are_named(change, message, screens):
    with pytest.raises(MresError, match=f"row e0: .*{message}"):
        load_screenspot_pro(screens(change))


COLUMNS = ["index", "question", "answer", "category", *"ABCD", "cycle_category", "image"]


def write_tsv(path, rows, columns=COLUMNS):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def cycles(question: int, category: str) -> list[dict]:
    """Four rows of one question, its options turned round."""
    image, options = base64.b64encode(picture(question)).decode(), ["w", "x", "y", "right"]
    rows = []
    for i in range(4):
        turned = options[i:] + options[:i]
        rows.append(
            {
                "index": 4 * question + i,
                "question": f"What\tis {question}?",
                "answer": "ABCD"[turned.index("right")],
                "category": category,
                **dict(zip("ABCD", turned, strict=True)),
                "cycle_category": f"cycle {i}",
                "image": image,
            }
        )
    return rows


def test_hr_bench_is_scored_over_cycles_and_its_pictures_are_held_once(tmp_path):
    made = [*cycles(0, "single"), *cycles(1, "cross"), *cycles(2, "cross")]
    rows = load_hr_bench(write_tsv(tmp_path / "hr_bench_4k.tsv", made))
    assert len({id(row.pictures[0]) for row in rows}) == 3
    assert rows[0].prompt == "What\tis 0?\nA. w\nB. x\nC. y\nD. right"
    assert rows[0].sizes() == [Size(100, 200)]
    # all cycles of question 0 right; a model that always says A is right once of four; none of 2
    answers = [seen(row["answer"]) for row in made[:4]]
    answers += [seen("A")] * 4 + [seen("")] * 4
    means = {name: score.mean for name, score in score_hr_bench(rows, answers).items()}
    assert means == {
        "average": pytest.approx(5 / 12),
        "single": 1.0,
        "cross": pytest.approx(1 / 8),
        "circular": pytest.approx(1 / 3),
    }
    # of the last question one cycle is there, and it is right: no whole question
    cut = score_hr_bench(rows[:9], [*answers[:8], seen(made[8]["answer"])])
    assert cut["circular"].mean == pytest.approx(1 / 2)


def test_broken_tables_of_hr_bench_are_named(tmp_path):
    (row, *_) = cycles(0, "single")
    for change, message in (
        ({"answer": "E"}, "row 0: answer 'E'"),
        ({"category": "double"}, "category 'double'"),
        ({"image": "no base64!"}, "its image is no base64"),
        ({"question": ""}, "question is '', not a str"),
    ):
        with pytest.raises(MresError, match=message):
            load_hr_bench(write_tsv(tmp_path / "a.tsv", [row | change]))
    with pytest.raises(MresError, match="no columns cycle_category, image"):
        load_hr_bench(write_tsv(tmp_path / "b.tsv", [row], COLUMNS[:-2]))
    with pytest.raises(MresError, match="no such file"):
        load_hr_bench(tmp_path / "none.tsv")
    with pytest.raises(MresError, match=r"hrbench .*d\.tsv: has no rows\."):
        load_hr_bench(write_tsv(tmp_path / "d.tsv", []))
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(MresError, match="parquet needs pyarrow"):
            load_hr_bench(tmp_path / "c.parquet")


ASKED = "What is the colour of the dog?\n(A) red\n(B) blue\nAnswer with the option's letter."


def write_vstar(folder, *changes: dict):
    lines = []
    for i, change in enumerate(changes):
        row = {
            "image": f"direct_attributes/sa_{i}.png",
            "text": ASKED,
            "category": "direct_attributes",
            "label": "B",
            "question_id": i,
        } | change
        path = folder / row["image"]
        if "none" not in row["image"]:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(picture())
            path.with_suffix(".json").write_text(
                json.dumps(
                    {
                        "target_object": ["dog", "cat"],
                        "bbox": [[20, 10, 40, 20], [100, 50, 10, 10]],
                        "question": "What is the colour of the dog?",
                        "options": ["The colour is blue.", "The colour is red."],
                    }
                )
            )
        lines.append(json.dumps(row))
    (folder / "test_questions.jsonl").write_text("\n".join(lines))
    return folder


def test_vstar_rows_have_letters_options_and_one_box_around_their_things(tmp_path):
    other = {"category": "relative_position", "image": "relative_position/sa_9.png"}
    rows = load_vstar(write_vstar(tmp_path, {}, other, {"category": "OCR"}))
    assert [row.type for row in rows] == ["direct_attributes", "relative_position"]
    assert rows[0].prompt == "What is the colour of the dog?\nA. red\nB. blue"
    assert rows[0].box == Box(10, 20, 60, 110)  # x, y, width, height in the file
    scores = score_vstar(rows, [seen("(B) blue"), seen("A")])
    assert {name: score.mean for name, score in scores.items()} == {
        "average": 0.5,
        "direct_attributes": 1.0,
        "relative_position": 0.0,
    }


def test_parts_of_pixels_of_vstar_count_whole(tmp_path):
    file = write_vstar(tmp_path, {})
    boxes = {"bbox": [[20.4, 10.9, 40.2, 20.3]]}  # to x 60.6, y 31.2
    (file / "direct_attributes/sa_0.json").write_text(json.dumps(boxes))
    assert load_vstar(file)[0].box == Box(10, 20, 32, 61)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "C"}, "options AB and label 'C'"),
        ({"text": "What?"}, "options none and label 'B'"),
        ({"image": "none/x.png"}, "no such file"),
    ],
)
def test_broken_rows_of_vstar_are_named(change, message, tmp_path):
    with pytest.raises(MresError, match=f"row 0: .*{message}"):
        load_vstar(write_vstar(tmp_path, change))


def test_a_question_that_holds_another_end_of_line_is_one_row(tmp_path):
    file = write_vstar(tmp_path, {"text": ASKED.replace("colour", "col\u2028our")}, {})
    lines = (file / "test_questions.jsonl").read_text("utf-8").replace("\\u2028", "\u2028")
    (file / "test_questions.jsonl").write_text(lines, "utf-8")
    assert [row.question.count("\u2028") for row in load_vstar(file)] == [1, 0]


def test_vstar_without_questions_is_refused(tmp_path):
    with pytest.raises(MresError, match=r"test_questions\.jsonl: no such file"):
        load_vstar(tmp_path)
    with pytest.raises(MresError, match="no question of direct_attributes"):
        load_vstar(write_vstar(tmp_path, {"category": "OCR"}))


def test_window_recall_counts_boxes_that_are_wholly_in_view():
    boxes = [Box(10, 10, 20, 20), Box(10, 10, 20, 120), None]
    rows = [
        QuestionRow(id=f"{i}", pictures=(), question="q", box=box) for i, box in enumerate(boxes)
    ]
    answers = [seen("B", Box(0, 0, 50, 100))] * 3
    recall = window_recall(rows, answers)
    assert recall.mean == 0.5
    with pytest.raises(MresError, match="no row says where"):
        window_recall(rows[2:], answers[2:])

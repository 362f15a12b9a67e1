"""Benchmarks from folders of their released form: what is asked, what is right, what is broken."""

import json
import shutil

import numpy as np
import pytest

from mres_jax.config import BENCHMARKS, Benchmark
from mres_jax.errors import MresError
from mres_jax.evaluation.arms.sets import open_benchmark
from mres_jax.evaluation.arms.summary import circular, overlaps
from mres_jax.evaluation.benchmarks import (
    load_charades_sta,
    load_chartqa,
    load_docvqa,
    load_ocrbench,
    load_textvqa,
    load_videomme,
    score_charades_sta,
)
from mres_jax.evaluation.benchmarks.hr_bench import COLUMNS
from mres_jax.geometry import Size
from mres_jax.inference.show import png
from mres_jax.protocols import Clip
from mres_jax.testing import said

PICTURES = ("QUJD", "QQ==")  # base64 of what is none


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(np.zeros((40, 60, 3), np.uint8)))
    return path


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def textvqa(root, **change):
    row = {
        "question_id": 34602,
        "image_id": "003a8ae2ef43b901",
        "question": "what is the brand of this phone?",
        "answers": ["nokia"] * 8 + ["htc", "toshiba"],
        "image_classes": ["Mobile phone"],
    }
    row |= change
    picture(root / "train_images/003a8ae2ef43b901.jpg")
    write(root / "TextVQA_0.5.1_val.json", {"dataset_name": "textvqa", "data": [row]})


def chartqa(root, **change):
    row = {"imgname": "a.png", "query": "How many?", "label": "14"} | change
    picture(root / "png/a.png")
    write(root / "test_human.json", [row])
    write(root / "test_augmented.json", [{**row, "label": "3"}])


def docvqa(root, **change):
    row = {
        "questionId": 49153,
        "question": "What is the 'actual' value per 1000?",
        "question_types": ["figure/diagram", "layout"],
        "image": "documents/pybv0228_81.png",
        "docId": 14465,
        "answers": ["0.28", ".28"],
        "data_split": "val",
    }
    row |= change
    picture(root / "documents/pybv0228_81.png")
    write(root / "val_v1.0_withQT.json", {"dataset_name": "SP-DocVQA", "data": [row]})


def ocrbench(root, **change):
    row = {
        "dataset_name": "IIIT5K",
        "type": "Regular Text Recognition",
        "question": "what is written in the image?",
        "image_path": "IIIT5K/1.png",
        "answers": ["CENTRE"],
    }
    picture(root / "OCRBench_Images/IIIT5K/1.png")
    formula = {"dataset_name": "HME100k", "answers": "x ^ 2", "type": "Formulas"}
    write(root / "OCRBench.json", [row | change, row | formula])


def charades(root, line="AO8RW 0.0 6.9##a person is putting a book on a shelf."):
    for number in range(3):
        picture(root / f"Charades_v1_480/AO8RW/{number}.png")
    (root / "charades_sta_test.txt").write_text(f"{line}\nAO8RW 1.5 2##a person sits.\n")


WRITERS = {
    "textvqa_val": textvqa,
    "chartqa": chartqa,
    "docvqa_val": docvqa,
    "ocrbench": ocrbench,
    "charades_sta": charades,
}
LOADERS = {
    "textvqa_val": load_textvqa,
    "chartqa": load_chartqa,
    "docvqa_val": load_docvqa,
    "ocrbench": load_ocrbench,
    "charades_sta": load_charades_sta,
    "videomme": load_videomme,
}


@pytest.mark.parametrize(
    ("name", "texts", "answers", "metrics", "types"),
    [
        (
            "textvqa_val",
            ["what is the brand of this phone?"],
            [("nokia",) * 8 + ("htc", "toshiba")],
            ["vqa"],
            [""],
        ),
        ("chartqa", ["How many?"] * 2, [("14",), ("3",)], ["relaxed"] * 2, ["human", "augmented"]),
        (
            "docvqa_val",
            ["What is the 'actual' value per 1000?"],
            [("0.28", ".28")],
            ["anls"],
            [""],
        ),
        (
            "ocrbench",
            ["what is written in the image?"] * 2,
            [("CENTRE",), ("x ^ 2",)],
            ["contains", "formula"],
            ["Regular Text Recognition", "Formulas"],
        ),
    ],
)
def test_pictures_are_asked_about_as_released(name, texts, answers, metrics, types, tmp_path):
    WRITERS[name](tmp_path)
    asked = open_benchmark(Benchmark(name=name, path=str(tmp_path)))
    assert [question.text for question in asked] == texts
    assert [question.answers for question in asked] == answers
    assert [question.metric for question in asked] == metrics
    assert [question.type for question in asked] == types
    assert len({question.group for question in asked}) == 1  # one picture
    assert all(question.sizes == (Size(40, 60),) for question in asked)
    assert all(question.grade(said(question.answers[0])) == 1.0 for question in asked)


def test_moments_of_a_video_are_asked_for_in_seconds_and_scored_by_overlap(tmp_path):
    charades(tmp_path)
    one, two = open_benchmark(Benchmark(name="charades_sta", path=str(tmp_path)))
    assert one.text.startswith(
        'When in the video does this happen: "a person is putting a book on a shelf"? Answer with'
    )
    assert (one.answers, two.answers) == (("0.0 - 6.9",), ("1.5 - 2.0",))
    (clip,) = one.open(None)
    assert isinstance(clip, Clip)
    assert len(clip.frames) == 3
    assert one.grade(said("It happens in the 0-6.9 seconds.")) == 1.0
    assert one.grade(said("0 to 3.45 seconds")) == pytest.approx(0.5)
    assert two.grade(said("after he sat down")) == 0.0
    rows = load_charades_sta(tmp_path)
    score = score_charades_sta(rows, [said("0 - 3.45"), said("1.5 - 2")])
    assert score.recall == {0.3: 1.0, 0.5: 1.0, 0.7: 0.5}
    assert score.mean_iou == pytest.approx(0.75)


def test_a_sentence_that_holds_another_end_of_line_is_one_row(tmp_path):
    charades(tmp_path, line="AO8RW 0.0 6.9##a person\u2028puts a book on a shelf.")
    one, two = load_charades_sta(tmp_path)
    assert one.question == "a person\u2028puts a book on a shelf"
    assert two.answers == ("1.5 - 2.0",)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("textvqa_val", {"answers": ["nokia"] * 9}, "row 34602: answers is no list of at least 10"),
        ("textvqa_val", {"image_id": "none"}, "row 34602: .*none.jpg.*no such file"),
        ("textvqa_val", {"question": ""}, "question is ''"),
        ("chartqa", {"label": 14}, "row human#0: label is no list"),
        ("chartqa", {"imgname": "b.png"}, "row human#0: .*b.png.*no such file"),
        ("docvqa_val", {"answers": []}, "row 49153: answers is no list"),
        ("docvqa_val", {"image": None}, "image is None"),
        ("ocrbench", {"type": ""}, "row #0: type is ''"),
        ("ocrbench", {"image_path": "b.png"}, "b.png.*no such file"),
        ("charades_sta", {"line": "AO8RW 0.0##a person"}, "row #0: 'AO8RW 0.0##a person' is not"),
        ("charades_sta", {"line": "AO8RW 7.0 6.9##a"}, "lasts from 7.0 s to 6.9 s"),
        ("charades_sta", {"line": "NONE1 0.0 6.9##a"}, "video NONE1 is not in Charades_v1_480"),
    ],
)
def test_rows_that_cannot_be_asked_are_named(name, change, message, tmp_path):
    WRITERS[name](tmp_path, **change)
    with pytest.raises(MresError, match=message):
        LOADERS[name](tmp_path)


def test_all_rows_that_cannot_be_asked_are_counted_with_their_benchmark_and_its_copy(tmp_path):
    chartqa(tmp_path)
    good = {"imgname": "a.png", "query": "How many?", "label": "14"}
    changes = ({}, {"label": 3}, {"imgname": "b.png"}, {"query": None}, {"label": []}, {})
    write(tmp_path / "test_human.json", [*(good | change for change in changes), "no object"])
    task = Benchmark(name="chartqa", path=str(tmp_path))
    with pytest.raises(MresError) as caught:
        open_benchmark(task)
    assert str(caught.value) == (
        f"chartqa {tmp_path}: 2 unknown form (first: human#3, human#6), 2 no answer (first: "
        "human#1, human#4), 1 missing picture (first: human#2), of 8 rows: row human#1: label is "
        "no list of at least 1 texts."
    )
    write(tmp_path / "test_human.json", {"rows": [good]})
    with pytest.raises(MresError, match=r"chartqa .*test_human\.json: is no list"):
        open_benchmark(task)


def test_pictures_of_tables_that_have_no_size_are_counted_too(tmp_path):
    rows = [(f"{i}", "What?", "A", "single", *"abcd", "0", text) for i, text in enumerate(PICTURES)]
    (tmp_path / "hr.tsv").write_text("\n".join("\t".join(row) for row in (COLUMNS, *rows)))
    with pytest.raises(MresError, match=r"8k .*hr\.tsv: 2 bad picture \(first: 0, 1\), of 2 rows"):
        open_benchmark(Benchmark(name="hrbench8k", path=str(tmp_path / "hr.tsv")))


@pytest.mark.parametrize("name", LOADERS)
def test_a_folder_without_the_benchmark_is_refused(name, tmp_path):
    with pytest.raises(MresError, match=r"no such file|has no val|no parquet"):
        LOADERS[name](tmp_path)
    assert name in BENCHMARKS


def test_a_copy_whose_videos_are_missing_is_refused(tmp_path):
    charades(tmp_path)
    shutil.rmtree(tmp_path / "Charades_v1_480")
    with pytest.raises(MresError, match="video AO8RW is not in"):
        open_benchmark(Benchmark(name="charades_sta", path=str(tmp_path)))


def test_summaries_add_what_a_benchmark_counts_beside_its_mean(make_sample):
    spans = [
        make_sample(f"{i}", metric="span_iou", score=score) for i, score in enumerate((0.6, 0.2))
    ]
    assert overlaps(spans) == {"recall@0.3": 0.5, "recall@0.5": 0.5, "recall@0.7": 0.0}
    assert overlaps([*spans, make_sample("x", metric="choice", score=1.0)]) == {}
    turned = [
        make_sample(f"{i}", metric="choice", score=score, group=group, question=f"Who?\n{options}")
        for group in "ab"
        for i, (options, score) in enumerate(
            (("A. he\nB. she", 1.0), ("A. she\nB. he", group == "a"))
        )
    ]
    whole = circular(turned)["circular"]
    assert (whole["num_groups"], whole["score"][0]) == (2, 0.5)
    cut = circular(turned[:-1])["circular"]  # the second question has lost its second cycle
    assert (cut["num_groups"], cut["score"][0]) == (1, 1.0)
    assert circular(turned[::2]) == {}
    about_one_video = [
        make_sample(f"{i}", metric="choice", score=1.0, group="a", question=f"{word}?\nA. he")
        for i, word in enumerate(("Who", "When"))
    ]
    assert circular(about_one_video) == {}

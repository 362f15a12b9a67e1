"""Benchmarks from parquet as hubs keep them: the rows that the released folders give."""

import io

import pytest
from PIL import Image

from mres_jax.config import Benchmark
from mres_jax.errors import MresError
from mres_jax.evaluation.arms.sets import open_benchmark
from mres_jax.evaluation.benchmarks import (
    load_charades_sta,
    load_chartqa,
    load_docvqa,
    load_ocrbench,
    load_textvqa,
    load_videomme,
)
from mres_jax.testing import said

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.parity


def image(width: int) -> dict:
    """As Hugging Face's `Image` feature is stored."""
    file = io.BytesIO()
    Image.new("RGB", (width, 40)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": "0.png"}


TABLES = {
    "textvqa_val": [
        {
            "question_id": 34602 + i,
            "image_id": f"{i // 2}",
            "question": "what brand?",
            "answers": ["nokia"] * 10,
            "image": image(60 + i // 2),
        }
        for i in range(4)
    ],
    "chartqa": [
        {"type": f"{kind}_test", "question": "How many?", "answer": answer, "image": image(60)}
        for kind, answer in (("human", "14"), ("augmented", "3%"))
    ],
    "docvqa_val": [
        {
            "questionId": "49153",
            "question": "What value?",
            "question_types": ["layout", "form"],
            "answers": ["0.28", ".28"],
            "image": image(60),
        }
    ],
    "ocrbench": [
        {
            "dataset": source,
            "question": "what is written? ",
            "question_type": kind,
            "answer": ["x"],
            "image": image(60),
        }
        for source, kind in (("IIIT5K", "Regular Text Recognition"), ("HME100k", "Formulas"))
    ],
    "videomme": [
        {
            "video_id": "001",
            "duration": "short",
            "domain": "Knowledge",
            "sub_category": "Astronomy",
            "url": "",
            "videoID": "fFjv93ACGo8",
            "question_id": f"001-{i}",
            "task_type": "Counting Problem",
            "question": f"How many {i}?",
            "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."],
            "answer": "ABCD"[i],
        }
        for i in range(3)
    ],
    "charades_sta": [
        {"video": "3MSZA.mp4", "caption": "person turn a light on.", "timestamp": [24.3, 30.4]}
    ],
}
LOADERS = {
    "textvqa_val": load_textvqa,
    "chartqa": load_chartqa,
    "docvqa_val": load_docvqa,
    "ocrbench": load_ocrbench,
    "charades_sta": load_charades_sta,
    "videomme": load_videomme,
}


@pytest.fixture
def copy(tmp_path):
    """Writes a table in two shards, with the videos that it may ask about as folders of frames."""

    def write(name, *, drop=(), **change):
        rows = [{k: v for k, v in (row | change).items() if k not in drop} for row in TABLES[name]]
        (tmp_path / "data").mkdir()
        for number, some in enumerate((rows[:1], rows[1:])):
            if some:
                table = pyarrow.Table.from_pylist(some)
                parquet.write_table(table, tmp_path / f"data/test-0000{number}.parquet")
        for folder in ("data/fFjv93ACGo8", "Charades_v1_480/3MSZA"):
            (tmp_path / folder).mkdir(parents=True)
            for frame in range(2):
                Image.new("RGB", (32, 32)).save(tmp_path / folder / f"{frame}.png")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("name", "metrics", "groups", "right"),
    [
        ("textvqa_val", ["vqa"] * 4, 2, "Nokia"),
        ("chartqa", ["relaxed"] * 2, 1, None),
        ("docvqa_val", ["anls"], 1, ".28"),
        ("ocrbench", ["contains", "formula"], 1, "it is x"),
        ("videomme", ["choice"] * 3, 1, None),
        ("charades_sta", ["span_iou"], 1, "24.3-30.4"),
    ],
)
def test_tables_of_hubs_are_asked_whole(name, metrics, groups, right, copy):
    asked = open_benchmark(Benchmark(name=name, path=str(copy(name))))
    assert [question.metric for question in asked] == metrics
    assert len({question.group for question in asked}) == groups
    assert all(len(question.open(None)) == 1 for question in asked)
    for question in asked:
        assert question.grade(said(right or question.answers[0])) == 1.0


def test_a_picture_of_several_rows_is_held_once(copy):
    rows = load_textvqa(copy("textvqa_val"))
    assert len({id(row.pictures[0]) for row in rows}) == 2


def test_options_of_videos_are_named_by_their_letters_once(copy):
    first, *_ = open_benchmark(Benchmark(name="videomme", path=str(copy("videomme"))))
    assert first.text == "How many 0?\nA. One.\nB. Two.\nC. Three.\nD. Four."
    assert first.type == "short"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("textvqa_val", {"answers": None}, "answers is no list of at least 10"),
        ("textvqa_val", {"image": {"bytes": b"", "path": "x"}}, "its image holds no bytes"),
        ("videomme", {"answer": "E"}, r"answer 'E' \(A to D\)"),
        ("videomme", {"videoID": "none"}, "video none is not in data, videos"),
        ("videomme", {"options": ["A. One."]}, "options is no list of at least 4"),
        ("charades_sta", {"timestamp": "[3, 4"}, "timestamp is"),
    ],
)
def test_rows_of_tables_that_cannot_be_asked_are_named(name, change, message, copy):
    with pytest.raises(MresError, match=message):
        LOADERS[name](copy(name, **change))


@pytest.mark.parametrize("name", LOADERS)
def test_a_table_that_lacks_a_column_or_is_none_is_refused(name, copy):
    root = copy(name, drop=("question", "caption"))
    with pytest.raises(MresError, match=rf"{name} .*no columns (question|caption)"):
        LOADERS[name](root)
    for file in root.rglob("*.parquet"):
        file.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(MresError, match=f"{name} .*no parquet"):
        LOADERS[name](root)

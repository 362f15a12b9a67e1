"""Rows in parquet as Hugging Face writes them: the same rows as beside a folder; damage is told."""

import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.rows import open_rows, prepare_rows
from mres_jax.errors import MresError, RunError
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import tiny_spec, tiny_tokenizer
from mres_jax.testing.buckets import bucket

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.parity
TOKENIZER = tiny_tokenizer()
SPEC = tiny_spec(TOKENIZER)
NATIVE = parse_policy("native")


def picture(number):
    pixels = np.random.default_rng(number).integers(0, 256, (16 + number, 24, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return {"bytes": stream.getvalue(), "path": f"{number}.png"}


def messages(number):
    asked = [{"type": "image", "text": None}, {"type": "text", "text": f"what {number}"}]
    said = [{"type": "text", "text": "red"}]
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]


FORMS = {
    "messages": lambda i: {"id": f"r{i}", "images": [picture(i)], "messages": messages(i)},
    "texts": lambda i: {
        "id": f"r{i}",
        "images": [picture(i), picture(i + 1)],
        "texts": [{"user": f"what {i}", "assistant": "red"}, {"user": "is", "assistant": "x"}],
    },
    "question": lambda i: {
        "id": f"r{i}", "image": picture(i), "question": f"what {i}", "answers": ["red", "x"],
        "size": np.int32(i),
    },
    "llava": lambda i: {
        "id": f"r{i}",
        "image": picture(i),
        "conversations": [
            {"from": "human", "value": "<image>\nwhat"}, {"from": "gpt", "value": "x"},
        ],
    },
}  # fmt: skip


def write(rows: list[dict], path: pathlib.Path) -> pathlib.Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=8)
    return path


def opened(path, **kwargs):
    return open_rows(path, spec=SPEC, tokenizer=TOKENIZER, **kwargs)


def beside_a_folder(rows, folder):
    """The same rows as JSON with files."""
    folder.mkdir()

    def named(value):
        (folder / value["path"]).write_bytes(value["bytes"])
        return value["path"]

    plain = [
        {
            key: [named(each) for each in value] if key == "images"
            else named(value) if key == "image"
            else value.item() if isinstance(value, np.generic)
            else value
            for key, value in row.items()
        }
        for row in rows
    ]  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(plain))
    return folder / "rows.json"


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_parquet_are_those_of_json_with_files(form, tmp_path):
    rows = [FORMS[form](i) for i in range(20)]
    path = write(rows, tmp_path / "set.parquet")
    theirs = opened(beside_a_folder(rows, tmp_path / "files"))
    ours = opened(prepare_rows(opened(path, scan_only=True), tmp_path / "set").directory)
    np.testing.assert_array_equal(ours.measure(NATIVE).sizes, theirs.measure(NATIVE).sizes)
    for i in range(20):
        assert (ours.row(i).id, ours.row(i).turns) == (theirs.row(i).id, theirs.row(i).turns)
        one, other = ours.example(i, NATIVE), theirs.example(i, NATIVE)
        np.testing.assert_array_equal(one.patches, other.patches)
        np.testing.assert_array_equal(one.tokens, other.tokens)


def test_columns_have_our_names_by_a_mapping_and_files_are_one_set(tmp_path):
    (tmp_path / "in").mkdir()
    for part in (1, 0):
        rows = [{"img": picture(i), "query": f"what {i}", "label": "x"} for i in (part, part + 2)]
        write(rows, tmp_path / f"in/train-{part}.parquet")
    fields = {"image": "img", "question": "query", "answer": "label"}
    rows = opened(tmp_path / "in", scan_only=True, fields=fields)
    assert [found.content["question"] for found in rows.source.scan()] == [
        f"what {i}" for i in (0, 2, 1, 3)
    ]
    with pytest.raises(MresError, match="no column colour; it has img, query, label"):
        opened(tmp_path / "in", scan_only=True, fields={"answer": "colour"})
    with pytest.raises(MresError, match="Bring them into shards first: mres data prepare"):
        opened(tmp_path / "in")


def test_broken_rows_and_row_groups_are_counted(tmp_path):
    rows = [FORMS["question"](i) for i in range(24)]
    rows[0]["image"] = {"bytes": b"<html>", "path": "a.png"}
    rows[1]["image"] = {"bytes": None, "path": "gone.png"}
    rows[2]["answers"] = None
    path = write(rows, tmp_path / "set.parquet")
    counts = {"no answer": 1, "missing picture": 1, "bad picture": 1}
    kinds = {f.kind: f.count for f in opened(path, scan_only=True).index.summary.bad}
    assert kinds == counts
    content = bytearray(path.read_bytes())
    start = parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    summary = opened(path, scan_only=True).index.summary
    assert {f.kind: f.count for f in summary.bad} == counts | {"unreadable": 8}
    assert any("the 8 rows of group 1 (of 3) cannot be read" in f.first[0][1] for f in summary.bad)


def test_what_is_no_whole_file_is_one_line(tmp_path):
    path = write([FORMS["llava"](0)], tmp_path / "set.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(MresError, match=r"set\.parquet: no whole parquet file"):
        opened(path, scan_only=True)


def test_parquet_in_a_bucket_is_that_on_a_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "in").mkdir()
    for part in (1, 0):
        rows = [FORMS["question"](i) for i in range(9 * part, 9 * part + 9)]
        write(rows, tmp_path / f"in/train-{part}.parquet")
    with bucket() as store:
        store.upload_folder(tmp_path / "in", "gs://b/in")
        made = []
        for name, place in (("theirs", tmp_path / "in"), ("ours", "gs://b/in")):
            source = prepare_rows(opened(place, scan_only=True), tmp_path / name)
            made.append([source[i] for i in range(len(source))])
        assert made[0] == made[1]
        assert len(made[1]) == 18
        with pytest.raises(MresError, match="no column colour; it has id, image"):
            opened("gs://b/in", scan_only=True, fields={"answer": "colour"})
        store.pipe("gs://b/in/train-1.parquet", b"PAR1 and no more")
        with pytest.raises(MresError, match=r"gs://b/in/train-1\.parquet: no whole parquet file"):
            opened("gs://b/in", scan_only=True)
        whole, read = (tmp_path / "in/train-0.parquet").read_bytes(), store.open
        store.pipe("gs://b/in/train-1.parquet", whole)

        def broken(*args, **kwargs):
            raise TimeoutError("no answer")

        rows = opened("gs://b/in", scan_only=True)
        monkeypatch.setattr(type(read("gs://b/in/train-0.parquet")), "read", broken)
        with pytest.raises(RunError, match=r"train-0\.parquet: cannot be reached \(TimeoutError"):
            next(rows.source.scan())

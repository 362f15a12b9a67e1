"""Parquet files as pyarrow writes them: read like the same rows beside a folder; damage is told."""

import json
import pathlib

import pytest
from PIL import Image

from mres_jax.errors import MresError
from mres_jax.evaluation.rc_bench.annotations import open_source
from mres_jax.evaluation.rc_bench.building import build_set
from mres_jax.evaluation.rc_bench.cuts import Cuts

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.parity


@pytest.fixture
def rows(tmp_path) -> list[dict]:
    """As Hugging Face's `Image` feature stores them."""
    found = []
    for i in range(40):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (50 + 4 * i, 60), (6 * i, 0, 0)).save(path)
        image = {"bytes": path.read_bytes(), "path": path.name}
        found.append({"id": f"q{i}", "image": image, "question": "What?", "answers": [f"{i} kg"]})
    return found


def write(rows: list[dict], path: pathlib.Path) -> pathlib.Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=15)
    return path


def test_parquet_and_json_give_the_same_set(rows, tmp_path):
    sources = [open_source(write(rows, tmp_path / "set.parquet"))]
    listed = [{**row, "image": None, "images": [row["image"]]} for row in rows]
    sources.append(open_source(write(listed, tmp_path / "listed.parquet")))
    plain = [row | {"image": row["image"]["path"]} for row in rows]
    (tmp_path / "set.json").write_text(json.dumps(plain))
    sources.append(open_source(tmp_path / "set.json"))
    sets = [
        build_set(source, tmp_path / str(i), cuts=Cuts.of_unit(60), per_cell=None)
        for i, source in enumerate(sources)
    ]
    for same in zip(*sets, strict=True):
        assert len({content for _, content in same}) == 1
        first, *others = [{**item.to_dict(), "source": ""} for item, _ in same]
        assert others == [first, first]


def test_rows_about_one_picture_are_told_as_such(rows, tmp_path):
    about_one = [{**row, "image": rows[0]["image"]} for row in rows[:3]]
    source = open_source(write([*about_one, rows[3]], tmp_path / "set.parquet"))
    pictures = [row.picture for row in source.rows]
    assert pictures[0] == pictures[1] == pictures[2] != pictures[3]
    with pytest.raises(MresError, match="2 pictures"):
        build_set(source, tmp_path / "out", cuts=Cuts.of_unit(60), per_cell=1)


def test_shards_in_a_folder_are_one_set_in_their_order(rows, tmp_path):
    whole = open_source(write(rows, tmp_path / "set.parquet"))
    (tmp_path / "data").mkdir()
    for shard, (first, last) in enumerate(((0, 7), (7, 8), (8, 40))):
        write(rows[first:last], tmp_path / f"data/test-{shard:05}-of-00003.parquet")
    source = open_source(tmp_path / "data")
    assert source.rows == whole.rows
    for row in reversed(source.rows):
        assert source.picture(row) == whole.picture(row)
    sets = [
        build_set(each, tmp_path / str(i), cuts=Cuts.of_unit(60), per_cell=None)
        for i, each in enumerate((source, whole))
    ]
    assert all(one == other for one, other in zip(*sets, strict=True))
    write([{"image": rows[0]["image"]}], tmp_path / "data/test-00001-of-00003.parquet")
    with pytest.raises(
        MresError, match=r"00001-of-00003\.parquet: no column for question, answers"
    ):
        open_source(tmp_path / "data")


def test_broken_rows_are_counted(rows, tmp_path):
    rows[0]["image"] = None
    rows[1]["image"] = {"bytes": b"<html>", "path": "a.png"}
    rows[2]["answers"] = None
    rows[3]["question"] = " "
    rows[4]["id"] = "q5"
    source = open_source(write(rows, tmp_path / "set.parquet"))
    assert len(source.rows) == 35
    assert {finding.kind: finding.count for finding in source.bad} == {
        "missing picture": 1,
        "bad picture": 1,
        "no answer": 1,
        "unknown form": 1,
        "duplicate id": 1,
    }
    with pytest.raises(MresError, match=r"1 unknown form \(first: q3\), 1 no answer \(first: q2\)"):
        build_set(source, tmp_path / "set", cuts=Cuts(), per_cell=None)


def test_a_damaged_file_is_one_line(rows, tmp_path):
    path = write(rows, tmp_path / "set.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(MresError, match=r"no whole parquet file"):
        open_source(path)
    path.write_bytes(b"")
    with pytest.raises(MresError, match=r"no whole parquet file"):
        open_source(path)
    path.write_bytes(whole[:4] + bytes(500) + whole[504:])
    with pytest.raises(MresError, match=r"the 15 rows of group 0 \(of 3\) cannot be read"):
        open_source(path)


def test_missing_columns_are_named(rows, tmp_path):
    for row in rows:
        row["text"] = row.pop("question")
    with pytest.raises(MresError, match=r"no column for question; it has .*text"):
        open_source(write(rows, tmp_path / "set.parquet"))

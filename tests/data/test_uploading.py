"""Rows prepared at an address: written here whole, then uploaded, the card last."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from mres_jax.cli import main
from mres_jax.data.rows import open_rows, prepare_rows
from mres_jax.errors import MresError, RunError
from mres_jax.testing import buckets, tiny_spec, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
SPEC = tiny_spec(TOKENIZER)
PLACE = "gs://b/deep/set"


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    draw, rows = np.random.default_rng(0), []
    for i in range(5):
        Image.fromarray(draw.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / f"{i}.png")
        rows.append({"id": f"r{i}", "images": [f"{i}.png"], "question": "what", "answer": "red"})
    rows[2]["answer"] = ""
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return tmp_path / "rows.json"


def opened(path, **kwargs):
    return open_rows(path, spec=SPEC, tokenizer=TOKENIZER, **kwargs)


def prepared(source, target, **kwargs):
    return prepare_rows(opened(source), target, shard_bytes=6_000, **kwargs)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.parent.name != "index"
    }


def uploaded(bucket) -> dict[str, bytes]:
    names = (name.removeprefix("/b/deep/set/") for name in bucket.find(PLACE))
    return {name: bucket.cat(f"{PLACE}/{name}") for name in names if "index/" not in name}


def test_what_is_prepared_there_is_what_is_prepared_here(source, bucket, tmp_path):
    lines: list[str] = []
    made = prepared(source, PLACE, log=lines.append)
    here = prepared(source, tmp_path / "set")
    assert uploaded(bucket) == contents(here.directory)
    assert [made[i] for i in range(len(made))] == [here[i] for i in range(len(here))]
    heard: list[str] = []
    assert len(opened(PLACE, index="refuse", log=heard.append)) == 4
    name = PLACE.rpartition("/")[2]
    assert heard[0].startswith(f"{name}: 4 rows")  # not of the folder that it was made in
    last = [line for line in lines if "uploaded" in line][-1]
    assert last.startswith(f"{PLACE}/card.json: ")
    assert not [file for file in (tmp_path / "cache/mres/prepared").rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (0, "no such file"),
        (1, "is a directory; name the file"),
        (3, "has shards but no card.json: it is not whole"),
        (4, "has shards but no card.json: it is not whole"),
    ],
)
def test_a_killed_upload_leaves_nothing_that_looks_whole(source, bucket, monkeypatch, files, said):
    put, count = buckets.Bucket.put_file, 0

    def killed(self, *args, **kwargs):
        nonlocal count
        count += 1
        if count > files:
            raise KeyboardInterrupt
        return put(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(buckets.Bucket, "put_file", killed)
        with pytest.raises(KeyboardInterrupt):
            prepared(source, PLACE)
    with pytest.raises(MresError, match=said):
        opened(PLACE)
    written: list[str] = []
    prepared(source, PLACE, log=written.append)
    assert not [line for line in written if " rows, " in line]  # nothing but the upload again
    assert len(opened(PLACE, index="refuse")) == 4


def test_an_address_of_something_else_is_left_alone(source, bucket, capsys):
    bucket.pipe(f"{PLACE}/mine.txt", b"mine")
    with pytest.raises(
        MresError, match=rf"prepare {PLACE}: the directory is not empty \(mine\.txt"
    ):
        prepared(source, PLACE)
    bucket.rm(f"{PLACE}/mine.txt")
    assert main(["data", "prepare", str(source), PLACE]) == 0
    assert main(["data", "prepare", str(source), PLACE]) == 2
    assert f"prepare {PLACE}: is prepared already" in capsys.readouterr().err


def test_an_address_that_refuses_is_one_line_and_the_work_is_kept(source, bucket, monkeypatch):
    def refused(self, *args, **kwargs):
        raise PermissionError("403 no storage.objects.create")

    with monkeypatch.context() as patch:
        patch.setattr(buckets.Bucket, "put_file", refused)
        with pytest.raises(RunError, match=rf"{PLACE}: cannot be reached \(PermissionError: 403"):
            prepared(source, PLACE)
    lines: list[str] = []
    prepared(source, PLACE, log=lines.append)
    assert not [line for line in lines if " rows, " in line]

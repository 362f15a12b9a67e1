"""Rows in a bucket are those on a disk. The bucket is fsspec's, in memory."""

import json
import pickle

import numpy as np
import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from mres_jax.data.rows import open_rows, prepare_rows
from mres_jax.errors import BadRowError, MresError
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import tiny_spec, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
SPEC = tiny_spec(TOKENIZER)
NATIVE = parse_policy("native")


class Bucket(MemoryFileSystem):
    """What `gs://` is in these tests."""

    protocol = ("gcs", "gs")
    store = {}  # noqa: RUF012, as the parent has it
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(str(path).removeprefix("gs:/").removeprefix("/"))


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(type(backend.fsspec_backend), "fs", lambda self, path: Bucket())
    yield Bucket()
    Bucket.store.clear()


@pytest.fixture
def folder(tmp_path, bucket):
    """Rows on a disk, and the same in the bucket."""
    folder = tmp_path / "set"
    (folder / "shots").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name, height in (("a.png", 16), ("b.jpg", 40), ("shots/10.png", 24), ("shots/9.png", 24)):
        Image.fromarray(draw.integers(0, 256, (height, 24, 3), np.uint8)).save(folder / name)
    said = {"question": "what is the total", "answer": "red"}
    rows = [
        {"id": "a", "images": ["a.png", "b.jpg"], **said},
        {"id": "up", "images": ["../a.png"], **said},
        {"id": "gone", "images": ["gone.png"], **said},
        {"id": "text", **said},
        {"id": "no clip", "video": "gone.mkv", **said},
        {"id": "b", "images": ["b.jpg"], **said},
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for file in folder.rglob("*.*"):
        bucket.pipe(f"gs://b/set/{file.relative_to(folder)}", file.read_bytes())
    return folder


def opened(path, **kwargs):
    return open_rows(path, spec=SPEC, tokenizer=TOKENIZER, **kwargs)


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_rows_in_a_bucket_are_those_on_a_disk(folder, tmp_path, name):
    theirs, ours = opened(folder / name), opened(f"gs://b/set/{name}")
    assert [(f.kind, f.names) for f in ours.index.summary.bad] == [
        (f.kind, f.names) for f in theirs.index.summary.bad
    ]
    assert len(ours) == 3
    assert len(opened(f"gs://b/set/{name}", index="refuse")) == 3
    shards = opened(prepare_rows(ours, tmp_path / "shards").directory)
    for rows in (ours, shards, pickle.loads(pickle.dumps(ours))):
        np.testing.assert_array_equal(rows.measure(NATIVE).sizes, theirs.measure(NATIVE).sizes)
        for i in range(3):
            assert rows.row(i) == theirs.row(i)
            one, other = rows.example(i, NATIVE), theirs.example(i, NATIVE)
            np.testing.assert_array_equal(one.patches, other.patches)


def test_pictures_may_be_elsewhere_and_frames_are_in_order(folder, bucket):
    row = {"id": "c", "video": "shots", "question": "what", "answer": "x"}
    bucket.pipe("gs://b/other/rows.jsonl", json.dumps(row).encode())
    rows = opened("gs://b/other/rows.jsonl", images="gs://b/set")
    assert rows.source.files.frames_in("shots") == ["9.png", "10.png"]
    assert rows.index.is_clip.tolist() == [True]
    bucket.rm("gs://b/set/shots/9.png")
    with pytest.raises(BadRowError, match="1 frame"):
        rows.images(0)


def test_what_is_not_there_is_one_line(folder):
    with pytest.raises(MresError, match=r"rows gs://b/set/gone\.json: no such file"):
        opened("gs://b/set/gone.json")
    with pytest.raises(MresError, match=r"only \.json and \.jsonl are read from a bucket"):
        opened("gs://b/set")


def test_a_bucket_that_cannot_be_reached_is_one_line(monkeypatch):
    def without(self, path):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(type(backend.fsspec_backend), "fs", without)
    with pytest.raises(MresError, match=r"gs://b/x\.json: cannot be reached \(ImportError: Please"):
        opened("gs://b/x.json")

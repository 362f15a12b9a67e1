"""Rows in a bucket are those on a disk. The bucket is fsspec's, in memory."""

import gzip
import io
import json
import os
import pickle
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.rows import open_rows, prepare_rows
from mres_jax.data.rows.sources.addresses import Address
from mres_jax.errors import BadRowError, MresError, RunError
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import buckets, tiny_spec, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
SPEC = tiny_spec(TOKENIZER)
NATIVE = parse_policy("native")


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
    bucket.upload_folder(folder, "gs://b/set")
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


def test_pictures_on_a_disk_may_belong_to_rows_in_a_bucket(folder):
    rows = opened("gs://b/set/rows.json", images=str(folder))
    assert rows.row(0) == opened(folder / "rows.json").row(0)
    with pytest.raises(MresError, match="the picture folder nowhere is no directory"):
        opened("gs://b/set/rows.json", images="nowhere")


def test_what_is_not_there_is_one_line(folder):
    with pytest.raises(MresError, match=r"rows gs://b/set/gone\.json: no such file"):
        opened("gs://b/set/gone.json")
    with pytest.raises(MresError, match=r"gs://b/set: is a directory; name the file of rows in it"):
        opened("gs://b/set")


def test_an_index_is_made_again_only_for_other_contents(folder, bucket):
    path, lines = "gs://b/set/rows.json", []
    opened(path)
    bucket.pipe(path, (folder / "rows.json").read_bytes())  # another version of the same bytes
    assert len(opened(path, index="refuse")) == 3
    bucket.pipe(path, (folder / "rows.json").read_bytes().replace(b"red", b"rad"))
    assert opened(path, log=lines.append).row(0).turns[-1] == ("assistant", "rad")
    assert any("whose contents changed; it is made again" in line for line in lines)


def tar_of(folder, names) -> bytes:
    """Pictures of the folder with captions."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in names:
            for suffix, content in (("png", (folder / name).read_bytes()), ("txt", b"red")):
                info = tarfile.TarInfo(f"{name[:-4]}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def tars(folder, bucket):
    """Two tar files on a disk, and the same in the bucket."""
    (folder / "tars").mkdir()
    for number, names in enumerate((["a.png"], ["shots/9.png", "shots/10.png"])):
        (folder / f"tars/{number}.tar").write_bytes(tar_of(folder, names))
    bucket.upload_folder(folder / "tars", "gs://b/tars")
    return folder / "tars"


@pytest.mark.parametrize("name", ["", "/1.tar"])
def test_tar_files_in_a_bucket_are_prepared_as_those_on_a_disk(tars, tmp_path, name):
    made = []
    for number, place in enumerate((f"{tars}{name}", f"gs://b/tars{name}")):
        rows = opened(place, scan_only=True)
        source = prepare_rows(rows, tmp_path / f"shards-{number}")
        made.append([source[i] for i in range(len(source))])
    assert made[0] == made[1]
    assert len(made[0]) == (2 if name else 3)
    with pytest.raises(
        MresError, match="Bring them into shards first: mres data prepare gs://b/ta"
    ):
        opened(f"gs://b/tars{name}")


def test_what_changes_while_it_is_read_is_told(tars, bucket, monkeypatch):
    """The same bytes, so that nothing but the version of the file tells."""
    rows = opened("gs://b/tars", scan_only=True).source
    seen = rows.facts()
    assert seen["bytes"] == sum(file.stat().st_size for file in tars.iterdir())
    assert rows.digest() == seen["versions"]
    scan = type(rows).scan

    def replaced(self):
        yield from scan(self)
        bucket.pipe("gs://b/tars/0.tar", (tars / "0.tar").read_bytes())

    monkeypatch.setattr(type(rows), "scan", replaced)
    with pytest.raises(MresError, match=r"rows gs://b/tars: the file changed while it was read"):
        opened("gs://b/tars", scan_only=True, index="rebuild")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("member", [1, 2])
def test_a_tar_file_that_is_cut_off_in_a_bucket_is_one_line(tars, bucket, member, pack):
    """Inside of a member, in a header, and between two rows."""
    with tarfile.open(tars / "1.tar") as tar:
        start = tar.getmembers()[member].offset
    for keep in (start - 100, start + 100, start):
        bucket.pipe("gs://b/tars/1.tar", pack((tars / "1.tar").read_bytes()[:keep]))
        with pytest.raises(MresError, match=r"rows gs://b/tars/1\.tar: no whole tar file"):
            opened("gs://b/tars", scan_only=True)


def test_a_bucket_that_cannot_be_reached_is_one_line():
    with pytest.raises(
        MresError, match=r"gs://b/x\.json: cannot be reached \(ImportError: .*gcsfs"
    ):
        opened("gs://b/x.json")
    with pytest.raises(
        MresError, match=r"abc://b/x: cannot be reached \(ValueError: Protocol not k"
    ):
        opened("abc://b/x")


def test_a_bucket_that_breaks_off_is_one_line(tars, bucket, monkeypatch):
    """While a tar file is read, and while a picture is."""

    def broken(*args, **kwargs):
        raise TimeoutError("no answer\nfor 60 s")

    rows = opened("gs://b/set/rows.json")
    reader = Address("gs://b/tars/0.tar").open()
    monkeypatch.setattr(reader._file, "read", broken)
    with pytest.raises(RunError, match=r"0\.tar: cannot be reached \(TimeoutError: no answer.for"):
        reader.read(10)
    monkeypatch.setattr(buckets.Bucket, "cat_file", broken)
    with pytest.raises(RunError, match=r"gs://b/set/rows\.json: cannot be reached"):
        rows.example(0, NATIVE)


def test_an_address_is_a_path(folder, bucket):
    place = Address("gs://b/set/")
    assert (str(place), os.fspath(place), place.name) == ("gs://b/set", "gs://b/set", "set")
    assert str((place / "a.png").parent) == "gs://b/set"
    assert list(place.listing()) == ["a.png", "b.jpg", "rows.json", "rows.jsonl"]
    assert Address("gs://b/gone").listing() == {}
    content = (folder / "a.png").read_bytes()
    assert place.listing()["a.png"] == (place / "a.png").stat().size == len(content)
    assert (place / "a.png").read_bytes(3, 9) == content[3:9]
    with (place / "a.png").open() as file:
        assert file.seek(-4, os.SEEK_END) == len(content) - 4
        assert (file.read(), file.seek(2), file.seek(3, os.SEEK_CUR)) == (content[-4:], 2, 5)
        assert (file.read(2), file.tell()) == (content[5:7], 7)
        with (place / "a.png").open() as other:  # of the same object, in this store
            assert (other.read(3), file.read(2), other.read(2)) == (
                content[:3],
                content[7:9],
                content[3:5],
            )


def test_what_parquet_needs_is_told(folder, bucket, monkeypatch):
    bucket.pipe("gs://b/rows.parquet", b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)  # as where it is not installed
    with pytest.raises(MresError, match=r"gs://b/rows\.parquet: parquet needs pyarrow\. pip inst"):
        opened("gs://b/rows.parquet", scan_only=True)

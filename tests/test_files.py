"""Result files appear together or not at all; shards that tell their count are all there."""

import errno
import pathlib

import pytest

from mres_jax.data.rows.sources import open_source
from mres_jax.errors import MresError, RunError
from mres_jax.evaluation.benchmarks.charades_sta import load_charades_sta
from mres_jax.evaluation.benchmarks.chartqa import load_chartqa
from mres_jax.evaluation.benchmarks.docvqa import load_docvqa
from mres_jax.evaluation.benchmarks.ocrbench import load_ocrbench
from mres_jax.evaluation.benchmarks.textvqa import load_textvqa
from mres_jax.evaluation.benchmarks.videomme import load_videomme
from mres_jax.evaluation.rc_bench.annotations import open_source as open_annotated
from mres_jax.files import check_shards, disk_reason, write_together


def test_files_are_written_and_older_ones_of_the_name_replaced(tmp_path):
    write_together(tmp_path / "out", {"a": b"1", "b": b"2"})
    paths = write_together(tmp_path / "out", {"b": b"3"})
    assert paths == [tmp_path / "out" / "b"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        "a": b"1",
        "b": b"3",
    }


def test_a_failure_leaves_the_directory_as_it_was(tmp_path, monkeypatch):
    write_together(tmp_path, {"a": b"old"})
    write = pathlib.Path.write_bytes

    def full(path, content):
        if "b" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"no space left on device\. Free space"):
        write_together(tmp_path, {"a": b"new", "b": b"new"})
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_kind_of_full_disk_has_its_cure(number):
    reason = disk_reason(OSError(number, "Full of quota"))
    assert reason == "full of quota. Free space or choose another disk"
    assert disk_reason(OSError(errno.EACCES, "Not over quota")) == "not over quota"


def test_a_directory_that_is_a_file_is_bad_input(tmp_path):
    (tmp_path / "x").write_text("")
    for directory in (tmp_path / "x", tmp_path / "x" / "y"):
        with pytest.raises(MresError, match="x is a file; name a directory"):
            write_together(directory, {"a": b""})


@pytest.mark.parametrize("path", ["gs://bucket/x", pathlib.Path("s3://bucket/x")])
def test_a_bucket_is_no_directory_of_this_machine(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MresError, match="bucket/x: is an address; name a directory"):
        write_together(path, {"a": b""})
    assert not list(tmp_path.iterdir())


READERS = {
    "rows": open_source,
    "rcbench": open_annotated,
    "textvqa_val": load_textvqa,
    "chartqa": load_chartqa,
    "docvqa_val": load_docvqa,
    "ocrbench": load_ocrbench,
    "videomme": load_videomme,
    "charades_sta": load_charades_sta,
}


@pytest.mark.parametrize("name", READERS)
def test_a_folder_of_shards_is_read_whole_or_not_at_all(name, tmp_path):
    for number in (0, 2):
        (tmp_path / f"train-{number:05}-of-00003.parquet").touch()
    with pytest.raises(MresError) as caught:
        READERS[name](tmp_path)
    assert str(caught.value) == (
        f"{name} {tmp_path}: 1 of 3 shards missing (train-00001-of-00003.parquet). "
        "Copy them there, or name a single file."
    )
    (tmp_path / "train-00001-of-00003.parquet").touch()
    with pytest.raises(MresError) as caught:
        READERS[name](tmp_path)
    assert "shards missing" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["a/train-00002-of-00003.tar.gz"], "2 of 3 shards missing (train-00000-of-00003.tar.gz, "),
        (["t-0-of-9.tar"], "8 of 9 shards missing (t-1-of-9.tar, t-2-of-9.tar, t-3-of-9.tar, ..."),
        (["a/t-1-of-2.tar", "b/t-0-of-2.tar"], "2 of 4 shards missing (t-0-of-2.tar, t-1-of-2."),
        (["t-0-of-1.parquet", "v-1-of-3.parquet"], "2 of 4 shards missing (v-0-of-3.parquet, v-2-"),
        (["t-0-of-2-0a1b.parquet"], "1 of 2 shards missing (t-1-of-2-*.parquet)"),
        (["t-0-of-2-0a.parquet", "t-1-of-2-ff.parquet"], None),
        (["t-1-of-2.parquet", "t-2-of-2.parquet"], None),
        (["t-2-of-2.parquet"], "1 of 2 shards missing (t-1-of-2.parquet)"),
        (["0000.parquet", "0002.parquet", "a-of-b.parquet", "train-7.tar"], None),
    ],
)  # fmt: skip
def test_what_is_missing_of_shards_is_counted_and_named(names, missing):
    if missing is None:
        return check_shards(names, what="rows x")
    with pytest.raises(MresError) as caught:
        check_shards(names, what="rows x")
    assert str(caught.value).startswith(f"rows x: {missing}")

"""Result files appear together or not at all."""

import errno
import pathlib

import pytest

from mres_jax.errors import MresError, RunError
from mres_jax.files import disk_reason, write_together


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

"""Prepared rows in a bucket: those of the disk, fetched once, whole or not at all."""

import errno
import fcntl
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.packing import pack, plan_packs
from mres_jax.data.rows import open_rows, prepare_rows
from mres_jax.data.rows.sources import fetching
from mres_jax.data.rows.sources.addresses import Address
from mres_jax.data.rows.sources.fetched import FetchedRows
from mres_jax.data.types import Rung
from mres_jax.errors import MresError, RunError
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import buckets, tiny_spec, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
SPEC = tiny_spec(TOKENIZER)
NATIVE = parse_policy("native")
RUNG = Rung(max_patches=512, max_tokens=768, max_views=32, max_examples=8)
PLACE = "gs://b/set"
COUNT = 12  # rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> pathlib.Path:
    """Prepared rows on a disk, in some shards."""
    folder = tmp_path_factory.mktemp("rows")
    draw, rows = np.random.default_rng(0), []
    for i in range(COUNT):
        Image.fromarray(draw.integers(0, 256, (16 + i, 40 - i, 3), np.uint8)).save(
            folder / f"{i}.png"
        )
        rows.append({"id": f"r{i}", "images": [f"{i}.png"], "question": "what", "answer": "red"})
    (folder / "rows.json").write_text(json.dumps(rows))
    made = prepare_rows(opened(folder / "rows.json"), folder / "set", shard_bytes=6_000)
    assert len(made.shards) > 3
    return made.directory


@pytest.fixture
def cache(monkeypatch, tmp_path) -> pathlib.Path:
    """The folder of copies, which is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/mres/shards"


@pytest.fixture
def bucket(whole, cache) -> Iterator[buckets.Bucket]:
    with buckets.bucket() as bucket:
        bucket.upload_folder(whole, PLACE)
        yield bucket


def opened(path, **kwargs):
    return open_rows(path, spec=SPEC, tokenizer=TOKENIZER, **kwargs)


def copies(cache) -> list[str]:
    """Names of the shards that stand in the cache, scratch files too, but no locks."""
    found = [file.name for file in cache.rglob("*") if "rows-" in file.name]
    return sorted(name for name in found if not name.endswith(".lock"))


def names_of(whole) -> list[str]:
    return sorted(file.name for file in whole.glob("rows-*"))


@pytest.mark.parametrize("policy", ["native", "budget:12", "fixed:16"])
def test_plans_and_packs_are_those_of_the_disk_bit_for_bit(whole, bucket, policy):
    to_views, ours, theirs = parse_policy(policy), opened(PLACE), opened(whole)
    sizes = [rows.measure(to_views).sizes for rows in (ours, theirs)]
    np.testing.assert_array_equal(*sizes)
    plans = plan_packs(sizes[0], [RUNG])
    assert plans == plan_packs(sizes[1], [RUNG])
    for plan in plans:
        one, other = (
            pack([rows.example(i, to_views) for i in plan.indices], RUNG)._asdict()
            for rows in (ours, theirs)
        )
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_what_is_planned_needs_no_shard_and_what_is_read_needs_its_own(whole, bucket, cache):
    lines: list[str] = []
    rows = opened(PLACE, index="refuse", log=lines.append)
    assert rows.measure(NATIVE).sizes.shape == (COUNT, 3)
    assert not copies(cache)
    rows.example(COUNT - 1, NATIVE)
    assert copies(cache) == names_of(whole)[-1:]
    assert [line for line in lines if "now in" in line] == [
        f"{PLACE}/{names_of(whole)[-1]}: 0.1 MB, now in {rows.source.directory}"
    ]


def test_shards_are_fetched_once_and_then_need_no_bucket(whole, bucket, cache):
    lines: list[str] = []
    rows = opened(PLACE, log=lines.append)
    rows.source.fetch()
    fetched = sorted(line.split(": ")[0] for line in lines if "now in" in line)
    assert fetched == [f"{PLACE}/{name}" for name in names_of(whole)]
    size = sum((whole / name).stat().st_size for name in names_of(whole)) / 1e6
    told = f"rows {PLACE}: files to fetch: {len(fetched)}, {size:,.1f} MB"
    assert lines.index(told) < min(lines.index(line) for line in lines if "now in" in line)
    assert copies(cache) == names_of(whole)
    again = opened(PLACE, log=lines.append)
    again.source.fetch()
    assert len([line for line in lines if "now in" in line]) == len(fetched)
    assert lines.count(told) == 1
    bucket.rm(PLACE, recursive=True)
    sent = pickle.loads(pickle.dumps(again))
    for name in names_of(whole):
        assert (again.source.directory / name).read_bytes() == (whole / name).read_bytes()
    for i in range(COUNT):
        assert sent.row(i) == opened(whole).row(i)


def test_another_tokenizers_index_is_made_from_the_shards_and_kept_here(whole, bucket, cache):
    other = {"pictures_first": False}
    for file in (whole / "index").iterdir():
        assert (len(list(cache.rglob(file.name)))) == 0
    rows = opened(PLACE, **other)
    assert copies(cache) == names_of(whole)
    kept = opened(PLACE, index="refuse", **other).index
    np.testing.assert_array_equal(kept.lengths, rows.index.lengths)
    assert len(bucket.ls(f"{PLACE}/index", detail=False)) == 1


def test_what_is_prepared_anew_is_fetched_anew(whole, bucket, cache, tmp_path):
    """Also where names, counts and lengths are those of before."""
    before = opened(PLACE)
    before.source.fetch()
    folder = whole.parent
    content = (folder / "rows.json").read_text()
    (tmp_path / "rows.json").write_text(content.replace("red", "rad"))
    rows = opened(tmp_path / "rows.json", images=folder)
    made = prepare_rows(rows, tmp_path / "set", shard_bytes=6_000)
    assert [shard[:3] for shard in made.shards] == [shard[:3] for shard in before.source.shards]
    bucket.upload_folder(made.directory, PLACE)
    after = opened(PLACE)
    assert after.row(0).turns[-1] == ("assistant", "rad")
    assert after.source.directory != before.source.directory


def test_a_set_that_is_not_whole_is_refused_by_name(whole, bucket, cache):
    name = names_of(whole)[1]
    bucket.pipe(f"{PLACE}/{name}", (whole / name).read_bytes()[:-9])
    with pytest.raises(MresError, match=rf"rows {PLACE}: {name} has [\d,]+ of [\d,]+ bytes\. Copy"):
        opened(PLACE)
    bucket.rm(f"{PLACE}/{name}")
    with pytest.raises(MresError, match=rf"rows {PLACE}: {name} is missing\. Copy the directory"):
        opened(PLACE)
    bucket.rm(f"{PLACE}/card.json")
    bucket.pipe(f"{PLACE}/begun.json", b"{}")
    with pytest.raises(MresError, match=rf"rows {PLACE}: was not finished"):
        opened(PLACE)


def test_a_card_without_checksums_is_refused(whole, bucket):
    card = json.loads((whole / "card.json").read_text())
    for shard in card["shards"]:
        del shard["crc32"]
    bucket.pipe(f"{PLACE}/card.json", json.dumps(card).encode())
    with pytest.raises(MresError, match=r"card\.json has no checksums of the shards.*Prepare the"):
        opened(PLACE)


def test_a_damaged_object_is_refused_by_name_and_leaves_nothing(whole, bucket, cache):
    name, rows = names_of(whole)[1], opened(PLACE)
    content = bytearray((whole / name).read_bytes())
    content[len(content) // 2] ^= 1
    for damaged, message in (
        (bytes(content), rf"{name} is damaged: its CRC-32 is [0-9a-f]{{8}}, but [0-9a-f]{{8}} on"),
        (bytes(content[:-1]), rf"{name} has [\d,]+ of [\d,]+ bytes"),
        (bytes(content) + b"x", rf"{name} has more than [\d,]+ bytes"),
    ):
        bucket.pipe(f"{PLACE}/{name}", damaged)
        with pytest.raises(MresError, match=f"rows {PLACE}: {message}"):
            rows.source.fetch()
        assert name not in " ".join(copies(cache))
    bucket.rm(f"{PLACE}/{name}")
    with pytest.raises(MresError, match=f"rows {PLACE}: {name} is missing"):
        rows.source.fetch()
    bucket.pipe(f"{PLACE}/{name}", (whole / name).read_bytes())
    rows.source.fetch()
    assert copies(cache) == names_of(whole)


def test_a_full_disk_is_one_line_with_its_numbers(whole, bucket, cache, monkeypatch):
    rows = opened(PLACE)
    size = sum((whole / name).stat().st_size for name in names_of(whole))
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(whole)._replace(free=99)
        patch.setattr(fetching.shutil, "disk_usage", lambda path: usage)
        message = rf"rows {PLACE}: {size:,} bytes are to be kept in .*, which has 99 free\. Set XDG"
        with pytest.raises(RunError, match=message):
            rows.source.fetch()

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetching.os, "fsync", full)
    with pytest.raises(
        RunError, match=r"rows-\d+\.array_record: cannot be kept in .*: no space le"
    ):
        rows.source.fetch()
    assert not copies(cache)


def test_a_bucket_that_breaks_off_leaves_nothing(bucket, cache, monkeypatch):
    rows, blocks = opened(PLACE), fetching._blocks

    def broken(source):
        yield next(blocks(source))
        raise RunError(f"rows {source}: cannot be reached")

    monkeypatch.setattr(fetching, "_blocks", broken)
    with pytest.raises(RunError, match=r"rows-0.*cannot be reached"):
        rows.source.fetch()
    assert not copies(cache)


FETCH = """
import os, sys
from mres_jax.data.rows.sources import fetching
from mres_jax.data.rows.sources.addresses import Address
from mres_jax.data.rows.sources.fetched import FetchedRows

def killed(source):
    with source.open() as file:
        yield file.read(100)
    os.write(1, b"killed\\n")
    os._exit(9)

rows = FetchedRows(Address(sys.argv[1]), lambda line: os.write(1, f"{line}\\n".encode()))
if sys.argv[2:]:
    fetching._blocks = killed
sys.stdin.readline()  # all begin together
rows.fetch()
"""


def fetching_processes(whole, words) -> list[list[str]]:
    """Lines of processes that fetch the same set at a time, but for what they begin with."""
    run = [sys.executable, "-c", FETCH, whole.as_uri()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*run, *each], **pipes) for each in words]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=300)[0].splitlines() for process in processes]
    return [[line for line in lines if "files to fetch" not in line] for lines in told]


def test_a_killed_fetch_leaves_nothing_whole_and_processes_fetch_once(whole, cache):
    """By the address of a folder, which other processes can reach too."""
    (lines,) = fetching_processes(whole, [["killed"]])
    assert set(lines) == {"killed"}
    assert copies(cache)
    assert all(name.startswith(".") for name in copies(cache))
    lines = fetching_processes(whole, [[], []])
    fetched = sorted(line.split(": ")[0] for each in lines for line in each)
    assert fetched == [(whole / name).as_uri() for name in names_of(whole)]
    assert copies(cache) == names_of(whole)
    rows = FetchedRows(Address(whole.as_uri()))
    assert [rows[i] for i in range(COUNT)] == [opened(whole).source[i] for i in range(COUNT)]


def test_the_lock_of_a_copy_is_waited_for(whole, bucket, cache):
    """Another process that has it may have brought the file meanwhile."""
    rows, name = opened(PLACE), names_of(whole)[0]
    lock = rows.source.directory / f".{name}.lock"
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(lambda: rows.source[0])
            with pytest.raises(TimeoutError):
                asked.result(timeout=0.3)
            shutil.copy(whole / name, rows.source.directory / name)
            bucket.rm(f"{PLACE}/{name}")
            fcntl.flock(file, fcntl.LOCK_UN)
            assert asked.result(timeout=60) == opened(whole).source[0]


def test_a_copy_that_was_cut_off_is_fetched_again(whole, bucket, cache):
    rows, name = opened(PLACE), names_of(whole)[0]
    rows.source.fetch()
    os.truncate(rows.source.directory / name, 10)
    assert opened(PLACE).row(0) == opened(whole).row(0)

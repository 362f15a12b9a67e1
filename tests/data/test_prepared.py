"""Prepared shards: the same rows as their source, whole or not there, and told when damaged."""

import base64
import dataclasses
import fcntl
import json
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.packing import pack, plan_packs
from mres_jax.data.rows import open_rows, prepare_rows, shards, size_histogram
from mres_jax.data.rows.sources import prepared as sources_prepared
from mres_jax.data.rows.sources.prepared import PreparedRows
from mres_jax.data.rows.sources.records import pack_record, unpack_record
from mres_jax.data.rows.types import Fault
from mres_jax.data.types import Rung
from mres_jax.errors import BadRowError, MresError, RunError
from mres_jax.models.registry import FAMILIES
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import tiny_clip, tiny_config, tiny_tokenizer
from mres_jax.testing.clips import write_video
from mres_jax.testing.tiny import LIMITS

pytest.importorskip("av", reason="PyAV reads video files")
TOKENIZER = tiny_tokenizer()
SPEC = FAMILIES["qwen2_vl"].make_spec(
    tiny_config("qwen2_vl", TOKENIZER), TOKENIZER.token_id, preprocessor=LIMITS
)
RUNG = Rung(max_patches=512, max_tokens=768, max_views=32, max_examples=8)
NATIVE = parse_policy("native")
SMALL = 4_000  # bytes of a shard


def row(name, value, **named):
    turns = [{"from": "human", "value": value}, {"from": "gpt", "value": "red"}]
    return {"conversations": turns} | ({} if name is None else {"id": name}) | named


def name_of(i):
    return f"{i}.{'png' if i % 2 else 'jpg'}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Pictures of many sizes, a video, a folder of frames, and rows about them, bad ones too."""
    folder = tmp_path_factory.mktemp("rows")
    draw = np.random.default_rng(0)
    for i in range(8):
        pixels = draw.integers(0, 256, (16 + 5 * i, 40 - 3 * i, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name_of(i))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(folder / "turned.jpg", exif=exif)
    shutil.copy(folder / "1.png", folder / "wrong.jpg")
    write_video(folder / "clip.mkv", tiny_clip(0, 24, 40, frames=20).frames)
    (folder / "shots").mkdir()
    for i, frame in zip((1, 2, 10), tiny_clip(2, 32, 16, frames=3).frames, strict=True):
        Image.fromarray(frame).save(folder / f"shots/{i}.png")
    held = base64.b64encode((folder / "3.png").read_bytes()).decode()
    rows = [
        row("gone", "<image>\nwhat", image="gone.jpg"),
        *(row(f"p{i}", "<image>\nwhat", image=name_of(i)) for i in range(8)),
        row(None, "<image> or <image>", image=["turned.jpg", "wrong.jpg"]),
        row("text", "what is the total"),
        row("silent", " "),
        row("file", "<video>\nwhat", video="clip.mkv"),
        row("folder", "<video>\nwhat", video="shots"),
        row("frames", "what", frames=["shots/10.png", "shots/1.png"], fps=0.5),
        row("both", "<image> is <video>", video="clip.mkv", images=["0.jpg"]),
        {"id": 7, "question": "what", "answer": ["red", "blue"], "images": ["5.png"]},
        {
            "id": "chat",
            "messages": [
                {"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{held}"}},
                    {"type": "text", "text": "what"},
                ]},
                {"role": "assistant", "content": "red"},
            ],
        },
        row("p0", "<image>\nagain", image="0.jpg"),
    ]  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder


def opened(path, **kwargs):
    return open_rows(path, spec=SPEC, tokenizer=TOKENIZER, **kwargs)


def prepared(folder, target, **kwargs):
    return prepare_rows(opened(folder / "rows.json"), target, shard_bytes=SMALL, **kwargs)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> pathlib.Path:
    return prepared(folder, tmp_path_factory.mktemp("whole") / "set").directory


def assert_same(one, other):
    for name, value in values_of(one).items():
        strict = isinstance(value, np.ndarray)
        np.testing.assert_array_equal(value, values_of(other)[name], err_msg=name, strict=strict)


def values_of(value):
    if not dataclasses.is_dataclass(value):
        return value._asdict()
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def records_of(directory) -> list[bytes]:
    source = PreparedRows(directory)
    return [source[i] for i in range(len(source))]


@pytest.mark.parametrize("policy", ["native", "budget:12", "fixed:16", "scale:0.5"])
def test_plans_and_examples_are_those_of_the_source_bit_for_bit(folder, whole, policy):
    to_views, ours, theirs = parse_policy(policy), opened(whole), opened(folder / "rows.json")
    sizes = [rows.measure(to_views).sizes for rows in (ours, theirs)]
    np.testing.assert_array_equal(*sizes)
    assert [ours.row(i) for i in range(len(ours))] == [theirs.row(i) for i in range(len(theirs))]
    plans = plan_packs(sizes[0], [RUNG])
    assert plans == plan_packs(sizes[1], [RUNG])
    assert len(ours.source.shards) > 2
    for plan in plans:
        packs = [pack([rows.example(i, to_views) for i in plan.indices], RUNG)
                 for rows in (ours, theirs)]  # fmt: skip
        assert_same(*packs)


def test_the_kept_index_is_the_one_that_the_shards_give(whole):
    kept = opened(whole, index="refuse").index
    again = opened(whole, index="rebuild").index
    assert_same(kept, again)
    assert (kept.summary.num_rows, kept.summary.num_bad) == (len(records_of(whole)), 0)


def test_other_ways_to_read_are_open_to_shards(folder, whole):
    """Shards keep the rows as they were written, not the tokens of one model."""
    for kwargs in ({"pictures_first": False}, {"fps": 5.0, "max_frames": 6}):
        ours, theirs = opened(whole, **kwargs), opened(folder / "rows.json", **kwargs)
        np.testing.assert_array_equal(ours.measure(NATIVE).sizes, theirs.measure(NATIVE).sizes)


def test_what_is_left_out_is_counted_on_the_card_and_named(whole):
    card = json.loads((whole / "card.json").read_text())
    assert card["left_out"] == {"empty turn": 1, "missing picture": 1}
    assert card["num_rows"] == sum(shard["rows"] for shard in card["shards"]) == 17
    named = [json.loads(line) for line in (whole / "left_out.jsonl").read_text().splitlines()]
    assert [(each["row"], each["id"]) for each in named] == [(0, "gone"), (11, "silent")]


class Stop(BaseException):
    """As abrupt as a signal."""


@pytest.mark.parametrize("after", [0, 1, 5, 13, 16])
def test_what_was_stopped_is_no_set_and_goes_on_to_the_same_one(
    folder, whole, tmp_path, monkeypatch, after
):
    written = 0

    def stopping(self, record):
        nonlocal written
        written += 1
        assert not self._path().exists()  # what is being written has no name yet
        if written > after:
            raise Stop
        keep(self, record)

    keep = shards.ShardWriter._note
    monkeypatch.setattr(shards.ShardWriter, "_note", stopping)
    with pytest.raises(Stop):
        prepared(folder, tmp_path / "set")
    monkeypatch.undo()
    with pytest.raises(MresError, match="was not finished; go on with the same command"):
        opened(tmp_path / "set")
    lines: list[str] = []
    done = sorted(file.name for file in (tmp_path / "set").glob("rows-*"))
    stamps = [(tmp_path / "set" / name).stat().st_mtime_ns for name in done]
    prepared(folder, tmp_path / "set", log=lines.append)
    assert [(tmp_path / "set" / name).stat().st_mtime_ns for name in done] == stamps
    assert any("going on" in line for line in lines) == bool(done)
    assert records_of(tmp_path / "set") == records_of(whole)
    for name in ("card.json", "left_out.jsonl"):
        assert (tmp_path / "set" / name).read_bytes() == (whole / name).read_bytes()
    assert not [file for file in (tmp_path / "set").iterdir() if file.name[0] in ".b"]


def test_a_directory_of_something_else_is_left_alone(folder, whole, tmp_path):
    with pytest.raises(MresError, match=r"is prepared already\. Name a new directory"):
        prepared(folder, whole)
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(MresError, match="the directory is not empty"):
        prepared(folder, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def begin(folder, target, monkeypatch):
    """Leaves a directory with one shard."""
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_bring_to_disk", lambda path: (_ for _ in ()).throw(Stop()))
        with pytest.raises(Stop):
            prepared(folder, target)


def test_other_rows_do_not_go_on_where_some_were_begun(folder, tmp_path, monkeypatch):
    begin(folder, tmp_path / "set", monkeypatch)
    rows = json.loads((folder / "rows.json").read_text())
    (folder / "fewer.json").write_text(json.dumps(rows[:-1]))
    with pytest.raises(MresError, match="was begun from other rows or settings"):
        prepare_rows(opened(folder / "fewer.json"), tmp_path / "set", shard_bytes=SMALL)
    with pytest.raises(MresError, match="was begun from other rows or settings"):
        prepare_rows(opened(folder / "rows.json"), tmp_path / "set")


def test_a_source_that_changes_meanwhile_is_refused(folder, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(folder, place)
    rows = opened(place / "rows.json")
    Image.new("RGB", (9, 9)).save(place / "5.png")
    with pytest.raises(MresError, match="a picture or clip of row p5 changed while"):
        prepare_rows(rows, tmp_path / "set")
    (place / "5.png").unlink()
    with pytest.raises(MresError, match=r"row p5: 5\.png: no such file"):
        prepare_rows(rows, tmp_path / "set")
    (place / "rows.json").write_text((place / "rows.json").read_text().replace("red", "rad"))
    with pytest.raises(MresError, match="row 0 changed while"):
        prepare_rows(rows, tmp_path / "set")


def test_a_full_disk_is_one_line_and_keeps_whole_shards(folder, tmp_path, monkeypatch):
    class Full:
        count = 0

        def __init__(self, path, options):
            pathlib.Path(path).touch()

        def write(self, record):
            raise RuntimeError("write() failed: No space left on device; writing somewhere")

        def close(self):
            pass

    monkeypatch.setattr("array_record.python.array_record_module.ArrayRecordWriter", Full)
    with pytest.raises(RunError, match=r"no space left on device.*Free space.*goes on behind"):
        prepared(folder, tmp_path / "set")
    monkeypatch.undo()
    assert len(records_of(prepared(folder, tmp_path / "set").directory)) == 17


def cut(shard):
    shard.write_bytes(shard.read_bytes()[:-100])


def remove(shard):
    shard.unlink()


def blank(shard):
    shard.write_bytes(bytes(shard.stat().st_size))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"rows-00001\.array_record has [\d,]+ of [\d,]+ bytes"),
        (remove, r"rows-00001\.array_record is missing"),
    ],
)
def test_shards_that_are_not_whole_are_refused_by_name(whole, tmp_path, damage, message):
    shutil.copytree(whole, tmp_path / "set")
    damage(tmp_path / "set" / "rows-00001.array_record")
    with pytest.raises(MresError, match=message):
        opened(tmp_path / "set")


def test_a_flipped_bit_never_reaches_an_example(whole, tmp_path):
    """Wherever it is in a shard: the row is refused, or it is what it was."""
    shutil.copytree(whole, tmp_path / "set")
    shard = tmp_path / "set" / "rows-00001.array_record"
    content, clean, draw = shard.read_bytes(), records_of(whole), np.random.default_rng(1)
    starts = [(i, content.find(record)) for i, record in enumerate(clean) if record in content]
    inside = [(i, at + int(draw.integers(len(clean[i])))) for i, at in starts * 3]
    anywhere = [(None, place) for place in draw.integers(0, len(content), 20).tolist()]
    for hit, place in [*inside, *anywhere]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        shard.write_bytes(damaged)
        rows = opened(tmp_path / "set")
        for i, record in enumerate(clean):
            try:
                same = rows.index.found(rows.source, i).source == record
            except Fault as fault:
                same = fault.kind == "changed"
            else:
                assert i != hit
            assert same
    assert len(starts) > 1
    blank(shard)
    with pytest.raises(BadRowError, match=r"rows-00001\.array_record has no records"):
        opened(tmp_path / "set").example(starts[0][0], NATIVE)


def test_records_tell_their_own_damage():
    record = pack_record({"id": "ü"}, {"a": b"123", "b": b""})
    found = unpack_record(0, record)
    assert (found.content, found.files.find("a"), found.files.find("b")) == (
        {"id": "ü"},
        b"123",
        b"",
    )
    for broken in (
        b"",
        record[:-1],
        record.replace(b"123", b"124"),
        b"x" + record[1:],
        record[:20] + b"?" + record[21:],
    ):
        with pytest.raises(Fault, match="record 0"):
            unpack_record(0, broken)
    for body in (b'{"row": {}}', b'{"files": [["a", 9]], "row": 1}', b"[" * 9999, b"[]"):
        record = b"mres" + len(body).to_bytes(4, "little") + body
        with pytest.raises(Fault, match="record 0 is none of a row"):
            unpack_record(0, record + zlib.crc32(record).to_bytes(4, "little"))
    with pytest.raises(Fault, match="the row holds no file c"):
        found.files.find("c")


def test_a_set_travels_to_worker_processes_and_is_a_source_of_records(whole):
    rows = opened(whole)
    example = rows.example(0, NATIVE)
    sent = pickle.loads(pickle.dumps(rows))
    assert_same(sent.example(0, NATIVE), example)
    assert sent.source[len(rows) - 1] == rows.source[len(rows) - 1]
    with pytest.raises(IndexError):
        rows.source[len(rows)]


def test_sizes_on_an_edge_of_the_histogram_are_below_it(tmp_path):
    sizes = {"0.png": (250, 200), "1.png": (251, 200), "2.png": (10, 20), "3.png": (100, 300)}
    for name, size in sizes.items():
        Image.new("RGB", size).save(tmp_path / name)
    rows = [row(name, "<image> what", image=name) for name in [*sizes, "0.png"]]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    counts = size_histogram(opened(tmp_path / "rows.json"))
    assert {(i, j): n for (i, j), n in np.ndenumerate(counts) if n} == {
        (0, 2): 2,  # 0.05 megapixels, 1.25 to 1
        (1, 3): 1,
        (0, 0): 2,  # 0.5 to 1 and less
    }


def test_a_prepared_set_can_be_prepared_again_and_moved(whole, tmp_path):
    again = prepare_rows(opened(whole), tmp_path / "set")
    assert len(again.shards) == 1
    assert records_of(again.directory) == records_of(whole)
    shutil.copytree(whole, tmp_path / "moved")
    assert len(opened(tmp_path / "moved", index="refuse")) == 17


def test_two_processes_never_write_one_directory(folder, tmp_path, monkeypatch):
    begin(folder, tmp_path / "set", monkeypatch)
    with (tmp_path / "set" / "begun.json").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(MresError, match="another process is writing it"):
            prepared(folder, tmp_path / "set")
    prepared(folder, tmp_path / "set")


def test_few_shards_are_open_at_a_time(whole, monkeypatch):
    monkeypatch.setattr(sources_prepared, "MAX_OPEN", 2)
    source, clean = PreparedRows(whole), records_of(whole)
    for i in np.random.default_rng(0).permutation(len(clean)).tolist():
        assert source[i] == clean[i]
        assert len(source._readers) <= 2
    assert len(source.shards) > 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "is of format 9; this version reads 1"),
        ({"shards": [{"name": "../x", "rows": 1, "bytes": 1}]}, "names a shard in another dir"),
        ({"shards": [{"name": "x"}]}, r"card\.json cannot be read"),
        ({"shards": [{"name": "x", "rows": -1, "bytes": 1}]}, "has no rows or no bytes"),
    ],
)
def test_a_card_that_says_something_else_is_refused(whole, tmp_path, change, message):
    shutil.copytree(whole, tmp_path / "set")
    card = json.loads((whole / "card.json").read_text())
    (tmp_path / "set" / "card.json").write_text(json.dumps(card | change))
    with pytest.raises(MresError, match=message):
        opened(tmp_path / "set")


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_set(folder, tmp_path):
    """The process itself, by SIGKILL, at three moments."""
    rows = json.loads((folder / "rows.json").read_text())
    many = [each | {"id": f"r{i}"} for i in range(100) for each in rows[1:9]]
    (folder / "many.json").write_text(json.dumps(many))
    code = (
        "import sys\nfrom mres_jax.data.rows import open_rows, prepare_rows\n"
        "from tests.data.test_prepared import SPEC, TOKENIZER\n"
        "rows = open_rows(sys.argv[1], spec=SPEC, tokenizer=TOKENIZER)\n"
        "prepare_rows(rows, sys.argv[2], shard_bytes=25_000)\n"
    )
    words = [sys.executable, "-c", code, str(folder / "many.json"), str(tmp_path / "set")]
    killed = 0
    for shards_there in (1, 8, 20):
        process = subprocess.Popen(words, cwd=pathlib.Path(__file__).parents[2])
        while len(list(tmp_path.glob("set/rows-*"))) < shards_there and process.poll() is None:
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
        assert not (tmp_path / "set" / "card.json").exists() or not killed
    subprocess.run(words, cwd=pathlib.Path(__file__).parents[2], check=True)
    prepare_rows(opened(folder / "many.json"), tmp_path / "once", shard_bytes=25_000)
    assert killed
    assert records_of(tmp_path / "set") == records_of(tmp_path / "once")

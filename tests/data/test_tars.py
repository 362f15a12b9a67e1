"""Tar files of rows: members of one name are one row, and nothing in them leads anywhere."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.rows import open_rows, prepare_rows
from mres_jax.data.rows.sources import tars
from mres_jax.errors import BadRowError, MresError
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import tiny_spec, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
SPEC = tiny_spec(TOKENIZER)
NATIVE = parse_policy("native")
TURNS = {
    "conversations": [{"from": "human", "value": "<image> what"}, {"from": "gpt", "value": "x"}]
}


def picture(number, kind="png"):
    pixels = np.random.default_rng(number).integers(0, 256, (16 + number, 24, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def write(path, *members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def row(content):
    return json.dumps(content).encode()


def opened(path, **kwargs):
    return open_rows(path, spec=SPEC, tokenizer=TOKENIZER, scan_only=True, **kwargs)


CLEAN = [
    member("set", type=tarfile.DIRTYPE),
    member("set/000.png", picture(0)),
    member("set/000.json", row({"question": "what", "answer": "x"})),
    member("set/001.json", row(TURNS | {"id": "own", "image": "pictures/001.jpg"})),
    member("set/001.jpg", picture(1, "jpeg")),
    member("set/002.0.png", picture(2)),
    member("set/002.1.png", picture(3)),
    member("set/002.json", row({"question": "which", "answer": "x"})),
    member("set/002.pickle", b"never read"),
    member("set/003.PNG", picture(4)),
    member("set/003.txt", b" a caption\n"),
    member("set/004.json", row({"caption": "said", "url": "http://x"})),
    member("set/004.png", picture(5)),
    member("set/text.json", row({"messages": [{"role": "user", "content": "what"},
                                              {"role": "assistant", "content": "x"}]})),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")]
)
def test_members_of_one_name_are_one_row(tmp_path, name, mode):
    made = prepare_rows(opened(write(tmp_path / name, *CLEAN, mode=mode)), tmp_path / "set")
    rows = open_rows(made.directory, spec=SPEC, tokenizer=TOKENIZER)
    ids = ["set/000", "own", "set/002", "set/003", "set/004", "set/text"]
    assert [rows.row(i).id for i in range(len(rows))] == ids
    assert [len(rows.row(i).images) for i in range(len(rows))] == [1, 1, 2, 1, 1, 0]
    assert rows.row(3).turns == (("user", "<image>"), ("assistant", "a caption"))
    assert rows.row(4).turns[1] == ("assistant", "said")
    for i, number in ((0, 0), (3, 4)):
        with Image.open(io.BytesIO(picture(number))) as image:
            np.testing.assert_array_equal(rows.images(i)[0], np.asarray(image))
    measured = rows.measure(NATIVE).sizes
    assert [rows.example(i, NATIVE).size for i in range(6)] == list(map(tuple, measured))


def test_rows_of_a_tar_file_are_only_read_from_front_to_back(tmp_path):
    path = write(tmp_path / "a.tar", *CLEAN)
    with pytest.raises(
        MresError, match=r"Bring them into shards first: mres data prepare .*a\.tar"
    ):
        open_rows(path, spec=SPEC, tokenizer=TOKENIZER)


def test_a_directory_of_tar_files_is_one_set_in_the_order_of_their_names(tmp_path):
    (tmp_path / "tars").mkdir()
    for number in (2, 1):
        write(tmp_path / f"tars/{number}.tar", member(f"{number}.png", picture(number)),
              member(f"{number}.txt", b"what"))  # fmt: skip
    made = prepare_rows(opened(tmp_path / "tars"), tmp_path / "set")
    rows = open_rows(made.directory, spec=SPEC, tokenizer=TOKENIZER)
    assert [rows.row(i).id for i in range(2)] == ["1", "2"]


def test_frames_and_fields_of_other_names(tmp_path):
    content = row({"query": "what", "label": "x", "shots": ["1.a.png", "1.b.png"]})
    files = [
        member("1.a.png", picture(7)),
        member("1.b.png", picture(7)),
        member("1.json", content),
    ]
    path = write(tmp_path / "a.tar", *files)
    fields = {"question": "query", "answer": "label", "frames": "shots"}
    rows = opened(path, fields=fields)
    (found,) = rows.source.scan()
    assert len(found.content["frames"]) == 2
    assert rows.index.is_clip.tolist() == [True]
    with pytest.raises(
        MresError, match=r"none of 1 can be used: 1 unknown form .*no field nothing"
    ):
        opened(path, fields={"question": "nothing"})


HOSTILE = [
    (member("../up.png", picture(0)), "unsafe path", "member ../up.png has .. in it"),
    (member("a/../../up.png", picture(0)), "unsafe path", "has .. in it"),
    (member("..\\up.png", picture(0)), "unsafe path", "has .. in it"),
    (member("/etc/up.png", picture(0)), "unsafe path", "member /etc/up.png has an absolute name"),
    (member("l.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "unsafe path",
     "member l.png is a link to /etc/passwd"),
    (member("h.png", type=tarfile.LNKTYPE, linkname="good.png"), "unsafe path",
     "member h.png is a link to good.png"),
    (member("f.png", type=tarfile.FIFOTYPE), "unsafe path", "member f.png is no file"),
    (member("x.json", b"{"), "not JSON", "its .json is no JSON"),
    (member("x.json", b"[]"), "unknown form", "its .json is no object, but a list"),
    (member("x.txt", b"\xff"), "unknown form", "its caption is not UTF-8"),
    (member("x.png", picture(0)), "unknown form", "no question and no caption, only .png"),
    (member("x.json", row(TURNS | {"image": "y.png"})), "missing picture",
     "x: y.png is none of x.json"),
    (member("x.json", row(TURNS)), "placeholder without picture", "but 0 pictures"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "kind", "reason"), HOSTILE)
def test_bad_members_are_counted_by_name_and_write_nothing(tmp_path, bad, kind, reason):
    good = member("good.png", picture(1)), member("good.txt", b"what")
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in" / "a.tar", *good, bad)
    rows = opened(path)
    assert len(rows) == 1
    ((found, text),) = [(each.kind, each.first[0][1]) for each in rows.index.summary.bad]
    assert found == kind
    assert reason in text
    prepare_rows(rows, tmp_path / "out")
    assert {file.name for file in tmp_path.iterdir()} == {"in", "out"}
    with pytest.raises(BadRowError):
        opened(path, on_bad="raise")


def test_members_that_are_too_large_or_twice_there_are_refused(tmp_path, monkeypatch):
    twice = [member("1.png", picture(1)), member("1.png", picture(2)), member("1.txt", b"x")]
    large = [member("2.png", picture(3) + bytes(1_000)), member("2.txt", b"x")]
    good = [member("3.png", picture(1)), member("3.txt", b"x")]
    monkeypatch.setattr(tars, "MAX_MEMBER_BYTES", len(picture(3)) + 500)
    rows = opened(write(tmp_path / "a.tar", *twice, *large, *good))
    reasons = [reason for finding in rows.index.summary.bad for _, reason in finding.first]
    assert any("two members 1.png" in reason for reason in reasons)
    assert any("member 2.png has" in reason for reason in reasons)
    assert len(rows) == 1


@pytest.mark.parametrize("keep", [0, 300, 700, 1_300])
def test_a_tar_file_that_breaks_off_is_one_line(tmp_path, keep):
    path = write(tmp_path / "a.tar", *CLEAN[1:3])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MresError, match=r"rows .*a\.tar: no whole tar file"):
        opened(path)


def parts(tmp_path):
    """A tar file of three rows of one member each: its bytes, and where the members begin."""
    path = write(tmp_path / "whole.tar", *(member(f"{i}.json", ROW) for i in range(3)))
    with tarfile.open(path) as tar:
        starts = [info.offset for info in tar]
    return path.read_bytes(), [*starts, starts[2] + 1024]


ROW = row(
    {"messages": [{"role": "user", "content": "what"}, {"role": "assistant", "content": "x"}]}
)
NO_END, BREAKS, BAD = "no block of zeros ends it", "it breaks off in a header", "bad checksum"
MORE = "more than zeros behind its end: damage, or another archive"
SPOILT = {  # what is done to it -> what is said of it, and how many of its rows were readable
    "cut between rows": (lambda tar, at: tar[: at[2]], NO_END, 2),
    "cut behind the last row": (lambda tar, at: tar[: at[3]], NO_END, 3),
    "cut inside a header": (lambda tar, at: tar[: at[2] + 200], BREAKS, 2),
    "cut inside the block of its end": (lambda tar, at: tar[: at[3] + 200], BREAKS, 3),
    "a byte of a header flipped": (lambda tar, at: flipped(tar, at[1] + 50), BAD, 1),
    "a byte of the first header flipped": (lambda tar, at: flipped(tar, 50), BAD, 0),
    "a byte of its end flipped": (lambda tar, at: flipped(tar, at[3] + 50), BAD, 3),
    "cut behind half of a header": (lambda tar, at: long_name(tar, at)[:-512], BREAKS, 3),
    "zeros for a header": (lambda tar, at: tar[: at[1]] + bytes(512) + tar[at[1] + 512 :], MORE, 1),
    "another behind it": (lambda tar, at: tar + tar, MORE, 3),
}


def long_name(tar, at):
    """The rows, and a header in two parts, as tar writes a name of more than 100 characters."""
    info, _ = member("x" * 200)
    return tar[: at[3]] + info.tobuf(tarfile.GNU_FORMAT)


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
@pytest.mark.parametrize("how", SPOILT)
def test_a_tar_file_that_is_cut_or_damaged_is_refused_whole(tmp_path, how, name):
    spoil, reason, rows = SPOILT[how]
    whole, starts = parts(tmp_path)
    content, path = spoil(whole, starts), tmp_path / name
    path.write_bytes(content if name == "a.tar" else gzip.compress(content))
    with pytest.raises(MresError) as error:
        opened(path)
    place = f", member {rows - 1}.json" if rows else ""
    assert f"{reason}; readable up to byte {starts[rows]:,}{place})" in str(error.value)
    assert str(error.value).startswith(f"rows {path}: no whole tar file (")
    assert ("append 1,024 zero bytes" in str(error.value)) == (reason is NO_END)


@pytest.mark.parametrize("where", ["text", "checksum", "cut"])
def test_a_gzip_that_is_damaged_is_refused_whole(tmp_path, where):
    """Stored, not deflated: all rows can be read, and the checksum alone tells."""
    content = gzip.compress(parts(tmp_path)[0], compresslevel=0)
    at = {"text": content.index(b"what"), "checksum": len(content) - 8}.get(where, -8)
    content = content[:at] if where == "cut" else flipped(content, at)
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(
        MresError, match=r"no whole tar file \(.*up to byte 3,072, member 2\.json\)"
    ):
        opened(tmp_path / "a.tar.gz")


@pytest.mark.parametrize("zeros", [512, 700, 1024, 1 << 21])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_one_block_of_zeros_and_more_are_an_end(tmp_path, zeros, pack):
    content, starts = parts(tmp_path)
    (tmp_path / "a.tar").write_bytes(pack(content[: starts[3]] + bytes(zeros)))
    assert len(opened(tmp_path / "a.tar")) == 3


def test_a_gzip_of_several_parts_is_read_to_its_end(tmp_path):
    content, starts = parts(tmp_path)
    pieces = content[: starts[1]], content[starts[1] :]
    (tmp_path / "a.tgz").write_bytes(b"".join(map(gzip.compress, pieces)))
    assert len(opened(tmp_path / "a.tgz")) == 3

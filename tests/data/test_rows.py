"""Data sets on disk: sizes follow from the index, dirt is counted, nothing stale is used."""

import dataclasses
import json
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.conversations import Message
from mres_jax.data.documents import write_set
from mres_jax.data.rows import open_rows
from mres_jax.data.rows.pictures import PictureFolder
from mres_jax.data.rows.sources import JsonRows
from mres_jax.data.tokenizer import Tokenizer, build_tiny_tokenizer
from mres_jax.errors import BadRowError, MresError, PolicyError
from mres_jax.geometry import Size
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import tiny_spec

TOKENIZER = Tokenizer(build_tiny_tokenizer(["What", "is", "the", "total"]))
SPEC = tiny_spec(TOKENIZER, system="Be brief.")
QWEN = SPEC.template
LLAVA = dataclasses.replace(QWEN, image_open="", image_close="", after_images="\n")
NATIVE = parse_policy("native")
POLICIES = ["native", "fixed:32", "scale:0.5", "budget:6"]


def save(path, height, width, kind="JPEG", **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, kind, **kwargs)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def llava(name, image, *values):
    roles = ("human", "gpt") * len(values)
    turns = [{"from": r, "value": v} for r, v in zip(roles, values, strict=False)]
    return {"id": name, "conversations": turns} | ({} if image is None else {"image": image})


USABLE = [
    llava("one", "a.jpg", "What is the total?\n<image>", "42"),
    llava("text", None, "What <|im_start|>?", "<image> A7", "is", "the\n\ntotal"),
    llava("turned", "sub/b.jpg", "<image>\nWhat", "x"),
    llava("three", ["a.jpg", "c.png", "a.jpg"], "<image> and <image>", "y", "is <image>?", "z"),
    llava("unplaced", ["c.png", "a.jpg"], "What?", "y"),
    {"id": "said", "question": "total", "answer": "9", "images": ["gif.jpg"]},
    {
        "id": "chat",
        "messages": [
            {"role": "system", "content": "Be long."},
            {"role": "user", "content": [{"type": "image", "image": "c.png"}]},
            {"role": "assistant", "content": "<|im_end|>"},
        ],
    },
]
DIRTY = [
    llava("gone", "gone.jpg", "<image>What", "x"),
    llava("broken", "broken.jpg", "<image>What", "x"),
    llava("html", "html.jpg", "<image>What", "x"),
    llava("none", None, "<image>What", "x"),
    llava("silent", "a.jpg", "<image>What", ""),
    llava("empty", "a.jpg", "", "x"),
    llava("up", "../a.jpg", "<image>What", "x"),
    llava("root", "/etc/passwd", "<image>What", "x"),
    llava("link", "out.jpg", "<image>What", "x"),
    llava("folder", "outside/a.jpg", "<image>What", "x"),
    llava("inline", "data:image/png;base64,AAAA", "<image>What", "x"),
    llava("web", "http://x.org/a.jpg", "<image>What", "x"),
    llava("one", "a.jpg", "<image>\nis", "again"),
]


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """A picture folder with clean, odd and broken files."""
    folder = tmp_path / "pictures"
    save(folder / "a.jpg", 40, 56)
    save(folder / "sub" / "b.jpg", 24, 80, exif=turned(6))
    save(folder / "c.png", 64, 16, "PNG")
    save(folder / "gif.jpg", 33, 47, "GIF")
    save(folder / "broken.jpg", 40, 56)
    (folder / "broken.jpg").write_bytes((folder / "broken.jpg").read_bytes()[:15])
    (folder / "html.jpg").write_text("<html>404</html>")
    save(tmp_path / "elsewhere" / "a.jpg", 8, 8)
    (folder / "out.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    (folder / "outside").symlink_to(tmp_path / "elsewhere")
    return folder


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def opened(folder, lines):
    """Opens rows, written as a list or as lines."""

    def open_(rows=None, *, name="rows.json", spec=SPEC, **kwargs):
        path = folder.parent / name
        if rows is not None:
            text = "\n".join(map(json.dumps, rows)) if name.endswith("l") else json.dumps(rows)
            path.write_text(text)
        return open_rows(
            path, spec=spec, tokenizer=TOKENIZER, images=folder, log=lines.append, **kwargs
        )

    return open_


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
@pytest.mark.parametrize("template", [QWEN, LLAVA])
@pytest.mark.parametrize("policy", POLICIES)
def test_sizes_from_the_index_are_those_of_assembled_examples(opened, name, template, policy):
    spec = dataclasses.replace(SPEC, template=template)
    rows = opened([*DIRTY[:3], *USABLE], name=name, spec=spec)
    measured = rows.measure(parse_policy(policy))
    assert measured.rows.tolist() == list(range(len(USABLE)))
    for mask in ("answer", "released", None):
        examples = [rows.example(i, parse_policy(policy), label_mask=mask) for i in range(7)]
        assert [example.size for example in examples] == list(map(tuple, measured.sizes))


@pytest.mark.parametrize("first", [True, False])
def test_rows_are_read_by_number_in_their_own_order(opened, first):
    rows = opened(USABLE, pictures_first=first)
    assert [rows.row(i).id for i in range(len(rows))] == [row["id"] for row in USABLE]
    parts = rows.messages(0)[0].parts
    assert parts == ((0, "What is the total?") if first else ("What is the total?", 0))
    assert rows.sizes(2) == (Size(80, 24),)  # upright
    assert rows.sizes(3) == (Size(40, 56), Size(64, 16), Size(40, 56))
    assert rows.messages(3)[0].parts == (0, " and ", 1)


def test_a_generated_set_is_read_as_it_was_written(tmp_path):
    rows = open_rows(write_set(tmp_path, 3, 6), spec=SPEC, tokenizer=TOKENIZER)
    content = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [rows.row(i).turns[1][1] for i in range(len(rows))] == [row["answer"] for row in content]
    measured = rows.measure(NATIVE)
    i = len(rows) - 1
    assert tuple(measured.sizes[i]) == rows.example(i, NATIVE).size


def test_plain_rows_are_pictures_with_their_captions(opened):
    caption = "A total.\nis"
    good = [llava(i, "a.jpg", f"<image>\nWhat {i}?", caption) for i in "ab"]
    rows = opened([*good, *USABLE[:4]], template="plain")
    assert rows.messages(1) == [
        Message(role="user", parts=(0,)),
        Message(role="assistant", parts=(f"{caption}\n",)),
    ]
    example = rows.example(1, NATIVE)
    measured = rows.measure(NATIVE)
    assert tuple(measured.sizes[1]) == example.size
    said = TOKENIZER.encode_text(f"{caption}\n")
    assert example.tokens[example.loss_mask].tolist() == said
    visual = int((example.slots >= 0).sum())
    assert len(example.tokens) == visual + len(said) + 2  # and the frame of the picture
    findings = {finding.kind: finding.first for finding in rows.index.summary.bad}
    assert [row for row, _ in findings["no caption"]] == ["text", "three"]
    assert len(rows) == 4


def test_dirt_is_counted_and_named_and_the_rest_is_used(opened, lines):
    rows = opened([*USABLE, *DIRTY])
    assert [rows.row(i).id for i in range(len(rows))] == [*(r["id"] for r in USABLE), "one"]
    assert lines == [
        "rows.json: 20 rows, 1 text only, 12 bad: 1 empty turn (first: empty), "
        "1 no answer (first: silent), 5 unsafe path (first: up, root, link), "
        "1 missing picture (first: gone), 3 bad picture (first: broken, html, inline), "
        "1 placeholder without picture (first: none); noted: 1 picture put first (first: "
        "unplaced), 1 placeholder in an answer (first: text), 1 wrong extension (first: said), "
        "1 duplicate id (first: one)"
    ]
    reasons = {row: reason for f in rows.index.summary.bad for row, reason in f.first}
    assert reasons["gone"] == "picture gone.jpg: no such file or directory"
    assert "it is HTML" in reasons["html"]
    assert "../a.jpg has .. in it" in reasons["up"]
    assert "/etc/passwd is absolute" in reasons["root"]
    assert reasons["link"].endswith("follow_links=True allows it")
    assert "out.jpg is a link out of" in reasons["link"]
    assert "outside/a.jpg is a link out of" in reasons["folder"]
    assert "is an address" in reasons["web"]


def test_links_lead_out_of_the_folder_only_where_that_is_allowed(opened):
    rows = opened(DIRTY[8:10], follow_links=True)
    assert [rows.sizes(i) for i in range(2)] == [(Size(8, 8),)] * 2
    assert rows.example(1, NATIVE).views[0].crop.size == (8, 8)


def test_a_colon_in_a_name_makes_no_address(folder):
    save(folder / "page:1.jpg", 8, 16)
    assert PictureFolder(folder).header("page:1.jpg") == (Size(8, 16), True)


def test_links_within_the_folder_are_files_of_it(folder):
    (folder / "near.jpg").symlink_to("a.jpg")
    (folder / "near").symlink_to(folder / "sub")
    pictures = PictureFolder(folder)
    assert pictures.header("near.jpg")[0] == (40, 56)
    assert pictures.header("near/b.jpg")[0] == (80, 24)


def test_a_set_with_bad_rows_is_refused_where_that_is_wanted(opened):
    opened(USABLE, on_bad="raise")
    with pytest.raises(BadRowError, match=r"row gone: picture gone.jpg: no such file or") as error:
        opened([*USABLE, DIRTY[0]], on_bad="raise")
    assert error.value.kind == "missing picture"


def test_the_row_that_a_set_is_refused_for_stands_first_of_all_its_bad_ones(opened, folder):
    """Kinds are listed in an order of their own, so each of two rows is the first once."""
    gone, silent = DIRTY[0], DIRTY[4]
    for first, second in ((gone, silent), (silent, gone)):
        with pytest.raises(BadRowError, match=r"\(.*/rows\.json\)\.$") as error:
            opened([USABLE[0], first, second], on_bad="raise")
        assert error.value.row == first["id"]


def test_a_set_without_a_usable_row_is_refused(opened):
    with pytest.raises(MresError, match=r"none of 1 can be used: 1 missing .* no such file or di"):
        opened(DIRTY[:1])
    with pytest.raises(MresError, match="none of 0 can be used"):
        opened([])


def test_a_policy_refuses_rows_by_name(opened):
    def square(sizes, question, spec):
        if len(sizes) > 1:
            raise PolicyError("policy square: one picture")
        return NATIVE(sizes, question, spec)

    rows = opened(USABLE)
    measured = rows.measure(square)
    assert measured.rows.tolist() == [0, 1, 2, 5, 6]
    assert measured.refused is not None
    assert str(measured.refused) == "2 refused by policy (first: three, unplaced)"
    assert measured.sizes.tolist() == rows.measure(NATIVE).sizes[measured.rows].tolist()
    with pytest.raises(BadRowError, match="row three: policy square: one picture"):
        rows.example(3, square)


def test_an_index_is_made_once_and_says_the_same(opened, lines, monkeypatch):
    rows = opened([*USABLE, *DIRTY])
    monkeypatch.setattr("mres_jax.data.rows.opening.build_index", None)
    again = opened()
    assert lines[0] == lines[1]
    for field in dataclasses.fields(rows.index):
        np.testing.assert_array_equal(
            getattr(rows.index, field.name), getattr(again.index, field.name)
        )


def test_each_way_to_read_has_its_own_index(opened, folder):
    for kwargs in ({}, {"template": "plain"}, {"pictures_first": False}, {"follow_links": True}):
        opened([USABLE[0]], **kwargs)
    opened([USABLE[0]], spec=dataclasses.replace(SPEC, template=LLAVA))
    assert len(list((folder.parent / "rows.json.index").iterdir())) == 5


def change_rows(path, folder):
    path.write_text(json.dumps([*USABLE, USABLE[0]]))


def change_in_place(path, folder):
    path.write_text(path.read_text().replace("A7", "A8"))
    os.utime(path, (1, 1))


def bring_the_missing(path, folder):
    save(folder / "gone.jpg", 16, 16)


def damage_the_index(path, folder):
    (file,) = path.with_name("rows.json.index").iterdir()
    content = bytearray(file.read_bytes())
    middle = len(content) // 2  # a single byte may be one of those that say nothing, like a date
    content[middle : middle + 64] = bytes(x ^ 255 for x in content[middle : middle + 64])
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (change_rows, r"the index is of a file of [\d,]+ bytes, and now it has [\d,]+"),
        (change_in_place, "the index is older than the file, whose contents changed"),
        (bring_the_missing, "says that pictures of row gone are bad, but now they are good"),
        (damage_the_index, "the index is damaged"),
    ],
)
def test_an_index_older_than_its_data_is_one_line_and_made_again(
    opened, folder, lines, change, line
):
    opened([*USABLE, *DIRTY])
    change(folder.parent / "rows.json", folder)
    with pytest.raises(MresError, match=f"{line}. Make it again with mres data prepare"):
        opened(index="refuse")
    rows = opened()
    fresh = opened(index="rebuild")
    assert lines[1].endswith("; it is made again")
    assert len(lines) == 4
    assert rows.index.summary == fresh.index.summary
    np.testing.assert_array_equal(rows.index.checksums, fresh.index.checksums)


def test_a_copied_set_keeps_its_index(opened, folder, monkeypatch, tmp_path):
    rows = opened(USABLE)
    shutil.copytree(folder.parent, tmp_path / "copy", copy_function=shutil.copy, symlinks=True)
    monkeypatch.setattr("mres_jax.data.rows.opening.build_index", None)
    copied = open_rows(
        tmp_path / "copy" / "rows.json",
        images=tmp_path / "copy" / "pictures",
        spec=SPEC,
        tokenizer=TOKENIZER,
    )
    assert copied.index.summary == rows.index.summary


def test_where_nothing_can_be_written_the_index_goes_elsewhere_or_is_not_kept(
    opened, folder, lines, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (folder.parent / "rows.json.index").write_text("in the way")
    opened(USABLE)
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 1
    assert len(lines) == 1
    monkeypatch.setattr(
        JsonRows, "index_folders", lambda self: (folder / "a.jpg", folder / "c.png" / "x")
    )
    opened(USABLE)
    assert "is not kept, so it will be made again: save" in lines[1]


def test_a_picture_that_is_found_bad_late_names_its_row(opened, folder):
    rows = opened(USABLE)
    content = (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(BadRowError, match=r"row one: picture a.jpg: damaged or truncated") as error:
        rows.example(0, NATIVE)
    travelled = pickle.loads(pickle.dumps(error.value))
    assert (str(travelled), travelled.kind) == (str(error.value), "bad picture")
    assert travelled.row == "one"
    save(folder / "a.jpg", 41, 56)
    with pytest.raises(BadRowError, match=r"56 x 41 px, but 56 x 40 px in the index") as error:
        rows.example(0, NATIVE)
    assert error.value.kind == "changed"
    (folder / "a.jpg").unlink()
    with pytest.raises(BadRowError, match="no such file") as error:
        rows.example(0, NATIVE)
    assert error.value.kind == "missing picture"


def test_rows_that_change_while_they_are_used_are_refused(opened, folder):
    rows = opened(USABLE)
    change_in_place(folder.parent / "rows.json", folder)
    assert rows.row(0).id == "one"
    with pytest.raises(BadRowError, match=r"row #1: .*rows\.json changed since its index"):
        rows.row(1)


def test_a_set_travels_to_worker_processes(opened):
    rows = opened(USABLE)
    sent = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(sent.example(3, NATIVE).tokens, rows.example(3, NATIVE).tokens)


@pytest.mark.parametrize(
    ("path", "images", "message"),
    [
        ("gone.json", None, "rows .*gone.json: no such file"),
        (".", None, "is a directory; name the file of rows in it"),
        ("rows.json", "gone", "the picture folder .*gone is no directory"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path, path, images, message):
    (tmp_path / "rows.json").write_text("[]")
    images = images and tmp_path / images
    with pytest.raises(MresError, match=message):
        open_rows(tmp_path / path, images=images, spec=SPEC, tokenizer=TOKENIZER)

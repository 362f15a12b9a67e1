"""Rows of every form become one, dirt is named, and files are read without being held."""

import json
import re

import pytest
from hypothesis import given, settings, strategies as st

from mres_jax.data.conversations import place_images
from mres_jax.data.documents import make_document
from mres_jax.data.documents.sets import row_of
from mres_jax.data.rows import scan
from mres_jax.data.rows.forms import parse_row
from mres_jax.data.rows.scan import decode_row, scan_rows
from mres_jax.data.rows.types import Fault
from mres_jax.errors import MresError

ASKED = {"from": "human", "value": "<image>\nWhat?"}
SAID = {"from": "gpt", "value": "Red."}
LLAVA = {"id": "a", "image": "x.jpg", "conversations": [ASKED, SAID]}


def chat(*contents, **kwargs):
    roles = ("user", "assistant") * len(contents)
    turns = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    return {"id": "a", "messages": turns} | kwargs


def picture(name, kind="image_url"):
    return {"type": kind, kind: {"url": name} if kind == "image_url" else name}


def prompted(prompt, completion):
    asked, said = chat(prompt, completion)["messages"]
    return {"prompt": [asked], "completion": [said]}


SAME = [
    LLAVA,
    LLAVA | {"image": ["x.jpg"], "model": ""},
    chat([picture("x.jpg"), {"type": "text", "text": "\nWhat?"}], "Red."),
    chat([picture("x.jpg", "image"), {"type": "text", "text": "\nWhat?"}], "Red."),
    chat([{"type": "image"}, {"type": "text", "text": "\nWhat?"}], "Red.", images=["x.jpg"]),
    chat("<image>\nWhat?", [{"type": "text", "text": "Red."}], images="x.jpg"),
    {"id": "a", "images": ["x.jpg"], "question": "What?", "answer": "Red.", "options": None},
    {"id": "a", "image": "x.jpg", "question": "What?", "answer": ["Red.", "red"]},
    {"id": "a", "image": "x.jpg", "question": "What?", "answers": ["Red.", "red"]},
    LLAVA | {"conversations": [{"role": "user", "content": "<image>\nWhat?"}, SAID]},
    LLAVA | {"conversations": [ASKED, SAID | {"from": "chatgpt", "weight": 1}]},
    {"id": "a", "image": "x.jpg", "prompt": "What?", "completion": "Red."},
    {"id": "a", "images": ["x.jpg"]} | prompted("<image>\nWhat?", "Red."),
    {"id": "a", "images": ["x.jpg"], "query": "What?", "response": "Red.", "history": []},
    {"id": "a", "images": ["x.jpg"], "query": "<image>\nWhat?", "response": "Red."},
    {
        "id": "a",
        "image": "x.jpg",
        "conversation": [{"human": "<image>\nWhat?", "assistant": "Red."}],
    },
    {"id": "a", "images": ["x.jpg"], "texts": [{"user": "<image>\nWhat?", "assistant": "Red."}]},
    {"id": "a", "image": "x.jpg", "instruction": "<image>", "input": "What?", "output": "Red."},
]


@pytest.mark.parametrize("content", SAME)
def test_every_form_of_a_row_is_the_same_row(content):
    row, notes = parse_row(content, 7)
    assert (row.id, row.images) == ("a", ("x.jpg",))
    assert notes == (("picture put first",) if content.get("query") == "What?" else ())
    assert row.turns == (("user", "<image>\nWhat?"), ("assistant", "Red."))
    messages = place_images(row.turns, num_images=1)
    assert [message.parts for message in messages] == [(0, "What?"), ("Red.",)]


def test_a_row_of_a_generated_document_is_read():
    question = make_document(1, area_bin="B").questions[0]
    row, notes = parse_row(json.loads(json.dumps(row_of(question, "images/0.png"))), 0)
    assert (row.id, row.images, notes) == (question.id, ("images/0.png",), ())
    assert row.turns[0][1].endswith(question.text)
    assert row.turns[1] == ("assistant", question.answer)


def test_a_system_text_beside_the_turns_opens_them():
    for content in (
        LLAVA,
        {"query": "What?", "response": "Red."},
        {"question": "a", "answer": "b"},
    ):
        row, _ = parse_row(content | {"system": "Be brief."}, 0)
        assert row.turns[0] == ("system", "Be brief.")
        assert row.turns[1:] == parse_row(content, 0)[0].turns


def test_a_history_comes_before_its_query():
    row, _ = parse_row({"query": "c", "response": "d", "history": [["a", "b"]]}, 0)
    assert [text for _, text in row.turns] == ["a", "b", "c", "d"]


def test_options_are_lettered_lines_of_the_question():
    row, _ = parse_row({"question": "Which?", "answer": 2, "options": ["one", 2]}, 3)
    assert row.id == "#3"
    assert row.turns == (("user", "Which?\nA. one\nB. 2"), ("assistant", "2"))


def test_a_picture_without_a_place_is_put_first():
    turns = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "What?"}, SAID]
    row, notes = parse_row({"image": ["x.jpg", "y.jpg"], "conversations": turns}, 0)
    assert row.turns[1] == ("user", "<image>\n<image>\nWhat?")
    assert notes == ("picture put first",)


@pytest.mark.parametrize(
    ("turns", "note"),
    [
        ([ASKED, {"from": "gpt", "value": "<image>"}], "placeholder in an answer"),
        ([ASKED, SAID, {"from": "human", "value": "And?"}], "unanswered question"),
    ],
)
def test_what_is_odd_but_can_be_used_is_noted(turns, note):
    assert parse_row(LLAVA | {"conversations": turns}, 0)[1] == (note,)


def conversation(*turns, **kwargs):
    names = ("from", "value")
    return LLAVA | {"conversations": [dict(zip(names, t, strict=True)) for t in turns]} | kwargs


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        ("text", "unknown form", "a row is an object, got str"),
        ({"id": "a"}, "unknown form", "none of conversations, messages, question, prompt, query"),
        (LLAVA | {"tools": [{"name": "f"}]}, "unknown form", "it has tools"),
        (LLAVA | {"objects": {"bbox": [1]}, "x": "<bbox>"}, "unknown form", "write the boxes into"),
        (LLAVA | {"conversations": [ASKED, SAID | {"weight": 0}]}, "unknown form", "weight 0; all"),
        (
            chat([picture("x")], "y", system="a")
            | {"messages": [{"role": "system", "content": "b"}]},
            "turn order",
            "among the turns and beside",
        ),
        ({"prompt": "a"}, "no answer", "a prompt, but no completion"),
        ({"query": "a"}, "no answer", r"turn 1 \(assistant\) is empty"),
        ({"query": "a", "history": ["b"]}, "unknown form", r"no list of \[query, response\]"),
        ({"texts": ["a"]}, "unknown form", "'texts' is not a list of user and assistant"),
        ({"conversations": "x"}, "unknown form", "'conversations' is not a list of turns"),
        (LLAVA | {"image": [1]}, "unknown form", "pictures are names of files"),
        (LLAVA | {"video": "x.mp4"}, "picture without placeholder", "1 pictures and 1 clips"),
        (chat([{"type": "audio"}]), "unknown form", "a part of a message has type 'audio'"),
        (chat([picture("x")], "y", image="x"), "unknown form", "both in the messages and beside"),
        (conversation(("human", {"a": 1})), "unknown form", "a text is a dict"),
        (conversation(("human", "\ud83d")), "unknown form", "half a character"),
        (LLAVA | {"image": "\ud83d.jpg"}, "unknown form", "half a character"),
        (conversation(("tool", "x")), "unknown role", "a turn is from 'tool'; have human"),
        (conversation(("\x1b[2J", "x")), "unknown role", r"from '\?\[2J'"),
        (conversation(), "empty turn", "no turns"),
        (conversation(("human", " \n"), ("gpt", "x")), "empty turn", r"turn 0 \(user\) is empty"),
        (conversation(("human", "<image>"), ("gpt", "")), "no answer", r"turn 1 \(assistant\) is"),
        (conversation(("human", "<image>")), "no answer", "nobody answers"),
        ({"question": "What?"}, "no answer", r"turn 1 \(assistant\) is empty"),
        (conversation(("gpt", "x"), ("human", "y")), "turn order", "assistant speaks first"),
        (conversation(("human", "x"), ("system", "y")), "turn order", "comes late"),
        (LLAVA | {"image": None}, "placeholder without picture", "1 <image> placeholders, but 0"),
        (LLAVA | {"image": ["x", "y"]}, "picture without placeholder", "1 .* but 2 pictures"),
    ],
)
def test_dirt_has_its_kind_and_its_reason(content, kind, reason):
    with pytest.raises(Fault) as error:
        parse_row(content, 0)
    assert error.value.kind == kind
    assert re.search(reason, error.value.reason)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=6)


@settings(max_examples=40)
@given(
    OBJECTS,
    st.sampled_from([None, 1]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 40),
)
def test_places_of_rows_give_their_contents_whatever_the_blocks(
    tmp_path_factory, rows, indent, ascii_only, bom, block
):
    """Both kinds of file, any block size, characters of several bytes cut anywhere."""
    folder = tmp_path_factory.mktemp("rows")
    head = b"\xef\xbb\xbf" if bom else b""
    whole = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    lines = "".join(f" {json.dumps(row, ensure_ascii=ascii_only)}\r\n\n" for row in rows)
    files = {"list.json": whole} | ({"lines.jsonl": lines} if rows else {})
    size, scan._BLOCK = scan._BLOCK, block
    try:
        for name, text in files.items():
            path = folder / name
            path.write_bytes(head + text.encode("utf-8", "surrogatepass"))
            found = list(scan_rows(path))
            assert [each.content for each in found] == rows
            content = path.read_bytes()
            for each in found:
                assert content[each.offset :].startswith(each.source)
                assert decode_row(each.source) == each.content
    finally:
        scan._BLOCK = size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the file is empty\."),
        (b" \n", r"the file is empty\."),
        (b"id,image\n", r"begins with 'id,image\\n', but rows are a JSON list of objects or one"),
        (b'[{"a": 1}', r"breaks at the list, behind byte 9: the end of the file\. Was it copied"),
        (b'[{"a": 1} {"a": 2}]', r"breaks at row 1, behind byte 10: '{'; ',' should follow"),
        (b'[{"a": 1}, {"a": tru', "breaks at row 1, behind byte 11: expecting value"),
        (b'[{"a": 1}, {"a": nul' + b" " * 99 + b"}]", "at row 1, behind byte 11: expecting"),
        (b"[" + b"[" * 100_000, "at row 0, behind byte 1: too many brackets"),
        (b"[" + b"9" * 5_000 + b"]", "at row 0, behind byte 1: exceeds the limit"),
        (b'[{"a": "\xff"}]', "not UTF-8 behind byte 0"),
    ],
)
def test_a_file_that_is_no_list_of_rows_is_one_line(tmp_path, content, message):
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(MresError, match=message):
        list(scan_rows(path))


def test_a_line_that_is_no_json_is_one_bad_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    first, broken, last = scan_rows(path)
    assert (first.content, last.content) == ({"a": 1}, {"a": 3})
    assert isinstance(broken.content, Fault)
    assert broken.content.kind == "not JSON"

"""Chats on the wire: what they become, and the line that each bad one gets."""

import pytest

from mres_jax.data import wire
from mres_jax.errors import BadImageError, PromptError

TEXT = {"type": "text", "text": "what is this"}
PICTURE = wire.picture_part("data:image/png;base64,aGk=")


def user(*content):
    return {"role": "user", "content": list(content)}


def test_pictures_keep_their_places_and_neighbouring_texts_become_one():
    other = wire.picture_part("https://example.org/a.png")
    chat = wire.parse_messages(
        [
            {"role": "developer", "content": "be brief"},
            user(TEXT, PICTURE, TEXT, {"type": "text", "text": " and that"}, other),
            {"role": "assistant", "content": "a cat", "refusal": None, "tool_calls": []},
            {"role": "user", "content": "why"},
        ]
    )
    assert chat.turns == (
        ("system", ("be brief",)),
        ("user", ("what is this", 0, "what is this and that", 1)),
        ("assistant", ("a cat",)),
        ("user", ("why",)),
    )
    assert chat.urls == ("data:image/png;base64,aGk=", "https://example.org/a.png")
    assert chat.question == "why"


def test_pictures_are_replaced_and_nothing_else_is():
    messages = [
        {"role": "system", "content": "be brief"},
        user(PICTURE, TEXT, PICTURE, {"type": "input_audio", "input_audio": {"data": "x"}}),
        {"role": "user", "content": "and?", "name": "me"},
    ]
    changed = wire.with_pictures(messages, lambda i: [f"data:{i}a", f"data:{i}b"][: 2 - i])
    assert [part for part in changed[1]["content"]] == [
        wire.picture_part("data:0a"),
        wire.picture_part("data:0b"),
        TEXT,
        wire.picture_part("data:1a"),
        messages[1]["content"][3],
    ]
    assert changed[0] == messages[0]
    assert changed[2] == messages[2]
    assert len(wire.picture_urls(messages)) == 2
    assert wire.question_of(messages) == "and?"
    assert wire.question_of(messages[:2]) == "what is this"


def test_a_data_url_gives_its_bytes_back():
    content = bytes(range(256))
    assert wire.read_data_url(wire.data_url(content), name="0") == content
    odd = wire.data_url(content).replace("data:image/png", "DATA:IMAGE/X-OTHER;name=a")
    assert wire.read_data_url(odd, name="0") == content


@pytest.mark.parametrize(
    "url", ["data:image/png,abc", "data:;base64", "file:///etc/passwd", "http://a/b.png", "data:"]
)
def test_what_is_no_data_url_is_not_read(url):
    with pytest.raises(BadImageError, match=r"^picture 3: it is no data URL of base64"):
        wire.read_data_url(url, name="3")


@pytest.mark.parametrize("content", ["aGk", "aG k=", "a*==", "\u00e9a=="])
def test_damaged_base64_is_named(content):
    with pytest.raises(BadImageError, match="its base64 is damaged"):
        wire.read_data_url(f"data:image/png;base64,{content}", name="0")


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (None, "give a list of turns"),
        ([], "give a list of turns"),
        ("hi", "give a list of turns"),
        (["hi"], "turn 0 is not an object"),
        ([{"content": "x"}], "turn 0 has role None"),
        ([{"role": "usr", "content": "x"}], "turn 0 has role 'usr' (did you mean user?)"),
        ([{"role": "tool", "content": "x"}], "turn 0 has role 'tool'; have"),
        ([{"role": "user"}], "turn 0: its content must be a text or a list"),
        ([user()], "turn 0 (user) is empty"),
        ([{"role": "user", "content": ""}], "turn 0 (user) is empty"),
        ([user({"type": "input_audio"})], "part of type 'input_audio'; have text, image_url"),
        ([user("x")], "part of type None"),
        ([user({"type": "video_url"})], "has a clip (video_url); send its frames in order"),
        ([user({"type": "text"})], "a text part without a text"),
        ([user({"type": "image_url"})], "a picture without address"),
        ([user({"type": "image_url", "image_url": {"url": 3}})], "a picture without address"),
        (
            [user({"type": "image_url", "image_url": {"url": "data:", "detail": "huge"}})],
            "detail='huge'; have auto, low, high",
        ),
        ([{"role": "user", "content": "x", "tool_calls": [1]}], "'tool_calls' has no meaning here"),
        ([user(TEXT), {"role": "assistant", "content": "y"}], "the last, is of role 'assistant'"),
        ([user({"type": "text", "text": "a\ud800"})], "half of a surrogate pair"),
    ],
)
def test_a_chat_that_cannot_be_is_one_line(messages, text):
    with pytest.raises(PromptError) as error:
        wire.parse_messages(messages)
    assert text in str(error.value)
    assert "\n" not in str(error.value)

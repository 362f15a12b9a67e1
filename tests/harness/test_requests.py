"""What harnesses hand over, in all its forms, and how answers are generated."""

import numpy as np
import pytest

from mres_jax.errors import MresError
from mres_jax.harness.asked import read_arguments, to_request
from mres_jax.harness.options import to_sampling
from mres_jax.protocols import Clip, Sampling
from mres_jax.testing import tiny_spec, tiny_tokenizer

SPEC = tiny_spec(tiny_tokenizer())
OPTIONS = {"max_new_tokens": 8}


def show(document):
    return [{"role": "user", "content": [{"type": "text", "text": document["ask"]}]}]


def visuals(document):
    return [document["image"]]


@pytest.mark.parametrize(
    "arguments",
    [
        ("context", show, OPTIONS, 3, "toy", "test"),  # as 0.7.3 makes them
        (show, OPTIONS, 3, "toy", "test"),  # as its guide describes them
        ("what?", OPTIONS, visuals, 3, "toy", "test"),  # of models without chats
    ],
)
def test_a_request_is_read_in_each_of_its_forms(arguments, documents):
    asked = read_arguments(arguments)
    assert (asked.name, asked.options) == ("toy/test/3", OPTIONS)
    (message,) = asked.messages(documents[0] | {"ask": "what?"})
    assert message["content"][-1] == {"type": "text", "text": "what?"}
    assert message["content"][:-1] == (
        [{"type": "image", "url": documents[0]["image"]}] if visuals in arguments else []
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("context", show, OPTIONS, 3, "toy"),
        ("context", show, OPTIONS, 3, "toy", "test", "more"),
        ("context", OPTIONS, OPTIONS, 3, "toy", "test"),
        (),
    ],
)
def test_a_request_of_another_form_is_an_error_that_names_it(arguments):
    with pytest.raises(MresError, match=rf"has {len(arguments)} arguments"):
        read_arguments(arguments)


def request(*messages):
    return to_request(messages, id="toy/test/0", policy="native", spec=SPEC)


def test_a_chat_keeps_its_order_and_joins_neighbouring_texts(documents):
    one, two = documents[0]["image"], documents[1]["image"]
    text = {"type": "text", "text": "a"}
    made = request(
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [text, {"type": "image", "url": one}, text, text]},
        {"role": "assistant", "content": [text]},
        {"role": "user", "content": [{"type": "image", "url": two}, text]},
    )
    roles = ("system", "user", "assistant", "user")
    parts = (("be brief",), ("a", 0, "aa"), ("a",), (1, "a"))
    assert made.turns == tuple(zip(roles, parts, strict=True))
    assert made.question == "a"
    for item, image in zip(made.images, (one, two), strict=True):
        np.testing.assert_array_equal(item, np.asarray(image))


def test_a_folder_of_frames_is_a_clip(tmp_path, documents):
    for number in range(4):
        documents[0]["image"].save(tmp_path / f"{number}.png")
    made = request({"role": "user", "content": [{"type": "video", "url": str(tmp_path)}]})
    (clip,) = made.images
    assert isinstance(clip, Clip)
    assert len(clip.frames) == 4


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"role": "tool", "content": "a"}, "turn 0 has role 'tool'"),
        ({"role": "user", "content": []}, "asks nothing"),
        ({"role": "user", "content": [{"type": "audio", "url": "a.wav"}]}, "part of type 'audio'"),
        ({"role": "user", "content": [{"type": "image", "url": "none.png"}]}, "no such file"),
        ({"role": "user", "content": [{"type": "video", "url": 3}]}, "a video is a int"),
        (
            {"role": "user", "content": [{"type": "video", "url": "a.mp4", "start_time": 2.0}]},
            "only a part of a video",
        ),
    ],
)
def test_what_cannot_be_asked_is_named_with_its_question(message, error):
    with pytest.raises(MresError, match=f"toy/test/0: .*{error}"):
        request(message)


@pytest.mark.parametrize(
    ("options", "sampling"),
    [
        ({}, Sampling(max_new_tokens=32)),
        ({"until": None, "do_sample": False}, Sampling(max_new_tokens=32)),
        ({"until": ["\n\n", ""], "num_beams": 1}, Sampling(max_new_tokens=32, stop=("\n\n",))),
        (
            {"max_new_tokens": 8, "temperature": 0, "top_p": None, "image_aspect_ratio": "pad"},
            Sampling(max_new_tokens=8),
        ),
        ({"do_sample": False, "temperature": 0.7, "top_p": 1.0}, Sampling(max_new_tokens=32)),
        ({"temperature": 0.7, "top_k": 3}, Sampling(temperature=0.7, top_k=3, max_new_tokens=32)),
        ({"do_sample": True, "max_gen_toks": 4}, Sampling(temperature=1.0, max_new_tokens=4)),
        ({"until": "stop"}, Sampling(max_new_tokens=32, stop=("stop",))),
        ({"temperature": 0, "top_p": 0, "do_sample": False}, Sampling(max_new_tokens=32)),
        ({"temperature": 0.0, "top_p": 0.5, "top_k": 3}, Sampling(max_new_tokens=32)),
        ({"do_sample": False, "top_k": -1}, Sampling(max_new_tokens=32)),
        ({"temperature": 0.7, "top_k": -1}, Sampling(temperature=0.7, max_new_tokens=32)),
    ],
)
def test_options_of_tasks_become_a_sampling(options, sampling):
    assert to_sampling(options, max_new_tokens=32, name="toy") == sampling


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_beams": 4}, "num_beams=4 cannot be done"),
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2 cannot"),
        ({"max_new_token": 4}, r"'max_new_token' is not known here \(did you mean max_new_tokens"),
        ({"max_new_tokens": 4, "max_gen_toks": 5}, "differ"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": -1}, "temperature=-1"),
        ({"temperature": "warm"}, "could not convert"),
        ({"temperature": 1, "top_p": 0}, "top_p=0"),
        ({"temperature": 1, "top_k": -2}, "top_k=-2"),
        ({"until": [3]}, "is no text"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(options, error):
    with pytest.raises(MresError, match=f"toy: .*{error}"):
        to_sampling(options, max_new_tokens=32, name="toy")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tokens": 182}, r'tokens: no such option. .*policy="fixed,tokens=182"'),
        ({"policy": "fixd:64"}, "fixd"),
        ({"coord_space": "px"}, "coord_space='px'; have task, model"),
        ({"batch_size": "many"}, "batch_size='many'"),
        ({"max_batch_size": 0}, "max_batch_size=0"),
        ({"device": "cuda:0"}, "jax runs on cpu here"),
    ],
)
def test_options_of_the_model_that_are_none_are_refused(options, error, make_model):
    with pytest.raises(MresError, match=error):
        make_model(**options)


def test_options_that_come_as_text_are_read(make_model):
    model = make_model(policy='"fixed:48,mode=pad"', batch_size="auto", device="cpu:0")
    assert (model.policy, model.batch_size) == ("fixed:48,mode=pad", 32)
    assert make_model(batch_size="16", max_batch_size=8).batch_size == 8

"""Runs whose backbone is behind a server, here a scripted one: what is sent, kept and waited for.

Where answers agree nothing is learned, and nothing but the drawing of scales is compiled.
"""

import dataclasses
import json
import os
import signal
import threading
import time

import numpy as np
import pytest

from mres_jax.cli import main
from mres_jax.config import BackboneTraining, Schedule, ServerConfig
from mres_jax.data.views import render_view
from mres_jax.errors import ConfigError, MresError, RunError
from mres_jax.inference import http
from mres_jax.inference.patience import ServerGoneError
from mres_jax.models.checkpoint_io import absolute
from mres_jax.models.manifest import list_steps
from mres_jax.models.registry import FAMILIES
from mres_jax.protocols import Sampling
from mres_jax.resolution.allocator.store import load_allocator
from mres_jax.testing import Reply, serve_script
from mres_jax.testing.allocator_runs import MeanEyes
from mres_jax.testing.chat_server import ChatServer
from mres_jax.testing.runs import rows_without_clocks
from mres_jax.testing.tiny import LIMITS, tiny_config, tiny_tokenizer
from mres_jax.training.allocator import parts as allocator_parts
from mres_jax.training.allocator.loop import train_allocator
from mres_jax.training.allocator.prompts import limit_pixels, open_prompt, open_questions
from mres_jax.training.allocator.rollouts import plan_views, to_request
from mres_jax.training.allocator.served import (
    REPLIES,
    KeptReplies,
    Link,
    load_served,
    open_served,
)
from mres_jax.training.metrics import read_rows
from mres_jax.training.setup import CHECKPOINTS

LARGE = "return float(int(answer.text.split()[0]) >= 6)"  # the first frame is looked at enlarged
AGREED = {"body": "return 1.0", "drop_agreeing": True}
NOWHERE = "http://127.0.0.1:9/v1#scripted"


def quiet(line):
    """Says nothing."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(http, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(allocator_parts, "open_eyes", lambda name: MeanEyes())


@pytest.fixture(scope="module")
def processors(tmp_path_factory):
    """What is known of served models without their weights, by family."""
    tokenizer, places = tiny_tokenizer(), {}
    for name in ("qwen2_vl", "qwen3_vl"):
        folder = tmp_path_factory.mktemp(name)
        content = FAMILIES[name].config_to_hf(tiny_config(name, tokenizer))
        (folder / "config.json").write_text(json.dumps(content))
        (folder / "preprocessor_config.json").write_text(json.dumps(LIMITS))
        (folder / "tokenizer.json").write_bytes(tokenizer.to_bytes())
        places[name] = str(folder)
    return places


@pytest.fixture
def make_served(make_run, processors):
    """A run about the backbone at an address; it waits for nobody."""

    def make(address, name="run", *, body=LARGE, steps=3, every=2, server=None, **changes):
        settings = {"processor": processors["qwen2_vl"], "retries": 1, "patience": 0.0}
        run = make_run(
            name,
            body=body,
            backbone=address,
            server=ServerConfig(**settings | (server or {})),
            schedule=Schedule(num_steps=steps, warmup_steps=0, kind="constant"),
            **changes,
        )
        saving = dataclasses.replace(run.checkpoint, every_steps=every)
        return dataclasses.replace(run, checkpoint=saving)

    return make


def count(received):
    """Tokens of what was received, from the template of Qwen2-VL written out as one text."""
    text = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    for part in received.parts:
        if isinstance(part, str):
            text += part
            continue
        height, width = part[0]
        kind = "image" if len(part) == 1 else "video"
        text += "<|vision_start|>" + f"<|{kind}_pad|>" * (height * width // 64) + "<|vision_end|>"
    tokens = tiny_tokenizer().encode_trusted(text + "<|im_end|>\n<|im_start|>assistant\n")
    return len(tokens)


def read(received):
    """Says how many visual tokens the first frame has, n times a little differently."""
    height, width = received.images[0].shape[:2]
    texts = [f"{height * width // 64} {i}" for i in range(received.body["n"])]
    return Reply(texts=texts, prompt_tokens=count(received))


def gone_after(requests, then=None):
    """A script that reads so many requests and none behind them; `then` is called at the first."""
    lock, left = threading.Lock(), [requests]

    def script(received):
        with lock:
            left[0] -= 1
            if left[0] == -1 and then is not None:
                then()
        return read(received) if left[0] >= 0 else Reply(status=503, raw=b"{}")

    return script


def asked_by(run, spec, *, scales=(0.6, 1.0, 1.4, 0.8)):
    """A request of a run about its first row, with frames of different sizes."""
    row = open_questions(run.data).train[0]
    prompt = open_prompt(row, run.data, spec, wire=run.wire, times=run.times)
    _, views = plan_views(prompt, np.array(scales), spec)
    return prompt, to_request(prompt, "r0@1.0/0", views)


@pytest.mark.parametrize(
    ("wire", "times", "kinds"),
    [
        ("stills", False, ["image_url"] * 4 + ["text"]),
        ("stills", True, ["text", "image_url"] * 4 + ["text"]),
        ("pairs", False, ["text", "video_url"] * 2 + ["text"]),
    ],
)
def test_a_server_gets_every_frame_at_its_size_bit_for_bit_and_counts_as_we_do(
    wire, times, kinds, make_served, write_clips, tmp_path
):
    data = write_clips(tmp_path, sizes=((48, 32), (32, 32)))
    with serve_script(read) as server:
        run = make_served(server.address, wire=wire, times=times, data=data)
        spec, tokenizer = load_served(run)
        prompt, request = asked_by(run, spec)
        sampling = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=5)
        answers = open_served(run, spec, tokenizer).answer(
            [request, dataclasses.replace(request, id="r0@1.0/1")], n=3, sampling=sampling, seed=7
        )
    first, second = sorted(server.received, key=lambda received: received.body["seed"])
    assert len({view.size for view in request.views}) > 1
    frames = [(view, view.frames or (view.item,)) for view in request.views]
    views = [(view, prompt.frames[i]) for view, places in frames for i in places]
    for sent, (view, frame) in zip(first.images, views, strict=True):
        np.testing.assert_array_equal(sent, render_view(frame, view))
    ((message,), (other,)) = (each.body["messages"] for each in (first, second))
    assert [part["type"] for part in message["content"]] == kinds
    said = [part["text"] for part in message["content"] if part["type"] == "text"]
    seconds = {"pairs": (0.2, 1.2), "stills": (0.0, 0.5, 1.0, 1.5) if times else ()}[wire]
    assert said == [*(f"<{t:.1f} seconds>" for t in seconds), "what is red"]
    assert message == other
    fields = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 5, "n": 3, "model": "scripted"}
    fields |= {"mm_processor_kwargs": {"min_pixels": 64, "max_pixels": spec.max_pixels}}
    assert {name: first.body[name] for name in fields} == fields
    assert first.body["seed"] != second.body["seed"]
    for some in answers:
        assert [answer.text[-2:] for answer in some] == [" 0", " 1", " 2"]
        tokens = sum(view.size.area for view in request.views) // 64
        assert {answer.cost.visual_tokens for answer in some} == {tokens}
        assert tokens + some[0].cost.text_tokens == count(first)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda ours: ours + 7,
            r"'r\d@1\.\d/\d': it counts \d+ prompt tokens, we \d+: \d+ visual ",
        ),
        (lambda ours: None, r"no usage\.prompt_tokens, so nobody knows whether it resizes"),
    ],
)
def test_a_server_that_counts_otherwise_or_not_at_all_ends_the_run(
    wrong, message, make_served, tmp_path
):
    def script(received):
        return dataclasses.replace(read(received), prompt_tokens=wrong(count(received)))

    with serve_script(script) as server, pytest.raises(RunError, match=message):
        train_allocator(make_served(server.address), log=quiet)
    assert not (tmp_path / "run" / REPLIES).exists()  # what was refused is asked again


def test_a_run_that_is_cut_in_a_step_goes_on_and_asks_only_what_nobody_answered(
    make_served, tmp_path
):
    with serve_script(read) as server:
        run = make_served(server.address, "whole", **AGREED, server={"concurrency": 1})
        train_allocator(run, log=quiet)
    assert (server.most_at_once, len(server.received)) == (1, 3 * 2 * 4)

    def broken(received):  # in the third step; the second is saved
        return read(received) if len(first.received) <= 20 else Reply(status=400, raw=b"")

    with serve_script(broken) as first:
        run = make_served(first.address, "cut", **AGREED, server={"concurrency": 3})
        with pytest.raises(MresError, match="HTTP 400"):
            train_allocator(run, log=quiet)
    kept = read_rows(tmp_path / "cut" / REPLIES)
    with (tmp_path / "cut" / REPLIES).open("a") as file:
        file.write('{"sent": "half a li')  # it was killed
    said = []

    def later(received):  # a server says something else when it is asked again
        reply = read(received)
        return dataclasses.replace(reply, texts=[f"{text} again" for text in reply.texts])

    with serve_script(later) as second:
        run = make_served(second.address, "cut", **AGREED, server={"concurrency": 3})
        train_allocator(run, log=said.append)
    assert f"{len(kept)} replies of the server since the last save are taken as they were" in said
    assert 0 < len(kept) == 8 - len(second.received)
    rows = {name: read_rows(tmp_path / name / "rollouts.jsonl") for name in ("whole", "cut")}
    answers = {name: [row["answers"][0] for row in some] for name, some in rows.items()}
    again = ["again" in text for text in answers["cut"]]
    assert not any(again[:16])
    assert sum(again) == len(second.received)
    assert [text.removesuffix(" again") for text in answers["cut"]] == answers["whole"]


@pytest.mark.slow
def test_a_run_that_learns_is_the_same_at_any_concurrency_and_where_it_was_cut(
    make_served, tmp_path
):
    many = {"rollouts": 2, "temperature": 0.7, "top_p": 0.9}

    def slow(received):
        return dataclasses.replace(read(received), seconds=0.01 * (received.body["seed"] % 5))

    with serve_script(read) as server:
        run = make_served(server.address, "whole", **many, server={"concurrency": 1})
        whole = train_allocator(run, log=quiet)
    assert (server.most_at_once, len(server.received)) == (1, 3 * 2 * 4)
    assert len({received.body["seed"] for received in server.received}) == 3 * 2 * 4

    def broken(received):
        return slow(received) if len(first.received) <= 20 else Reply(status=400, raw=b"")

    with serve_script(broken) as first, pytest.raises(MresError, match="HTTP 400"):
        train_allocator(make_served(first.address, "cut", **many), log=quiet)
    with serve_script(slow) as second:
        again = train_allocator(make_served(second.address, "cut", **many), log=quiet)
    assert first.most_at_once > 1
    assert rows_without_clocks(tmp_path / "cut") == rows_without_clocks(tmp_path / "whole")
    lines = [(tmp_path / name / "rollouts.jsonl").read_text() for name in ("cut", "whole")]
    assert lines[0] == lines[1]
    np.testing.assert_array_equal(
        again.network.frame_proj.kernel.get_value(), whole.network.frame_proj.kernel.get_value()
    )


def test_a_server_that_dies_in_a_step_and_comes_back_is_waited_for(make_served, tmp_path):
    said, died = [], threading.Event()
    server = ChatServer(gone_after(11, died.set))

    def restart():
        died.wait()
        port = server.port
        server.__exit__()
        time.sleep(0.3)  # nobody listens
        with ChatServer(read, port=port) as again:
            done.wait()
            received.append(len(again.received))

    received, done, thread = [], threading.Event(), threading.Thread(target=restart)
    with serve_script(read) as whole:
        train_allocator(make_served(whole.address, "whole", **AGREED), log=quiet)
    server.__enter__()
    thread.start()
    try:
        run = make_served(server.address, **AGREED, server={"patience": 60.0, "concurrency": 4})
        found = train_allocator(run, log=said.append)
    finally:
        died.set()
        done.set()
        thread.join()
    assert found.step == 3
    waits = [line for line in said if "nobody is answered, waiting up to 60 s" in line]
    assert len(waits) == len([line for line in said if "answers again, after" in line]) == 1
    assert received == [24 - 11]
    assert rows_without_clocks(tmp_path / "run") == rows_without_clocks(tmp_path / "whole")


def test_a_server_that_never_comes_back_ends_the_run_which_goes_on_from_there(
    make_served, tmp_path
):
    with serve_script(gone_after(11)) as server:
        run = make_served(server.address, every=10, **AGREED, server={"patience": 0.2})
        with pytest.raises(ServerGoneError, match=r"503: {}, and nobody was answered for 0\.2 s"):
            train_allocator(run, log=quiet)
    assert load_allocator(tmp_path / "run/allocator").facts["step"] == 1
    assert list_steps(absolute(tmp_path / "run" / CHECKPOINTS)) == [1]
    assert [row["step"] for row in rows_without_clocks(tmp_path / "run")] == [1]
    with serve_script(read) as again:  # at another address
        found = train_allocator(make_served(again.address, every=10, **AGREED), log=quiet)
    assert found.step == 3
    assert len(again.received) == 24 - 11
    assert load_allocator(tmp_path / "run/allocator").facts["step"] == 3


def test_sigterm_while_it_waits_saves_and_stops(make_served, tmp_path):
    said, sent = [], []

    def end():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    with serve_script(gone_after(11, end)) as server:
        waits = {"patience": 600.0, "timeout": 10.0}  # a try that hangs comes to its timeout first
        run = make_served(server.address, every=10, **AGREED, server=waits)
        found = train_allocator(run, log=said.append)
    assert time.monotonic() - sent[0] < 60
    assert found.step == 1
    assert "stopped by SIGTERM after step 1; saved" in said[-1]
    assert load_allocator(tmp_path / "run/allocator").facts["step"] == 1
    assert len(read_rows(tmp_path / "run" / REPLIES)) == 11


def test_a_request_that_fails_while_others_are_answered_is_given_up(make_served, tmp_path):
    def script(received):
        return Reply(status=500, raw=b"{}") if "bad" in received.text else read(received)

    with serve_script(script) as server:
        run = make_served(server.address, server={"patience": 60.0, "concurrency": 2})
        spec, tokenizer = load_served(run)
        _, request = asked_by(run, spec)
        good = [dataclasses.replace(request, id=f"{i}") for i in range(60)]
        bad = dataclasses.replace(request, id="bad", question="bad")
        with pytest.raises(RunError, match=r"request 'bad': HTTP 500: {} \(\d tries\)"):
            open_served(run, spec, tokenizer, Link(tmp_path, 60.0, quiet)).answer([bad, *good])


def test_a_request_is_not_given_up_where_a_server_that_goes_down_answers_what_came_before(
    make_served, tmp_path
):
    begun = time.monotonic()

    def script(received):  # three that came first take a while each; for others it is gone by then
        if "early" in received.text:
            return dataclasses.replace(read(received), seconds=0.1 * int(received.text[-1]))
        is_down = time.monotonic() < begun + 1.0
        return Reply(status=503, raw=b"{}") if is_down else read(received)

    with serve_script(script) as server:
        run = make_served(server.address, server={"patience": 60.0, "concurrency": 6})
        spec, tokenizer = load_served(run)
        _, request = asked_by(run, spec)
        questions = ["early 3", "early 5", "early 7", "late", "late", "late"]
        some = [
            dataclasses.replace(request, id=f"{i}", question=q) for i, q in enumerate(questions)
        ]
        begun = time.monotonic()
        answers = open_served(run, spec, tokenizer, Link(tmp_path, 60.0, quiet)).answer(some)
    assert len(answers) == 6


def test_replies_behind_a_line_that_was_cut_short_are_read_again(tmp_path):
    bodies = [{"model": "m", "n": i} for i in range(3)]
    replies = KeptReplies(tmp_path / REPLIES)
    assert replies.open() == 0
    replies.add(bodies[0], {"choices": [0], "usage": {}, "id": "x"})
    with (tmp_path / REPLIES).open("a") as file:
        file.write('{"sent": "half a li')
    assert replies.open() == 1
    replies.add(bodies[1], {"choices": [1]})
    again = KeptReplies(tmp_path / REPLIES)
    assert again.open() == 2
    assert [again.find(body) for body in bodies] == [
        {"choices": [0], "usage": {}},
        {"choices": [1]},
        None,
    ]
    again.forget()
    assert again.find(bodies[0]) is None
    assert not (tmp_path / REPLIES).exists()


def test_a_reply_behind_a_first_line_that_was_cut_short_is_kept(tmp_path):
    (tmp_path / REPLIES).write_text('{"sent": "half a li')
    replies = KeptReplies(tmp_path / REPLIES)
    assert replies.open() == 0
    replies.add({"n": 1}, {"choices": [1]})
    again = KeptReplies(tmp_path / REPLIES)
    assert again.open() == 1
    assert again.find({"n": 1}) == {"choices": [1]}


def test_empty_answers_and_control_tokens_are_texts_that_earn_nothing(make_served, tmp_path):
    def script(received):
        texts = ["", "<|image_pad|><|im_end|>"]
        return dataclasses.replace(read(received), texts=texts)

    with serve_script(script) as server:
        run = make_served(server.address, rollouts=2, steps=1, body=None, drop_agreeing=True)
        train_allocator(run, log=quiet)
    (row,) = rows_without_clocks(tmp_path / "run")
    assert (row["right"], row["empty_answers"], row["groups_dropped"]) == (0, 8, 2)


def test_what_a_served_backbone_cannot_do_is_refused(make_served, make_run, processors, capsys):
    with pytest.raises(ConfigError, match="is a server: it keeps its weights"):
        make_served(NOWHERE, backbone_training=BackboneTraining())
    with pytest.raises(ConfigError, match=r"needs server\.processor: the directory or hub id"):
        make_run(backbone=NOWHERE)
    with pytest.raises(ConfigError, match="http://host:port/v1#name"):
        make_run(backbone="http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="times=true is of wire=stills"):
        make_run(wire="pairs", times=True)
    with pytest.raises(ConfigError, match=r"timeout=0\.0 must be above 0"):
        ServerConfig(timeout=0.0)
    run = make_served(NOWHERE, wire="pairs", server={"processor": processors["qwen3_vl"]})
    with pytest.raises(ConfigError, match="writes the time of every pair itself, and behind"):
        load_served(run)
    command = ["plan", "configs/resadapt/overnight_1gpu.py", "--topology", "gpu:h200x1"]
    assert main(command) == 2
    assert "answers behind a server, and only what is computed here" in capsys.readouterr().err


def test_pictures_are_limited_at_scale_1_and_a_limit_below_the_least_is_refused(
    make_served, write_clips, tmp_path
):
    data = write_clips(tmp_path, sizes=((64, 64), (32, 32)))
    for wire in ("stills", "pairs"):
        run = make_served(NOWHERE, wire=wire, data=data)
        spec = limit_pixels(load_served(run).spec, 1_024)
        prompt, request = asked_by(run, spec, scales=(1.0, 1.0, 1.0, 1.0))
        assert {frame.shape for frame in prompt.frames} == {(64, 64, 3)}
        assert {view.size.area for view in request.views} == {1_024}
    with pytest.raises(ConfigError, match=r"data\.max_pixels=16 is below 128"):
        limit_pixels(spec, 16)

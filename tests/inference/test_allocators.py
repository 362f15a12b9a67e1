"""The policy `allocator` end to end on the shipped reader: eyes, network, budget, answer, cost."""

import dataclasses
import json
import re

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from mres_jax.cli import main
from mres_jax.data.images import decode_image
from mres_jax.errors import CheckpointError, PolicyError, PromptError
from mres_jax.geometry import Box, Size, View
from mres_jax.inference import load
from mres_jax.inference.allocators import Allocators, LoadedAllocator, open_eyes
from mres_jax.inference.eyes import Eyes
from mres_jax.inference.strip import CELL, COLUMNS, GAP, OUTLINE, draw_strip
from mres_jax.protocols import FeatureExtractor, Request
from mres_jax.resolution.allocator.config import AllocatorConfig
from mres_jax.resolution.allocator.network import AllocatorNetwork
from mres_jax.resolution.allocator.policy import AllocatorPolicy
from mres_jax.resolution.allocator.store import save_allocator
from mres_jax.testing import tiny_clip, tiny_qwen2_vl

QUESTION = "What is the invoice number?"
SIZES = ((96, 128), (256, 200), (64, 64))


def small_network(features=128):
    """Random, with a head that tells frames apart."""
    config = AllocatorConfig(
        frame_size=features,
        question_size=features,
        hidden_size=32,
        num_layers=1,
        num_heads=2,
        num_temporal_heads=1,
        head_dim=16,
        init="released",
    )
    network = AllocatorNetwork(config, rngs=nnx.Rngs(0))
    skip = network.head.skip.kernel
    draw = np.random.default_rng(0)
    skip.set_value(np.asarray(8 * draw.normal(size=skip.get_value().shape), np.float32))
    network.head.down.bias.set_value(np.zeros(2, np.float32))
    return network


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    directory = tmp_path_factory.mktemp("allocator") / "a"
    save_allocator(directory, small_network(), features="mres-tiny")
    return directory


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Paths of three pictures of different sizes."""
    directory = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    paths = []
    for i, size in enumerate(SIZES):
        coarse = draw.integers(0, 255, (size[0] // 8, size[1] // 8, 3), np.uint8)
        pixels = coarse.repeat(8, axis=0).repeat(8, axis=1)
        paths.append(str(directory / f"{i}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def vlm():
    return load()


def test_the_shipped_reader_has_eyes():
    eyes = open_eyes("mres-tiny")
    assert isinstance(eyes, FeatureExtractor)
    draw = np.random.default_rng(0)
    frames = [draw.integers(0, 255, (40 + 8 * i, 60, 3), np.uint8) for i in range(9)]
    found, question = eyes.features(frames, QUESTION)
    assert found.shape == (9, 64, 128)
    assert question.shape == (len(eyes.tokenizer.encode_text(QUESTION)), 128)
    alone, _ = eyes.features(frames[8:], QUESTION)  # the ninth is alone in its chunk
    np.testing.assert_allclose(found[8:], alone, atol=1e-5)
    last, _ = eyes.features(frames[5:6], QUESTION)
    np.testing.assert_allclose(found[5:6], last, atol=2e-4)  # beside seven others: sums reorder
    with pytest.raises(PromptError, match="the question is empty"):
        eyes.features(frames[:1], "")


@pytest.mark.slow
def test_an_answer_is_given_at_the_retention_asked_for_and_carries_the_cost_of_looking(
    vlm, weights, pictures
):
    plain = vlm.answer(pictures, QUESTION, max_new_tokens=2)
    policy = f"allocator,weights={weights},retention=0.25"
    answer = vlm.answer(pictures, QUESTION, policy=policy, max_new_tokens=2)
    # 104 native tokens: 12 x 16 + 16 x 12.5 + 4 x 4, so a quarter within one step of a side
    assert 0.18 < answer.cost.retention_ratio <= 0.25
    assert {view.item for view in answer.views} == {0, 1, 2}
    assert answer.cost.ms["allocator"] > 0
    assert "allocator" not in plain.cost.ms
    looked = Allocators().open(weights).eyes.flops(3, QUESTION)
    assert answer.cost.flops > looked > 0


def test_pictures_may_be_left_out(vlm, weights, pictures):
    policy = f"allocator,weights={weights},top=1"
    answer = vlm.answer(pictures, QUESTION, policy=policy, max_new_tokens=2)
    (view,) = answer.views
    images = [decode_image(path) for path in pictures]
    scales = Allocators().open(weights).scales(images, QUESTION)
    assert view.item == int(np.argmax(scales))
    alone = vlm.answer(
        pictures[view.item], QUESTION, policy=f"scale:{float(scales.max())!r}", max_new_tokens=2
    )
    assert answer.token_ids == alone.token_ids


@pytest.mark.parametrize("options", ["", ",retention=0.25", ",top=1", ",top=2,retention=0.5"])
def test_a_check_counts_the_most_that_an_answer_may_look_at(vlm, weights, pictures, options):
    images = [decode_image(path) for path in pictures]
    policy = f"allocator,weights={weights}{options}"
    request = Request(id="a", images=images, question=QUESTION, policy=policy)
    most = vlm.answerer.check(request, 2)
    answer = vlm.answer(pictures, QUESTION, policy=policy, max_new_tokens=2)
    assert answer.cost.visual_tokens + answer.cost.text_tokens <= most
    if not options:
        every = dataclasses.replace(request, policy=f"scale:{small_network().config.max_scale}")
        assert most == vlm.answerer.check(every, 2)
    if "retention" in options:
        native = dataclasses.replace(request, policy="native")
        assert most < vlm.answerer.check(native, 2)


def test_without_pictures_nothing_is_allocated(vlm, weights):
    policy = f"allocator,weights={weights}"
    assert vlm.answer([], QUESTION, policy=policy, max_new_tokens=1).views == ()


def test_an_allocator_is_loaded_once(weights):
    allocators = Allocators()
    assert allocators.open(weights) is allocators.open(str(weights))


def test_eyes_of_another_width_are_refused():
    with pytest.raises(CheckpointError, match="features 24 and 24 wide, but mres-tiny gives 128"):
        LoadedAllocator(small_network(24), open_eyes("mres-tiny"), name="a")


def test_a_budget_too_small_is_one_line(vlm, weights, pictures):
    with pytest.raises(PolicyError, match="budget of 1 visual tokens, but 3 pictures take"):
        vlm.answer(pictures, QUESTION, policy=f"allocator,weights={weights},retention=0.004")


def test_the_command_prints_scales_and_tokens_and_draws_them(weights, pictures, tmp_path, capsys):
    words = ["allocate", *pictures, "-q", QUESTION, "--weights", str(weights)]
    code = main([*words, "--retention", "0.3", "--save", str(tmp_path), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    content = json.loads(captured.out)
    assert len(content["frames"]) == 3
    assert content["visual_tokens"] == sum(frame["tokens"] for frame in content["frames"])
    assert content["retention_ratio"] <= 0.3
    with Image.open(tmp_path / "allocation.png") as strip:
        assert strip.size == (3 * (CELL + GAP) + GAP, CELL + 2 * GAP)
    assert main([*words, "--top", "1"]) == 0
    assert capsys.readouterr().out.count("left out") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["allocate", "-q", "x", "-w", "nowhere"], "no pictures"),
        (
            ["allocate", "PICTURE", "-q", "x", "-w", "nowhere"],
            "nowhere: allocator.json",
        ),
        (["allocate", "PICTURE", "-q", "x", "-w", "W", "--top", "0"], "top=0 must keep"),
        (["allocate", "PICTURE", "-q", "x", "-w", "W", "--retention", "-1"], "retention=-1.0"),
    ],
)
def test_what_cannot_be_allocated_is_one_line(words, message, weights, pictures, capsys):
    stand_ins = {"PICTURE": pictures[0], "W": str(weights)}
    assert main([stand_ins.get(word, word) for word in words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(message, err)


def test_a_strip_draws_each_picture_at_its_share():
    image = np.zeros((100, 100, 3), np.uint8)
    native = [Size(100, 100)] * (COLUMNS + 1)
    whole = Box(0, 0, 100, 100)
    views = [
        View(item=0, crop=whole, size=Size(100, 100)),
        View(item=2, crop=whole, size=Size(50, 50)),
    ]
    strip = draw_strip([image] * len(native), views, native)
    assert strip.shape == (2 * (CELL + GAP) + GAP, COLUMNS * (CELL + GAP) + GAP, 3)
    black = (strip == 0).all(axis=2)
    assert black[:, : CELL + GAP].sum() == CELL**2
    assert black.sum() == CELL**2 + (CELL // 2) ** 2
    assert (strip[GAP - 1, GAP + CELL + GAP + 10] == OUTLINE).all()  # left out: its outline alone


@pytest.mark.slow
def test_a_clip_is_allocated_in_the_groups_of_frames_that_the_model_sees():
    tiny = tiny_qwen2_vl()
    eyes = Eyes("tiny", tiny.model, tiny.spec, tiny.tokenizer)
    loaded = LoadedAllocator(small_network(eyes.size), eyes, name="tiny")
    policy = AllocatorPolicy(weights="tiny", retention=0.5)
    clip = tiny_clip(0, 32, 48, frames=5)
    look = loaded.look(policy, [clip], QUESTION, tiny.spec)
    assert len(look.scales) == 5
    assert [view.frames for view in look.views] == [(0, 1), (2, 3), (4, 4)]
    assert 0 < look.allocation.retention <= 0.5
    pair = np.mean(look.scales[:2])
    assert look.allocation.scales[0] == pytest.approx(pair)

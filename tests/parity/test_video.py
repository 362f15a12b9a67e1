"""Qwen models asked about clips, against live `transformers`: logits, greedy text, positions."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_peers import KINDS, NEW_TOKENS, ROOM, STRIDE, Inputs, Peer
from flax import nnx
from PIL import Image

from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import Message
from mres_jax.data.packing import example_slices, pack
from mres_jax.data.types import Example, Pack, Rung
from mres_jax.data.video import FrameSampling, clip_of
from mres_jax.geometry import Size
from mres_jax.inference.generate import Generator
from mres_jax.protocols import Item, Request, Sampling, extent_of
from mres_jax.resolution.policies import parse_policy

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("chatter")]

TOLERANCE = 2e-4  # of logits up to about 10 in float32, through up to six layers
VISIBLE = 50 * TOLERANCE  # what a clip must change, so that agreement says something
CLEAR = 1e-4  # gap of the two best scores
RATES = (0.7, 2.0, 5.0)  # frames per second
ASK = "what is the total?"

Part = str | tuple[int, ...]  # text; a picture (rows, columns); a clip (frames, rows, columns)
MIXES: dict[str, list[list[Part]]] = {
    "a clip": [[(8, 3, 4), ASK]],
    "a clip of an odd number of frames": [[(5, 3, 2), ASK]],
    "several clips": [[(4, 2, 3), "red", (6, 4, 2), (2, 1, 5), ASK]],
    "a picture and a clip": [[(3, 4), (4, 2, 3), ASK]],
    "a clip and pictures around it": [[(1, 4), "blue", (6, 3, 3), "red", (4, 2), ASK]],
    "prompts of every kind in one pack": [
        [(4, 3, 3), ASK],
        [(2, 5), "the colour"],
        [ASK],
        [(2, 2), (2, 4, 1), "is the total red"],
    ],
    "extreme aspect ratios": [[(4, 1, 20), ASK], [(6, 16, 1), (1, 24), "what is blue"]],
    "more steps of time than of space": [[(24, 1, 2), ASK, (2, 2)]],
}


@pytest.fixture(scope="module", params=KINDS)
def peer(request, tmp_path_factory) -> Peer:
    return Peer(KINDS[request.param], tmp_path_factory.mktemp("peer") / "model")


def photograph(rng: np.random.Generator, rows: int, columns: int, count: int) -> list[np.ndarray]:
    """Frames of smooth colours and noise, of a size that is rounded to such visual tokens."""
    # Thinner than a visual token it would be enlarged, by other rules for frames than for clips.
    height, width = (n * STRIDE + int(rng.integers(-(n > 1), 2)) for n in (rows, columns))
    frames = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (height // 3 + 1, width // 3 + 1, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        noise = rng.integers(-40, 41, (height, width, 3))
        frames.append(np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8))
    return frames


def draw_item(rng: np.random.Generator, part: tuple[int, ...]) -> Item:
    if len(part) == 2:
        return photograph(rng, *part, 1)[0]
    return clip_of(photograph(rng, *part[1:], part[0]), fps=float(rng.choice(RATES)))


class Prompts(NamedTuple):
    """The prompts of a mix for both sides."""

    rung: Rung
    packed: Pack
    slices: list[slice]
    inputs: list[Inputs]
    examples: list[Example]


def prepare(peer: Peer, mix: str) -> Prompts:
    rng = np.random.default_rng([2, list(MIXES).index(mix)])
    examples, inputs = [], []
    for chat in MIXES[mix]:
        items, parts = [], []
        for part in chat:
            parts.append(part if isinstance(part, str) else len(items))
            if not isinstance(part, str):
                items.append(draw_item(rng, part))
        messages = [Message(role="user", parts=tuple(parts))]
        ours = peer.ours
        views = parse_policy("native")([extent_of(item) for item in items], "", ours.spec)
        example = assemble(
            items, views, messages, ours.spec, ours.tokenizer, generation_prompt=True
        )
        examples.append(example)
        inputs.append(peer.inputs(example, items))
    needs = np.sum([example.size for example in examples], axis=0)
    patches, tokens = (int(-(-n // m) * m) for n, m in zip(needs, ROOM, strict=False))
    rung = Rung(max_patches=patches, max_tokens=tokens, max_views=32, max_examples=4)
    packed = pack(examples, rung)
    slices = example_slices(packed.segment_ids)
    return Prompts(rung, jax.tree.map(jnp.asarray, packed), slices, inputs, examples)


def scores(model: Any, packed: Pack) -> np.ndarray:
    return np.asarray(_scores(*nnx.split(model), packed))


@functools.partial(jax.jit, static_argnums=0)
def _scores(graphdef: Any, state: Any, packed: Pack) -> jax.Array:
    model = nnx.merge(graphdef, state)
    return model.logits(model.hidden(packed))


@pytest.mark.parametrize("mix", MIXES)
def test_logits_are_theirs_at_every_position(peer, mix):
    prompts = prepare(peer, mix)
    ours = scores(peer.ours.model, prompts.packed)
    largest = 0.0
    for where, inputs in zip(prompts.slices, prompts.inputs, strict=True):
        theirs = peer.logits(inputs)
        assert theirs.shape == ours[where].shape
        assert 3 < np.abs(theirs).max() < 20  # neither flat nor so large that rounding grows
        largest = max(largest, float(np.abs(ours[where] - theirs).max()))
    print(f"largest logit difference {largest:.3g}")
    assert largest <= TOLERANCE


@pytest.mark.parametrize("mix", MIXES)
def test_greedy_continuations_are_theirs(peer, mix):
    """Nothing stops early: the stop tokens are such as are never drawn."""
    prompts, answerer = prepare(peer, mix), peer.ours
    stop_ids = answerer.spec.reserved_token_ids[:2]
    generator = Generator(
        answerer.model, dataclasses.replace(answerer.spec, eos_token_ids=stop_ids), rows=(4,)
    )
    completions, _ = generator.generate(
        prompts.packed,
        [str(i) for i in range(len(prompts.inputs))],
        rung=prompts.rung,
        sampling=Sampling(max_new_tokens=NEW_TOKENS),
    )
    for (completion,), inputs in zip(completions, prompts.inputs, strict=True):
        expected, gap = peer.greedy(inputs, stop_ids)
        assert gap > CLEAR
        assert len(set(expected)) > 2  # not one token again and again
        assert list(completion.token_ids) == expected


@pytest.mark.parametrize("mix", MIXES)
def test_every_view_changes_the_last_scores_far_beyond_the_tolerance(peer, mix):
    """Without this, equal logits would say nothing about frames: of each, both are redrawn."""
    prompts = prepare(peer, mix)
    before = scores(peer.ours.model, prompts.packed)
    patches = np.asarray(prompts.packed.patches)
    views = example_slices(np.asarray(prompts.packed.patch_segment_ids))
    owners = [i for i, e in enumerate(prompts.examples) for _ in e.views]
    halves = patches.reshape(len(patches), 3, 2, -1)
    still = np.asarray(prompts.packed.still)
    rng = np.random.default_rng(0)
    for view, owner in zip(views[:3] + views[-1:], owners[:3] + owners[-1:], strict=True):
        for frame in (0, 1):
            changed = halves.copy()
            changed[view, :, frame] = rng.permuted(halves[view, :, 0], axis=None)
            packed = prompts.packed._replace(patches=jnp.asarray(changed.reshape(patches.shape)))
            last = prompts.slices[owner].stop - 1
            change = np.abs(scores(peer.ours.model, packed)[last] - before[last]).max()
            if still[view].any() and frame:
                assert change == 0  # a picture has no second frame
            else:
                assert change > VISIBLE


def test_answers_about_clips_are_theirs_from_the_raw_frames(peer):
    """The door that users take: the clip is sampled, shrunk by a policy, and answered about."""
    rng = np.random.default_rng(5)
    frames = photograph(rng, 3, 4, 9)
    sampling = FrameSampling.of(peer.ours.spec, max_frames=6)
    clip = clip_of(frames, fps=2.0, max_frames=sampling.max_frames)
    picture = photograph(rng, 2, 3, 1)[0]
    request = Request(id="a", question=ASK, images=[clip, picture], policy="budget:36")
    ((answer,),) = peer.ours.answer([request], sampling=Sampling(max_new_tokens=NEW_TOKENS))
    assert answer.cost.visual_tokens == 3 * 12 + 6
    messages = [Message(role="user", parts=(0, 1, ASK))]
    ours = peer.ours
    example = assemble(
        [clip, picture], answer.views, messages, ours.spec, ours.tokenizer, generation_prompt=True
    )
    expected, _ = peer.greedy(peer.inputs(example, [clip, picture]), ours.spec.eos_token_ids)
    assert list(answer.token_ids) == expected


@pytest.mark.parametrize("sizes", [((1, 2), (3, 1), (2, 2)), ((4, 4), (1, 1), (2, 5))], ids=str)
def test_views_of_different_sizes_in_one_clip_are_scored_as_theirs(peer, sizes):
    """Theirs gets each view as a clip of its own: the same tower, tokens and decoder.

    Qwen3-VL places them by itself then. For the two others a clip of several sizes is none that
    theirs can place, and our positions are given.
    """
    rng, ours = np.random.default_rng(6), peer.ours
    clip = clip_of(photograph(rng, 3, 4, 6), fps=0.7)
    picture = photograph(rng, 2, 3, 1)[0]
    targets = [Size(rows * STRIDE, columns * STRIDE) for rows, columns in sizes]
    (moving, still) = (
        parse_policy("native")([extent_of(item)], "", ours.spec) for item in (clip, picture)
    )
    views = [
        dataclasses.replace(view, size=target) for view, target in zip(moving, targets, strict=True)
    ]
    views.append(dataclasses.replace(still[0], item=1, group=1))
    messages = [Message(role="user", parts=(0, "red", 1, ASK))]
    example = assemble(
        [clip, picture], views, messages, ours.spec, ours.tokenizer, generation_prompt=True
    )
    inputs = peer.inputs(example, [clip, picture], apart=True)
    own = None if ours.spec.position_rule == "mrope_blocks" else example.positions.astype(np.int64)
    theirs = peer.logits(inputs, own)
    rung = Rung(max_patches=ROOM[0], max_tokens=ROOM[1], max_views=32, max_examples=4)
    packed = jax.tree.map(jnp.asarray, pack([example], rung))
    assert np.abs(scores(ours.model, packed)[: len(theirs)] - theirs).max() <= TOLERANCE


def test_positions_of_assembled_prompts_are_theirs_over_200_prompts(peer):
    """Pictures, clips of any rate and length, and text, from pixels to positions."""
    rng, ours = np.random.default_rng(3), peer.ours
    moving = 0
    for _ in range(200):
        parts, items = [], []
        for _ in range(rng.integers(1, 5)):
            rows, columns = rng.integers(1, 9, 2).tolist()
            count = int(rng.integers(2, 16)) if rng.integers(2) else 1
            frames = list(np.zeros((count, rows * STRIDE, columns * STRIDE, 3), np.uint8))
            fps = float(rng.uniform(0.1, 8.0))
            parts += [len(items), "red" * int(rng.integers(0, 4))]
            items.append(frames[0] if count == 1 else clip_of(frames, fps=fps))
            moving += count > 1
        messages = [Message(role="user", parts=(*(part for part in parts if part != ""), ASK))]
        views = parse_policy("native")([extent_of(item) for item in items], "", ours.spec)
        example = assemble(
            items, views, messages, ours.spec, ours.tokenizer, generation_prompt=True
        )
        positions = peer.positions(example, items)
        np.testing.assert_array_equal(example.positions, positions)
        # Where their generate goes on; their delta counts from the largest position of all.
        assert example.next_position == positions[0, -1] + 1
    assert moving > 150

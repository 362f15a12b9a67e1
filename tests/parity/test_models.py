"""Whole models with random weights, against live `transformers`: logits and greedy text.

Weights go through files: `transformers` (or, where it has no class, safetensors under the released
keys) writes a directory and `mres_jax.inference.load` reads it. Pixels and positions are made on
either side by its own code; tokens are ours (see test_chat.py). Theirs runs each prompt alone.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from peers import FAMILIES, NEW_TOKENS, ROOM, ROWS, TRUE_WIDTHS, Inputs, Peer
from PIL import Image

from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import Message
from mres_jax.data.packing import example_slices, pack
from mres_jax.data.types import Example, Pack, Rung
from mres_jax.geometry import Size
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.generate import Generator
from mres_jax.protocols import Request, Sampling
from mres_jax.resolution.policies import parse_policy

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("chatter")]

TOLERANCE = 2e-4  # of logits up to about 10 in float32, through up to six layers
TOWER_TOLERANCE = 1e-4  # of values up to about 7, sums of up to 5,120 products in float32
VISIBLE = 50 * TOLERANCE  # what a picture must change, so that agreement says something
SEED = 1  # of the pictures
CLEAR = 1e-4  # gap of the two best scores; about three times the largest difference measured
ASK = "what is the total?"

Part = str | tuple[int, int]  # text, or rows and columns of visual tokens of a picture
Chat = Sequence[tuple[str, Sequence[Part]]]


def user(*parts: Part) -> tuple[str, Sequence[Part]]:
    return "user", parts


AT_THE_END = "a picture at the very end"
THE_TIGHTEST = "a pack without room to spare"
MIXES: dict[str, list[Chat]] = {
    "one picture": [[user((3, 4), ASK)]],
    "several pictures in a prompt": [[user((2, 3), "red", (4, 2), (1, 6), ASK)]],
    "several prompts in a pack": [
        [user((3, 3), ASK)],
        [user((2, 5), "the colour")],
        [user((5, 2), (1, 2), "is the total red")],
    ],
    "extreme aspect ratios": [
        [user((1, 40), ASK)],
        [user((36, 1), ASK)],
        [user((1, 24), (24, 1), "what is blue")],
    ],
    "text only": [[user(ASK)], [user("is the invoice blue or red: 1,204.50?")]],
    "odd grids": [[user((1, 1), (3, 5), (7, 1), ASK)], [user((5, 5), ASK)]],
    "several turns": [
        [
            ("system", ("be brief",)),
            user((2, 3), ASK),
            ("assistant", ("the total is 7",)),
            user("is the invoice", (3, 2), "blue"),
            ("assistant", ("red",)),
            user("what colour is the total"),
        ]
    ],
    "a picture after the text": [[user(ASK, (3, 4))], [user("red", (2, 2), "blue", (4, 3))]],
    AT_THE_END: [[user(ASK, (3, 4))], [user((2, 2), "colour", (2, 5))]],
    "text-only rows beside picture rows": [
        [user("what is red")],
        [user((4, 3), ASK)],
        [user("is the colour of the total blue")],
        [user((2, 2), ASK)],
    ],
    "many small pictures": [[user(*4 * ((1, 1), (1, 2), (2, 1)), ASK)]],
    THE_TIGHTEST: [[user((4, 4), ASK)], [user((2, 8), "total")]],
}
TIGHT = (144, 16)  # patches and tokens come in multiples of these, or of ROOM
WITH_PICTURES = [mix for mix in MIXES if mix != "text only"]


@pytest.fixture(
    scope="module",
    params=[(family, shape) for family, kind in FAMILIES.items() for shape in kind.shapes],
    ids=lambda param: ", ".join(param),
)
def peer(request, tmp_path_factory) -> Peer:
    family, shape = request.param
    make, shapes = FAMILIES[family]
    return make(shapes[shape], tmp_path_factory.mktemp("peer") / "model")


class Prompts(NamedTuple):
    """The prompts of a mix for both sides."""

    rung: Rung
    packed: Pack  # of jax arrays
    slices: list[slice]  # where each prompt stands
    inputs: list[Inputs]
    examples: list[Example]


def prepare(peer: Peer, mix: str) -> Prompts:
    """Draws the pictures of a mix and assembles its prompts."""
    rng = np.random.default_rng([SEED, list(MIXES).index(mix)])
    examples, inputs = [], []
    for chat in MIXES[mix]:
        images, messages = [], []
        for role, parts in chat:
            items: list[str | int] = []
            for part in parts:
                if isinstance(part, str):
                    items.append(part)
                else:
                    items.append(len(images))
                    images.append(photograph(rng, *part, stride=peer.stride))
            messages.append(Message(role=role, parts=tuple(items)))
        example = assemble_native(peer.ours, images, messages)
        if mix == AT_THE_END:
            example = cut_behind_last_picture(example)
        examples.append(example)
        inputs.append(peer.inputs(example, images))
    rung = room_for(examples, multiples=TIGHT if mix == THE_TIGHTEST else ROOM)
    packed = pack(examples, rung)
    slices = example_slices(packed.segment_ids)
    return Prompts(rung, jax.tree.map(jnp.asarray, packed), slices, inputs, examples)


def photograph(rng: np.random.Generator, rows: int, columns: int, *, stride: int) -> np.ndarray:
    """Smooth colours and noise, of a size that is rounded to `rows` x `columns` visual tokens."""
    height, width = (n * stride + int(rng.integers(-1, 2)) for n in (rows, columns))
    coarse = rng.integers(0, 256, (height // 3 + 1, width // 3 + 1, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    noise = rng.integers(-40, 41, (height, width, 3))
    return np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)


def assemble_native(
    ours: LocalAnswerer, images: Sequence[np.ndarray], messages: Sequence[Message]
) -> Example:
    views = parse_policy("native")([Size(*i.shape[:2]) for i in images], "", ours.spec)
    return assemble(images, views, messages, ours.spec, ours.tokenizer, generation_prompt=True)


def cut_behind_last_picture(example: Example) -> Example:
    """The prompt up to its last visual token."""
    end = int(np.flatnonzero(example.slots >= 0)[-1]) + 1
    return dataclasses.replace(
        example,
        tokens=example.tokens[:end],
        slots=example.slots[:end],
        positions=example.positions[:, :end],
        loss_mask=example.loss_mask[:end],
    )


def room_for(examples: Sequence[Example], multiples: tuple[int, int]) -> Rung:
    """Lengths that hold the prompts: multiples of so many patches and so many tokens."""
    needs = (sum(e.size.num_patches for e in examples), sum(e.size.num_tokens for e in examples))
    patches, tokens = (-(-n // m) * m for n, m in zip(needs, multiples, strict=True))
    return Rung(
        max_patches=patches,
        max_tokens=tokens,
        max_views=16,
        max_examples=4,
    )


def scores(model: Any, packed: Pack) -> np.ndarray:
    """Logits at every packed position, `float32 [t V]`."""
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
    """Nothing stops early: the stop tokens are such as are never drawn.

    Behind a picture that ends the prompt `generate` of transformers 5.23 counts each axis of the
    positions on by itself, other than its own forward pass, which is what counts then. No chat
    template ends there.
    """
    prompts, spec = prepare(peer, mix), peer.ours.spec
    stop_ids = spec.reserved_token_ids[:2]
    generator = Generator(
        peer.ours.model, dataclasses.replace(spec, eos_token_ids=stop_ids), rows=ROWS
    )
    completions, _ = generator.generate(
        prompts.packed,
        [str(i) for i in range(len(prompts.inputs))],
        rung=prompts.rung,
        sampling=Sampling(max_new_tokens=NEW_TOKENS),
    )
    for (completion,), inputs in zip(completions, prompts.inputs, strict=True):
        if mix == AT_THE_END:
            expected, gap = peer.greedy_without_cache(inputs)
        else:
            expected, gap = peer.greedy(inputs, stop_ids)
        print(f"smallest gap of the two best scores {gap:.3g}")
        assert gap > CLEAR
        assert len(expected) == NEW_TOKENS
        assert len(set(expected)) > 2  # not one token again and again
        assert list(completion.token_ids) == expected


@pytest.mark.parametrize("mix", WITH_PICTURES)
def test_every_picture_changes_the_last_scores_far_beyond_the_tolerance(peer, mix):
    """Without this, equal logits would say nothing about pictures."""
    prompts = prepare(peer, mix)
    before = scores(peer.ours.model, prompts.packed)
    patches = np.asarray(prompts.packed.patches)
    views = example_slices(np.asarray(prompts.packed.patch_segment_ids))
    owners = [i for i, e in enumerate(prompts.examples) for _ in e.grids]
    rng = np.random.default_rng(0)
    for view, owner in zip(views, owners, strict=True):
        shuffled = patches.copy()
        shuffled[view] = rng.permuted(patches[view], axis=None)
        packed = prompts.packed._replace(patches=jnp.asarray(shuffled))
        after = scores(peer.ours.model, packed)
        last = prompts.slices[owner].stop - 1
        assert np.abs(after[last] - before[last]).max() > VISIBLE


def test_answers_to_requests_are_theirs_from_the_raw_pictures(peer):
    """The door that users take: requests together, their pictures, stop tokens and all."""
    rng = np.random.default_rng(5)
    grids = ((3, 4),), (), ((2, 6), (5, 1)), ((4, 4),)
    requests = [
        Request(
            id=str(i),
            question=f"{ASK} {i}",
            images=[photograph(rng, *grid, stride=peer.stride) for grid in some],
        )
        for i, some in enumerate(grids)
    ]
    answers = peer.ours.answer(requests, sampling=Sampling(max_new_tokens=NEW_TOKENS))
    for request, (answer,) in zip(requests, answers, strict=True):
        messages = [Message(role="user", parts=(*range(len(request.images)), request.question))]
        example = assemble_native(peer.ours, request.images, messages)
        inputs = peer.inputs(example, request.images)
        expected, _ = peer.greedy(inputs, peer.ours.spec.eos_token_ids)
        assert list(answer.token_ids) == expected


@pytest.mark.parametrize("family", TRUE_WIDTHS)
def test_the_tower_at_its_true_width(family, tmp_path):
    """Channels, heads and patches of the released towers, two or three layers of them."""
    peer = FAMILIES[family].make(TRUE_WIDTHS[family], tmp_path / "model")
    rng = np.random.default_rng(0)
    grids = ((1, 1), (3, 5), (1, 17), (12, 2), (7, 6))
    images = [photograph(rng, *grid, stride=peer.stride) for grid in grids]
    messages = [Message(role="user", parts=tuple(range(len(images))))]
    example = assemble_native(peer.ours, images, messages)
    theirs = peer.visual_tokens(peer.inputs(example, images))
    packed = jax.tree.map(jnp.asarray, pack([example], room_for([example], (128, 128))))
    tokens, deepstack = nnx.jit(lambda model, pack: model.vision(pack))(
        peer.ours.model, packed._replace(patch_labels={})
    )
    count = sum(rows * columns for rows, columns in grids)
    ours = [np.asarray(x)[:count] for x in (tokens, *(() if deepstack is None else deepstack))]
    assert theirs.shape == (len(ours) * count, 1_536)
    difference = float(np.abs(np.concatenate(ours) - theirs).max())
    print(f"largest difference {difference:.3g} of values up to {np.abs(theirs).max():.3g}")
    assert difference <= TOWER_TOLERANCE

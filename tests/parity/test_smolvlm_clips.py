"""SmolVLM2 asked about clips, beside live transformers: prompts, frames, logits, greedy text.

Frames go through their image processor, whole and squashed, which is what their video processor
does: it needs torchvision. Texts and sampling are its own.
"""

import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jinja2
import numpy as np
import pytest
from picture_peers import greedy, photograph, scores
from smol_peers import SHAPES, Peer, make_peer, seen
from video_peers import video_processor

from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import Message
from mres_jax.data.packing import example_slices, pack
from mres_jax.data.types import Example, Rung
from mres_jax.data.video import FrameSampling, clip_of
from mres_jax.geometry import ClipSize, Size
from mres_jax.inference.generate import Generator
from mres_jax.protocols import Clip, Item, Request, Sampling, extent_of
from mres_jax.resolution.policies import parse_policy

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("chatter")]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
smol_processing = pytest.importorskip("transformers.models.smolvlm.processing_smolvlm")
video_utils = pytest.importorskip("transformers.video_utils")

TOLERANCE = 2e-4  # of logits up to about 10 in float32, through up to five layers
VISIBLE = 50 * TOLERANCE  # what a frame must change, so that agreement says something
CLEAR = 1e-4  # gap of the two best scores
NEW_TOKENS = 12
RUNG = Rung(max_patches=1_152, max_tokens=1_024, max_views=32, max_examples=4)
ASK = "what is the total?"
WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 7: "seven", 21: "twenty-one"}

Part = str | tuple[int, int] | tuple[int, int, int, float]  # text; rows, columns; frames .. fps
MIXES: dict[str, list[list[Part]]] = {
    "a clip": [[(5, 30, 50, 2.0), ASK]],
    "several clips": [[(2, 23, 24, 0.5), "red", (3, 60, 41, 4.0), (2, 9, 70, 1.0), ASK]],
    "a picture and a clip": [[(30, 50), (4, 30, 50, 1.0), ASK]],
    "a clip and pictures around it": [[(12, 12), "is the", (3, 80, 3, 0.02), (25, 40), ASK]],
    "prompts of every kind in one pack": [
        [(3, 30, 50, 2.0), ASK],
        [(90, 90), "the colour"],
        [ASK],
        ["is this", (2, 1, 1, 30.0), "red"],
    ],
    "hours": [[(7, 40, 30, 0.0005), ASK]],
    "many frames": [[(21, 20, 30, 10.0), ASK], [(2, 7, 80, 0.3), "what is blue"]],
}


@pytest.fixture(scope="module", params=SHAPES)
def peer(request, tmp_path_factory) -> Peer:
    return make_peer(request.param, tmp_path_factory.mktemp("peer") / "model")


def draw_item(part: tuple[Any, ...]) -> Item:
    """A picture, or a clip that bears the name of its rate."""
    if len(part) == 2:
        return photograph(part)
    count, *size, fps = part
    frames = photograph([count * size[0], size[1]])  # one tall picture, cut
    return clip_of(np.split(frames, count), fps=fps, name=str(fps))


class Prompt(NamedTuple):
    """One conversation for both sides."""

    items: list[Item]
    parts: list[str | int]
    example: Example
    views: list[Any]


def prompt_of(peer: Peer, chat: Sequence[Part]) -> Prompt:
    items, parts = [], []
    for part in chat:
        parts.append(part if isinstance(part, str) else len(items))
        if not isinstance(part, str):
            items.append(draw_item(part))
    ours = peer.ours
    views = parse_policy("split")([extent_of(item) for item in items], "", ours.spec)
    messages = [Message(role="user", parts=tuple(parts))]
    example = assemble(items, views, messages, ours.spec, ours.tokenizer, generation_prompt=True)
    return Prompt(items, parts, example, views)


def their_tokens(peer: Peer, prompt: Prompt) -> list[int]:
    """The prompt through their chat template, their expansion of items and the tokenizer."""
    content = []
    for part in prompt.parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        else:
            kind = "video" if isinstance(prompt.items[part], Clip) else "image"
            content.append({"type": kind})
    text = jinja2.Template(smol_processing.DEFAULT_CHAT_TEMPLATE).render(
        messages=[{"role": "user", "content": content}], add_generation_prompt=True
    )
    texts = iter([their_text(peer, item) for item in prompt.items])
    text = re.sub("<image>|<video>", lambda _: next(texts), text)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(peer.directory / "tokenizer.json")
    )
    return fast(text)["input_ids"]


def their_text(peer: Peer, item: Item) -> str:
    spec = peer.ours.spec
    theirs = object.__new__(smol_processing.SmolVLMProcessor)
    theirs.image_seq_len = (spec.image_size // spec.stride) ** 2
    theirs.image_token, theirs.fake_image_token = "<image>", "<fake_token_around_image>"
    theirs.global_image_token = "<global-img>"
    if not isinstance(item, Clip):
        made = seen(peer, [item])
        return theirs.replace_image_token({"rows": made["rows"], "cols": made["cols"]}, 0)
    count, fps = len(item.frames), float(item.name)
    metadata = video_utils.VideoMetadata(
        total_num_frames=count, fps=fps, duration=count / fps, frames_indices=list(range(count))
    )
    inputs = {"pixel_values": np.zeros((1, count)), "video_metadata": [metadata]}
    smol_processing.num2words = WORDS.__getitem__
    return theirs.replace_video_token(inputs, 0)


def arguments(peer: Peer, prompt: Prompt) -> dict[str, Any]:
    """What their model is called with: all squares in the order of the prompt."""
    tokens = torch.from_numpy(prompt.example.tokens[None].astype(np.int64))
    made = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    parts = [
        seen(peer, item.frames, do_image_splitting=False)
        if isinstance(item, Clip)
        else seen(peer, [item])
        for item in prompt.items
    ]
    for name in ("pixel_values", "pixel_attention_mask"):
        if parts:
            made[name] = torch.cat([part[name] for part in parts], dim=1)
    return made


@pytest.mark.parametrize("mix", MIXES)
def test_prompts_are_theirs(peer, mix):
    for chat in MIXES[mix]:
        prompt = prompt_of(peer, chat)
        assert prompt.example.tokens.tolist() == their_tokens(peer, prompt)


@pytest.mark.parametrize("mix", MIXES)
def test_logits_and_greedy_text_are_theirs(peer, mix):
    prompts = [prompt_of(peer, chat) for chat in MIXES[mix]]
    examples = [prompt.example for prompt in prompts]
    packed = jax.tree.map(jnp.asarray, pack(examples, RUNG))
    assert packed.still is None  # one program, with clips or without
    ours, spec = scores(peer.ours.model, packed), peer.ours.spec
    completions, _ = Generator(peer.ours.model, spec, rows=(4,)).generate(
        packed,
        [str(i) for i in range(len(examples))],
        rung=RUNG,
        sampling=Sampling(max_new_tokens=NEW_TOKENS),
    )
    largest = 0.0
    for where, prompt, (completion,) in zip(
        example_slices(np.asarray(packed.segment_ids)), prompts, completions, strict=True
    ):
        theirs = arguments(peer, prompt)
        with torch.no_grad():
            logits = peer.model(**theirs).logits[0].numpy()
        assert 3 < np.abs(logits).max() < 40
        largest = max(largest, float(np.abs(ours[where] - logits).max()))
        tokens, gap = greedy(peer.model, theirs, spec, NEW_TOKENS)
        assert gap > CLEAR
        assert list(completion.token_ids) == tokens
    print(f"{peer.name}, {mix}: largest logit difference {largest:.3g}")
    assert largest <= TOLERANCE


def test_every_frame_changes_the_last_scores_far_beyond_the_tolerance(peer):
    """Without this, equal logits would say nothing about frames."""
    (chat,) = MIXES["a clip and pictures around it"]
    prompt = prompt_of(peer, chat)
    last = len(prompt.example.tokens) - 1

    def of(items: Sequence[Item]) -> np.ndarray:
        ours = peer.ours
        messages = [Message(role="user", parts=tuple(prompt.parts))]
        example = assemble(
            items, prompt.views, messages, ours.spec, ours.tokenizer, generation_prompt=True
        )
        return scores(ours.model, jax.tree.map(jnp.asarray, pack([example], RUNG)))[last]

    before, (first, clip, second) = of(prompt.items), prompt.items
    for i in range(len(clip.frames)):
        frames = [255 - f if j == i else f for j, f in enumerate(clip.frames)]
        changed = Clip(frames=frames, times=clip.times, frame_seconds=clip.frame_seconds)
        assert np.abs(of([first, changed, second]) - before).max() > VISIBLE


def test_answers_about_clips_are_theirs_from_the_raw_frames(peer):
    """The door that users take: sampled, squashed, answered about."""
    clip, picture = draw_item((7, 30, 50, 2.0)), photograph((30, 40))
    request = Request(id="a", question=ASK, images=[clip, picture])
    ((answer,),) = peer.ours.answer([request], sampling=Sampling(max_new_tokens=NEW_TOKENS))
    prompt = prompt_of(peer, [(7, 30, 50, 2.0), (30, 40), ASK])
    tokens, _ = greedy(peer.model, arguments(peer, prompt), peer.ours.spec, NEW_TOKENS)
    assert list(answer.token_ids) == tokens


def test_sampled_frames_are_theirs_over_500_videos():
    """Any rate and length; theirs takes one frame of a video shorter than 1.5 s, ours two."""
    theirs, rng = video_processor("smolvlm", "SmolVLMVideoProcessor"), np.random.default_rng(0)
    skipped = 0
    for _ in range(500):
        total = int(2 * np.exp(rng.uniform(0, 9)))
        rate = float(rng.choice([5, 12.5, 24, 25, 29.97, 30, 60]))
        fps, most = float(rng.choice([0.5, 1, 2, 4])), int(rng.choice([8, 64]))
        sampling = FrameSampling(fps=fps, min_frames=2, max_frames=most, multiple=1, spread="inner")
        ours = sampling.choose(total, rate, name="a")
        metadata = video_utils.VideoMetadata(
            total_num_frames=total, fps=rate, duration=total / rate
        )
        expected = theirs.sample_frames(metadata, num_frames=most, fps=fps)
        skipped += int(expected[0]) > 0
        if len(expected) == 1:
            assert total / rate * fps < 1.5 + 1e-9
            assert len(ours) == 2
        else:
            np.testing.assert_array_equal(ours, expected)
    assert 50 < skipped < 450


def test_sizes_on_the_way_are_theirs_over_500_frames(peer):
    """Of the two resamplings of a frame, the first; the second is one square."""
    theirs = video_processor("smolvlm", "SmolVLMVideoProcessor")
    side, sizes = peer.ours.spec.split.side, []
    theirs.max_image_size = {"longest_edge": side}
    base = type(theirs).__mro__[1]
    rng = np.random.default_rng(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "resize", lambda self, video, size, **_: sizes.append(size) or video)
        for height, width in np.exp(rng.uniform(0, 8.2, (500, 2))).astype(int).tolist():
            sizes.clear()
            shape = SimpleNamespace(size=lambda h=height, w=width: (h, w))
            theirs.resize(shape, SimpleNamespace(longest_edge=3 * side))
            clip = ClipSize(Size(height, width), (0.0, 1.0))
            view = parse_policy("split")([clip], "", peer.ours.spec)[0]
            found = [(s.height, s.width) for s in sizes]
            assert found == [*view.through, view.size]

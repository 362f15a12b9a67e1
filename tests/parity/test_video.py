"""Qwen2-VL asked about clips, against live `transformers`: logits and greedy text.

Frames are cut into patches by their own image processor, one at a time, and joined to rows of two;
their video processor needs torchvision. Grids, positions and segments are their own.
"""

import dataclasses
import functools
import json
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from mres_jax import testing
from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import Message
from mres_jax.data.packing import example_slices, pack
from mres_jax.data.types import Example, Pack, Rung
from mres_jax.data.video import FrameSampling, clip_of
from mres_jax.inference import load
from mres_jax.inference.generate import Generator
from mres_jax.protocols import Clip, Item, Request, Sampling, extent_of
from mres_jax.resolution.policies import parse_policy

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pil_processing = pytest.importorskip(
    "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl", reason="needs transformers 5.x"
)

TOLERANCE = 2e-4  # of logits up to about 10 in float32, through up to six layers
VISIBLE = 50 * TOLERANCE  # what a clip must change, so that agreement says something
CLEAR = 1e-4  # gap of the two best scores
NEW_TOKENS = 16
PATCH, MERGE = 4, 2
STRIDE = PATCH * MERGE
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
ROOM = (1_024, 384)  # patches and tokens of a pack come in multiples of these


class Inputs(NamedTuple):
    """One prompt as `transformers` takes it."""

    tokens: Any
    kinds: Any  # 0 text, 1 picture, 2 clip
    visual: dict[str, Any]


class Peer:
    """A model of `transformers`, and ours out of the files it wrote."""

    def __init__(self, directory):
        vocabulary = testing.tiny_tokenizer()
        ids = {
            f"{name}_token_id": vocabulary.token_id(f"<|{token}|>")
            for name, token in (
                ("image", "image_pad"),
                ("video", "video_pad"),
                ("vision_start", "vision_start"),
                ("vision_end", "vision_end"),
            )
        }
        text = {
            "vocab_size": vocabulary.vocab_size,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1_024,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5_000.0,
                "mrope_section": [2, 3, 3],
            },
        }
        vision = {
            "depth": 3,
            "embed_dim": 32,
            "num_heads": 2,
            "mlp_ratio": 3,
            "hidden_size": 64,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
        }
        config = transformers.Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
        self.model = spread(transformers.Qwen2VLForConditionalGeneration(config))
        limits = {"min_pixels": STRIDE**2, "max_pixels": 64 * STRIDE**2}
        self.processor = pil_processing.Qwen2VLImageProcessorPil(
            patch_size=PATCH, merge_size=MERGE, **limits
        )
        directory.mkdir()
        self.model.save_pretrained(directory)
        self.processor.save_pretrained(directory)
        (directory / "tokenizer.json").write_bytes(vocabulary.to_bytes())
        (directory / "video_preprocessor_config.json").write_text(json.dumps(limits))
        rung = Rung(max_patches=ROOM[0], max_tokens=ROOM[1], max_views=32, max_examples=4)
        self.ours = load(directory, ladder=[rung], rows=(4,)).answerer

    def inputs(self, example: Example, items: Sequence[Item]) -> Inputs:
        spec = self.ours.spec
        video = spec.video
        assert video is not None
        tokens = torch.from_numpy(example.tokens[None].astype(np.int64))
        kinds = (tokens == spec.image_token_id).int() + 2 * (tokens == video.token_id).int()
        pictures = [self._rows([item]) for item in items if not isinstance(item, Clip)]
        clips = [self._rows(item.frames) for item in items if isinstance(item, Clip)]
        visual = {}
        for name, grid, parts in (
            ("pixel_values", "image_grid_thw", pictures),
            ("pixel_values_videos", "video_grid_thw", clips),
        ):
            if parts:
                visual[name] = torch.from_numpy(np.concatenate([rows for rows, _ in parts]))
                visual[grid] = torch.tensor([grid for _, grid in parts])
        return Inputs(tokens, kinds, visual)

    def _rows(self, frames: Sequence[np.ndarray]) -> tuple[np.ndarray, list[int]]:
        """Rows of two frames, and the grid of all of them; an odd last frame is shown twice."""
        rows, height, width = [], 0, 0
        for frame in frames:
            out = self.processor(images=[Image.fromarray(frame)], return_tensors="np")
            _, height, width = (int(n) for n in out["image_grid_thw"][0])
            rows.append(out["pixel_values"].reshape(-1, 3, 2, PATCH**2))
        rows += rows[-1:] * (len(rows) % 2)
        pairs = [
            np.concatenate([first[:, :, :1], second[:, :, :1]], axis=2)
            for first, second in zip(rows[::2], rows[1::2], strict=True)
        ]
        flat = np.concatenate(pairs).reshape(-1, 3 * 2 * PATCH**2)
        return flat, [len(pairs), height, width]

    def arguments(self, inputs: Inputs) -> dict[str, Any]:
        return {
            "input_ids": inputs.tokens,
            "attention_mask": torch.ones_like(inputs.tokens),
            "mm_token_type_ids": inputs.kinds,
            **inputs.visual,
        }

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> np.ndarray:
        return self.model(**self.arguments(inputs)).logits[0].numpy()

    @torch.no_grad()
    def greedy(self, inputs: Inputs, stop_ids: Sequence[int]) -> tuple[list[int], float]:
        """Generated tokens, and the smallest gap between the two best scores of a step."""
        spec = self.ours.spec
        out = self.model.generate(
            **self.arguments(inputs),
            generation_config=transformers.GenerationConfig(
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                eos_token_id=list(stop_ids),
                pad_token_id=spec.pad_token_id,
                suppress_tokens=list(spec.reserved_token_ids),
                output_scores=True,
                return_dict_in_generate=True,
            ),
        )
        best = torch.stack(out.scores)[:, 0].topk(2).values
        gap = float((best[:, 0] - best[:, 1]).min())
        return out.sequences[0, inputs.tokens.shape[1] :].tolist(), gap


def spread(model: Any) -> Any:
    """Draws all parameters so that what a model says depends on all of them and on its pictures."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            if parameter.ndim > 1:
                parameter.copy_(1.5 * noise / math.sqrt(parameter[0].numel()))
            else:  # scales about one, biases about zero
                parameter.copy_(0.3 * noise + float(name.endswith("weight")))
    return model.eval()


@pytest.fixture(scope="module")
def peer(tmp_path_factory) -> Peer:
    with warnings.catch_warnings(action="ignore"):
        return Peer(tmp_path_factory.mktemp("peer") / "model")


@pytest.fixture(autouse=True)
def _chatter():
    """transformers warns of its own deprecations; those are not ours to fail on."""
    with warnings.catch_warnings(action="ignore"):
        yield


def photograph(rng: np.random.Generator, rows: int, columns: int, count: int) -> list[np.ndarray]:
    """Frames of smooth colours and noise, of a size that is rounded to such visual tokens."""
    height, width = (n * STRIDE + int(rng.integers(-1, 2)) for n in (rows, columns))
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
    return clip_of(photograph(rng, *part[1:], part[0]), fps=2.0)


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

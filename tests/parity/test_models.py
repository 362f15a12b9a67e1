"""Whole models with random weights, against live `transformers`: logits and greedy text.

Weights go through files: `transformers` (or, where it has no class, safetensors under the released
keys) writes a directory and `mres_jax.inference.load` reads it. Pixels and positions are made on
either side by its own code; tokens are ours (see test_chat.py). Theirs runs each prompt alone.
"""

import dataclasses
import functools
import json
import math
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
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
from mres_jax.geometry import Size
from mres_jax.inference import load
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.generate import Generator
from mres_jax.protocols import Request, Sampling
from mres_jax.resolution.policies import parse_policy

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")
pil_processing = pytest.importorskip(
    "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl", reason="needs transformers 5.x"
)
modeling = pytest.importorskip("transformers.models.qwen2_vl.modeling_qwen2_vl")

TOLERANCE = 2e-4  # of logits up to about 10 in float32, through up to six layers
TOWER_TOLERANCE = 1e-4  # of values up to about 7, sums of up to 5,120 products in float32
VISIBLE = 50 * TOLERANCE  # what a picture must change, so that agreement says something
NEW_TOKENS = 16
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
# Patches and tokens come in multiples of these. Nearly all mixes compile the same.
ROOM, TIGHT = (1_584, 512), (144, 16)
ROWS = (4,)  # of the cache
WITH_PICTURES = [mix for mix in MIXES if mix != "text only"]


class Shape(NamedTuple):
    """Sizes of a tiny model."""

    patch_size: int
    merge_size: int
    vision: dict[str, int]
    text: dict[str, Any]
    mrope_section: tuple[int, int, int]
    tied: bool


# No number stands at its default: a field that is not read is a difference.
SHAPES = {
    "grouped heads": Shape(
        patch_size=4,
        merge_size=2,
        vision={"depth": 3, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 3},
        text={
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1_024,
            "rms_norm_eps": 1e-3,
        },
        mrope_section=(2, 3, 3),
        tied=False,
    ),
    "tied embeddings": Shape(
        patch_size=6,
        merge_size=3,
        vision={"depth": 2, "embed_dim": 24, "num_heads": 3, "mlp_ratio": 2},
        text={
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1_024,
            "rms_norm_eps": 1e-5,
        },
        mrope_section=(4, 4, 4),
        tied=True,
    ),
}
TRUE_WIDTH = Shape(
    patch_size=14,
    merge_size=2,
    vision={"depth": 2, "embed_dim": 1_280, "num_heads": 16, "mlp_ratio": 4},
    text={
        "hidden_size": 1_536,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1_024,
        "rms_norm_eps": 1e-6,
    },
    mrope_section=(16, 24, 24),
    tied=True,
)


class Inputs(NamedTuple):
    """One prompt as `transformers` takes it."""

    tokens: Any  # int64 [1 t]
    pixels: Any  # float32 [p r], both frames, or None
    grids: Any  # int64 [n 3], or None


class Peer:
    """A model of `transformers`, and ours out of the files it wrote."""

    model: Any  # what scores and generates

    def __init__(self, shape: Shape, directory: pathlib.Path):
        vocabulary = testing.tiny_tokenizer()
        self.shape, self.vocabulary = shape, vocabulary
        stride = shape.patch_size * shape.merge_size
        self.processor = pil_processing.Qwen2VLImageProcessorPil(
            patch_size=shape.patch_size,
            merge_size=shape.merge_size,
            min_pixels=stride**2,
            max_pixels=256 * stride**2,
        )
        self.make()
        directory.mkdir()
        self.write(directory)
        self.processor.save_pretrained(directory)
        (directory / "tokenizer.json").write_bytes(vocabulary.to_bytes())
        rung = Rung(max_patches=ROOM[0], max_tokens=ROOM[1], max_views=16, max_examples=4)
        self.ours: LocalAnswerer = load(directory, ladder=[rung], rows=ROWS).answerer

    def make(self) -> None:
        """Builds the parts with random weights."""
        raise NotImplementedError

    def write(self, directory: pathlib.Path) -> None:
        """Writes weights and config.json."""
        raise NotImplementedError

    def arguments(self, inputs: Inputs) -> dict[str, Any]:
        """What `model` is called with."""
        raise NotImplementedError

    @property
    def stride(self) -> int:
        return self.shape.patch_size * self.shape.merge_size

    def vision_config(self, hidden_size: int) -> dict[str, Any]:
        return {
            "hidden_size": hidden_size,
            "patch_size": self.shape.patch_size,
            "spatial_merge_size": self.shape.merge_size,
            **self.shape.vision,
        }

    def text_config(self, **rope: Any) -> dict[str, Any]:
        return {
            "vocab_size": self.vocabulary.vocab_size,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5_000.0, **rope},
            **self.shape.text,
        }

    def inputs(self, example: Example, images: Sequence[np.ndarray]) -> Inputs:
        """The same prompt, its pictures through their processor."""
        tokens = torch.from_numpy(example.tokens[None].astype(np.int64))
        if not images:
            return Inputs(tokens, None, None)
        out = self.processor(images=[Image.fromarray(i) for i in images], return_tensors="pt")
        return Inputs(tokens, out["pixel_values"], out["image_grid_thw"])

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> np.ndarray:
        """Scores at every position, `float32 [t V]`."""
        return self.model(**self.arguments(inputs)).logits[0].numpy()

    @torch.no_grad()
    def greedy(self, inputs: Inputs, stop_ids: Sequence[int]) -> tuple[list[int], float]:
        """Generated tokens, and the smallest gap between the two best scores of a step."""
        spec, arguments = self.ours.spec, self.arguments(inputs)
        out = self.model.generate(
            **arguments,
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
        new = out.sequences[0, inputs.tokens.shape[1] if "input_ids" in arguments else 0 :]
        return new.tolist(), smallest_gap(torch.stack(out.scores)[:, 0])

    @torch.no_grad()
    def greedy_without_cache(self, inputs: Inputs) -> tuple[list[int], float]:
        """The same from a whole forward pass for each token, without any stop."""
        tokens, rows = inputs.tokens, []
        for _ in range(NEW_TOKENS):
            row = self.model(**self.arguments(inputs._replace(tokens=tokens))).logits[0, -1]
            row[list(self.ours.spec.reserved_token_ids)] = -math.inf
            rows.append(row)
            tokens = torch.cat([tokens, row.argmax()[None, None]], dim=1)
        return tokens[0, -NEW_TOKENS:].tolist(), smallest_gap(torch.stack(rows))


def smallest_gap(rows: Any) -> float:
    """Of the two best scores in each row."""
    best = rows.topk(2).values
    return float((best[:, 0] - best[:, 1]).min())


class Qwen2VLPeer(Peer):
    """`Qwen2VLForConditionalGeneration`."""

    def make(self) -> None:
        token_id = self.vocabulary.token_id
        config = transformers.Qwen2VLConfig(
            text_config=self.text_config(mrope_section=list(self.shape.mrope_section)),
            vision_config=self.vision_config(self.shape.text["hidden_size"]),
            image_token_id=token_id("<|image_pad|>"),
            video_token_id=token_id("<|video_pad|>"),
            vision_start_token_id=token_id("<|vision_start|>"),
            vision_end_token_id=token_id("<|vision_end|>"),
            tie_word_embeddings=self.shape.tied,
        )
        self.model = spread(transformers.Qwen2VLForConditionalGeneration(config))

    def write(self, directory: pathlib.Path) -> None:
        self.model.save_pretrained(directory)

    def arguments(self, inputs: Inputs) -> dict[str, Any]:
        visual = inputs.tokens == self.model.config.image_token_id
        out = {
            "input_ids": inputs.tokens,
            "attention_mask": torch.ones_like(inputs.tokens),
            "mm_token_type_ids": visual.int(),
        }
        if inputs.pixels is not None:
            out |= {"pixel_values": inputs.pixels, "image_grid_thw": inputs.grids}
        return out

    @torch.no_grad()
    def visual_tokens(self, inputs: Inputs) -> np.ndarray:
        """`float32 [v d]`."""
        return self.model.model.visual(inputs.pixels, grid_thw=inputs.grids).pooler_output.numpy()


class NativeResLlavaPeer(Peer):
    """Qwen2-VL's tower, an MLP and `Qwen2ForCausalLM`, joined as the released code joins them."""

    def make(self) -> None:
        mm_hidden_size, hidden_size = 40, self.shape.text["hidden_size"]
        config = modeling.Qwen2VLVisionConfig(**self.vision_config(mm_hidden_size))
        self.tower = spread(modeling.Qwen2VisionTransformerPretrainedModel(config), seed=1)
        self.projector = spread(
            torch.nn.Sequential(
                torch.nn.Linear(mm_hidden_size, hidden_size),
                torch.nn.GELU(),
                torch.nn.Linear(hidden_size, hidden_size),
            ),
            seed=2,
        )
        text = transformers.Qwen2Config(
            **self.text_config(), tie_word_embeddings=self.shape.tied, use_sliding_window=False
        )
        self.model = spread(transformers.Qwen2ForCausalLM(text), seed=3)

    def write(self, directory: pathlib.Path) -> None:
        weights = dict(self.model.state_dict())
        if self.shape.tied:
            del weights["lm_head.weight"]
        for prefix, part in (
            ("model.vision_tower.vision_tower.", self.tower),
            ("model.mm_projector.", self.projector),
        ):
            weights |= {prefix + name: tensor for name, tensor in part.state_dict().items()}
        safetensors_torch.save_file(weights, directory / "model.safetensors")
        config = self.model.config.to_dict() | {
            "architectures": ["LlavaQwenForCausalLM"],
            "model_type": "llava_qwen",
            "mm_projector_type": "mlp2x_gelu",
            "mm_hidden_size": self.tower.config.hidden_size,
            "mm_vision_tower": "checkpoints/qwen2vit-665m-patch14-native",
            "vision_config": self.tower.config.to_dict(),
            "image_token_id": self.vocabulary.token_id("<|image_pad|>"),
        }
        (directory / "config.json").write_text(json.dumps(config))

    def arguments(self, inputs: Inputs) -> dict[str, Any]:
        embedded = self.model.get_input_embeddings()(inputs.tokens)
        if inputs.pixels is not None:
            visual = self.projector(self.tower(inputs.pixels, grid_thw=inputs.grids).pooler_output)
            places = inputs.tokens[..., None] == self.vocabulary.token_id("<|image_pad|>")
            embedded = embedded.masked_scatter(places.expand_as(embedded), visual)
        return {"inputs_embeds": embedded, "attention_mask": torch.ones_like(inputs.tokens)}


def spread(model: Any, seed: int = 0) -> Any:
    """Draws all parameters so that what a model says depends on all of them and on its pictures."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            if parameter.ndim > 1:
                parameter.copy_(1.5 * noise / math.sqrt(parameter[0].numel()))
            else:  # scales about one, biases about zero
                parameter.copy_(0.3 * noise + float(name.endswith("weight")))
    return model.eval()


FAMILIES: dict[str, Callable[[Shape, pathlib.Path], Peer]] = {
    "Qwen2-VL": Qwen2VLPeer,
    "NativeRes-LLaVA": NativeResLlavaPeer,
}


@pytest.fixture(autouse=True, scope="module")
def _chatter() -> Iterator[None]:
    """transformers warns of its own deprecations; those are not ours to fail on."""
    with warnings.catch_warnings(action="ignore"):
        yield


@pytest.fixture(
    scope="module",
    params=[(family, shape) for family in FAMILIES for shape in SHAPES],
    ids=lambda param: ", ".join(param),
)
def peer(request, tmp_path_factory) -> Peer:
    family, shape = request.param
    return FAMILIES[family](SHAPES[shape], tmp_path_factory.mktemp("peer") / "model")


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


def test_the_tower_at_its_true_width(tmp_path):
    """1,280 channels, 16 heads, 14-pixel patches; two layers and the merger to 1,536 channels."""
    peer = Qwen2VLPeer(TRUE_WIDTH, tmp_path / "model")
    rng = np.random.default_rng(0)
    grids = ((1, 1), (3, 5), (1, 17), (12, 2), (7, 6))
    images = [photograph(rng, *grid, stride=peer.stride) for grid in grids]
    messages = [Message(role="user", parts=tuple(range(len(images))))]
    example = assemble_native(peer.ours, images, messages)
    theirs = peer.visual_tokens(peer.inputs(example, images))
    packed = jax.tree.map(jnp.asarray, pack([example], room_for([example], (128, 128))))
    encode = nnx.jit(lambda model, *arrays: model.vision(*arrays))
    ours = encode(peer.ours.model, packed.patches, packed.patch_positions, packed.patch_segment_ids)
    assert theirs.shape == (sum(rows * columns for rows, columns in grids), 1_536)
    difference = float(np.abs(np.asarray(ours)[: len(theirs)] - theirs).max())
    print(f"largest difference {difference:.3g} of values up to {np.abs(theirs).max():.3g}")
    assert difference <= TOWER_TOLERANCE

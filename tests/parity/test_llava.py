"""CLIP, ConvNeXt, LLaVA-1.5 and LLaVA-NeXT with random weights, against live `transformers`.

Weights go through files that `transformers` writes. Pixels and places of tokens are made on either
side by its own code; tokens are ours.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from peers import spread
from picture_peers import greedy, photograph, prompt, scores
from PIL import Image

from mres_jax import testing
from mres_jax.data.packing import example_slices, pack
from mres_jax.data.position_weights import position_weights
from mres_jax.data.resampling import resize_matrix
from mres_jax.data.tiles import best_canvas, tile_layout, tile_views, unpadded
from mres_jax.data.types import Example, Rung
from mres_jax.geometry import Grid, Size
from mres_jax.inference import load
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.generate import Generator
from mres_jax.models.convnext.config import ConvNeXtConfig
from mres_jax.models.convnext.convert import IGNORED, RENAMES, convnext_keys
from mres_jax.models.convnext.model import ConvNeXt
from mres_jax.models.key_table import KeyTable
from mres_jax.models.registry import export_hf, load_model
from mres_jax.models.weights import load_weights
from mres_jax.protocols import Sampling

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("chatter")]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
next_images = pytest.importorskip(
    "transformers.models.llava_next.image_processing_pil_llava_next",
    reason="needs transformers 5.x",
)
llava_images = pytest.importorskip("transformers.models.llava.image_processing_pil_llava")
next_modeling = pytest.importorskip("transformers.models.llava_next.modeling_llava_next")
next_processing = pytest.importorskip("transformers.models.llava_next.processing_llava_next")

TOLERANCE = 2e-4  # of logits up to about 10 in float32, through up to six layers
CLEAR = 1e-4  # gap of the two best scores; above the largest difference measured
NEW_TOKENS = 12
SIDE, PATCH = 24, 4
PINPOINTS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]
SIZES = [(24, 24), (31, 70), (80, 30), (100, 90), (25, 23), (11, 64)]  # of pictures: height, width


@pytest.mark.parametrize(("num_in", "num_out"), [(24, 32), (24, 48), (24, 16), (24, 5), (7, 24)])
def test_an_axis_is_resized_as_by_torch(num_in, num_out):
    x = np.random.default_rng(0).normal(size=(1, 1, num_in, num_in)).astype(np.float32)
    for rule, options in {
        "bicubic_antialias": {"mode": "bicubic", "antialias": True},
        "bicubic": {"mode": "bicubic"},
        "linear_corners": {"mode": "bilinear", "align_corners": True},
    }.items():
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(x), size=(num_out, num_out), **options
        )
        matrix = resize_matrix(num_out, num_in, rule)
        np.testing.assert_allclose(matrix @ x[0, 0] @ matrix.T, theirs[0, 0].numpy(), atol=1e-5)


def test_convnext_is_theirs_through_a_file_of_theirs(tmp_path):
    sizes = {"depths": [2, 1, 3, 1], "hidden_sizes": [8, 12, 16, 24]}
    theirs = spread(transformers.ConvNextModel(transformers.ConvNextConfig(**sizes)))
    theirs.save_pretrained(tmp_path / "model")
    config = ConvNeXtConfig(**{name: tuple(value) for name, value in sizes.items()})
    skeleton = nnx.eval_shape(lambda: ConvNeXt(config, rngs=nnx.Rngs(0)))
    keys = [
        dataclasses.replace(key, ours=key.ours.removeprefix("m."))
        for key in convnext_keys(config, "", "m")
    ]
    table = KeyTable(keys=keys, renames=RENAMES, ignored=(*IGNORED, r"^layernorm\."))
    nnx.update(skeleton, load_weights(tmp_path / "model", skeleton, table))
    image = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), np.uint8)
    mean, std = np.float32(config.image_mean), np.float32(config.image_std)
    pixels = ((image / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(pixels)).last_hidden_state[0].numpy()
    ours = nnx.jit(lambda m, *a: m(*a))(skeleton, jnp.asarray(image), jnp.array([[96, 128]]))
    difference = np.abs(np.asarray(ours)[0].transpose(2, 0, 1) - expected).max()
    print(f"largest difference {difference:.3g} of values up to {np.abs(expected).max():.3g}")
    assert difference <= 1e-4


class Peer(NamedTuple):
    """A model of `transformers`, and ours out of the files it wrote."""

    name: str
    model: Any
    processor: Any
    ours: LocalAnswerer
    directory: pathlib.Path


FAMILIES = {
    "LLaVA-1.5": (transformers.LlavaForConditionalGeneration, transformers.LlavaConfig),
    "LLaVA-NeXT": (transformers.LlavaNextForConditionalGeneration, transformers.LlavaNextConfig),
}
RUNG = Rung(max_patches=1_088, max_tokens=1_024, max_views=30, max_examples=6)


@pytest.fixture(scope="module", params=FAMILIES)
def peer(request, tmp_path_factory) -> Peer:
    vocabulary = testing.tiny_tokenizer()
    make, make_config = FAMILIES[request.param]
    more = {"image_grid_pinpoints": PINPOINTS} if request.param == "LLaVA-NeXT" else {}
    config = make_config(
        text_config=transformers.LlamaConfig(
            vocab_size=vocabulary.vocab_size,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-3,
            max_position_embeddings=1_024,
            rope_parameters={"rope_type": "default", "rope_theta": 5_000.0},
        ),
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
            layer_norm_eps=1e-4,
        ),
        image_token_index=vocabulary.token_id("<|image_pad|>"),
        image_seq_length=(SIDE // PATCH) ** 2,
        tie_word_embeddings=False,
        **more,
    )
    model = spread(make(config))
    square = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    if more:
        processor = next_images.LlavaNextImageProcessorPil(**square, **more)
    else:
        processor = llava_images.LlavaImageProcessorPil(**square, do_pad=True)
    directory = tmp_path_factory.mktemp("peer") / "model"
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    (directory / "tokenizer.json").write_bytes(vocabulary.to_bytes())
    ours = load(directory, ladder=[RUNG], rows=(8,)).answerer
    return Peer(request.param, model, processor, ours, directory)


def arguments(peer: Peer, example: Example, images: Sequence[np.ndarray]) -> dict[str, Any]:
    """The same prompt, its pictures through their processor."""
    tokens = torch.from_numpy(example.tokens[None].astype(np.int64))
    out = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if images:
        seen = peer.processor(images=[Image.fromarray(i) for i in images], return_tensors="pt")
        out |= {name: seen[name] for name in ("pixel_values", "image_sizes") if name in seen}
    return out


@pytest.mark.parametrize("grid", [Grid(1, 4, 4), Grid(1, 8, 8), Grid(1, 12, 5)])
def test_positions_of_another_size_are_resized_as_by_them(peer, grid):
    """From 6 x 6: where a model takes any size, `interpolate_pos_encoding` is what it was given."""
    embeddings = peer.model.model.vision_tower.embeddings
    blank = torch.zeros(1, 1 + grid.h * grid.w, 32)
    with torch.no_grad():
        theirs = embeddings.interpolate_pos_encoding(blank, grid.h * PATCH, grid.w * PATCH)
    table = embeddings.position_embedding.weight.detach().numpy()[1:].reshape(6, 6, 32)
    weights = position_weights([grid], peer.ours.spec.positions, merge_size=1)
    ours = np.einsum("pi,pj,ijc->pc", weights[:, 0], weights[:, 1], table)
    np.testing.assert_allclose(ours, theirs[0, 1:].numpy(), rtol=0, atol=1e-5)


PROMPTS = [[size] for size in SIZES[:4]] + [[SIZES[4], SIZES[5]], []]


def test_logits_and_greedy_text_are_theirs(peer):
    """Six prompts in one pack: pictures of all shapes, two in one prompt, none."""
    pictures = [[photograph(size) for size in sizes] for sizes in PROMPTS]
    examples = [prompt(peer.ours, images) for images in pictures]
    packed = jax.tree.map(jnp.asarray, pack(examples, RUNG))
    ours = scores(peer.ours.model, packed)
    spec = peer.ours.spec
    generator = Generator(peer.ours.model, spec, rows=(8,))
    completions, _ = generator.generate(
        packed,
        [str(i) for i in range(len(examples))],
        rung=RUNG,
        sampling=Sampling(max_new_tokens=NEW_TOKENS),
    )
    slices = example_slices(np.asarray(packed.segment_ids))
    largest = 0.0
    for where, example, images, (completion,) in zip(
        slices, examples, pictures, completions, strict=True
    ):
        theirs = arguments(peer, example, images)
        with torch.no_grad():
            logits = peer.model(**theirs).logits[0].numpy()
        assert 3 < np.abs(logits).max() < 30
        largest = max(largest, float(np.abs(ours[where] - logits).max()))
        tokens, gap = greedy(peer.model, theirs, peer.ours.spec, NEW_TOKENS)
        assert gap > CLEAR
        assert list(completion.token_ids) == tokens
    print(f"{peer.name}: largest logit difference {largest:.3g}")
    assert largest <= TOLERANCE


@pytest.mark.parametrize("policy", ["fixed:24,mode=crop", "fixed:24,mode=pad"])
@pytest.mark.parametrize("size", SIZES)
def test_squares_are_theirs(policy, size):
    processor = llava_images.LlavaImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        do_pad=policy.endswith("pad"),
        do_rescale=False,
        do_normalize=False,
    )
    tiny = testing.tiny_llava(
        vision_config=dataclasses.replace(testing.tiny_clip_config(), image_size=SIDE),
        input_image_size=SIDE,
    )
    image = photograph(size)
    theirs = processor(images=[Image.fromarray(image)], return_tensors="np")["pixel_values"][0]
    example = prompt(LocalAnswerer(tiny.model, tiny.spec, tiny.tokenizer), [image], policy)
    ours = example.patches.reshape(6, 6, 3, PATCH, PATCH).transpose(2, 0, 3, 1, 4)
    np.testing.assert_array_equal(ours.reshape(3, SIDE, SIDE), theirs)


def test_what_we_write_is_read_by_them(peer, tmp_path):
    loaded = load_model(peer.directory)
    export_hf(loaded, tmp_path / "out")
    again = type(peer.model).from_pretrained(tmp_path / "out").eval()
    ours, theirs = again.state_dict(), peer.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert loaded.family.config_from_hf(config) == loaded.config
    made = loaded.family.config_to_hf(loaded.config)
    assert loaded.family.config_from_hf(made) == loaded.config
    fresh = type(peer.model.config)(**{k: v for k, v in made.items() if k != "architectures"})
    assert fresh.vision_config.to_dict() == peer.model.config.vision_config.to_dict()
    assert fresh.text_config.rope_parameters == peer.model.config.text_config.rope_parameters


def test_tiles_and_tokens_are_theirs_over_500_sizes():
    """Grid of tiles, rows and columns that are kept, and the processor's count of tokens."""
    rng = np.random.default_rng(1)
    pinpoints = [[336, 672], [672, 336], [672, 672], [1_008, 336], [336, 1_008]]
    canvases = [Size(*pair) for pair in pinpoints]
    processor = next_processing.LlavaNextProcessor.__new__(next_processing.LlavaNextProcessor)
    processor.patch_size, processor.num_additional_image_tokens = 14, 1
    processor.image_processor = next_images.LlavaNextImageProcessorPil()
    spec = released_spec(canvases)
    for height, width in np.exp(rng.uniform(3, 8.2, (500, 2))).astype(int).tolist():
        size = Size(height, width)
        canvas = best_canvas(size, canvases)
        assert canvas == next_modeling.select_best_resolution((height, width), pinpoints)
        views = tile_views(0, size, canvas, side=336)
        assert len(views) == next_modeling.image_size_to_num_patches(
            [height, width], pinpoints, 336
        )
        grid = Size(canvas.height // 14, canvas.width // 14)
        kept = np.zeros(grid)[unpadded(size, grid)].shape
        theirs = next_modeling.unpad_image(torch.zeros(1, *grid), (height, width)).shape[1:]
        assert kept == tuple(theirs)
        count = processor._get_number_of_features(height, width, 336, 336) - 1
        assert len(tile_layout(views, spec)) == count


def released_spec(canvases: list[Size]) -> Any:
    spec = testing.tiny_llava_next().spec
    rule = dataclasses.replace(spec.tiles, side=336, canvases=tuple(canvases))
    return dataclasses.replace(spec, patch_size=14, tiles=rule)

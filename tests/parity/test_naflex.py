"""SigLIP2-NaFlex beside live transformers with tiny random weights, and NativeRes-LLaVA on it.

transformers has no such NativeRes-LLaVA: tower, projector and decoder are joined here.
"""

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
from mres_jax.data.resampling import resize_matrix
from mres_jax.data.types import Example, Rung
from mres_jax.geometry import naflex_size
from mres_jax.inference import load
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.generate import Generator
from mres_jax.models.key_table import flatten
from mres_jax.models.registry import export_hf, load_model, load_part
from mres_jax.protocols import Sampling

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("chatter")]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")
siglip_images = pytest.importorskip(
    "transformers.models.siglip2.image_processing_pil_siglip2", reason="needs transformers 5.x"
)

TOLERANCE = 2e-4  # of logits up to about 10 in float32, through up to six layers
FEATURE_TOLERANCE = 1e-4  # of values up to about 5
CLEAR = 1e-4  # gap of the two best scores; above the largest difference measured
NEW_TOKENS = 12
PATCH, MOST = 4, 40  # pixels of a patch, patches of a picture
RUNG = Rung(max_patches=448, max_tokens=640, max_views=12, max_examples=4)
# Heights and widths of the pictures of a pack, px; each list in it is a prompt.
MIXES = {
    "one picture": [[(30, 50)]],
    "its own grid": [[(28, 28)]],
    "several in a prompt": [[(30, 50), (64, 20), (9, 90)]],
    "several prompts": [[(41, 17)], [(16, 80), (33, 33)], [(100, 70)]],
    "strips": [[(1, 200)], [(160, 2)], [(4, 600), (300, 4)]],
    "small and enlarged": [[(1, 1)], [(3, 2), (5, 5)]],
    "large": [[(700, 500)], [(333, 1_000)]],
    "text beside pictures": [[], [(25, 70)], []],
}


@pytest.fixture(autouse=True)
def _one_column(monkeypatch):
    """A column is resized as a row: torch 2.13 on CPU gives all samples of a single column the
    value of the first, though of a single row it resizes each."""
    resize = torch.nn.functional.interpolate

    def interpolate(x, *, size, **options):
        if size[1] == 1:
            return resize(x.mT, size=size[::-1], **options).mT
        return resize(x, size=size, **options)

    monkeypatch.setattr(torch.nn.functional, "interpolate", interpolate)


class Peer(NamedTuple):
    """The parts of `transformers`, and ours out of the files they wrote."""

    tower: Any
    projector: Any
    text: Any
    images: Any
    ours: LocalAnswerer
    directory: pathlib.Path


@pytest.fixture(scope="module")
def peer(tmp_path_factory) -> Peer:
    """The tower lies beside the rest, as the hub has it, with head and text tower."""
    vocabulary = testing.tiny_tokenizer()
    sizes = {"intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2}
    whole = transformers.Siglip2Config(
        vision_config={
            **sizes,
            "hidden_size": 32,
            "patch_size": PATCH,
            "num_patches": 49,
            "layer_norm_eps": 1e-4,
        },
        text_config={**sizes, "hidden_size": 32, "vocab_size": 99, "projection_size": 32},
    )
    siglip = spread(transformers.Siglip2Model(whole), seed=1)
    width = 48
    projector = spread(
        torch.nn.Sequential(
            torch.nn.Linear(32, width), torch.nn.GELU(), torch.nn.Linear(width, width)
        ),
        seed=2,
    )
    text = transformers.Qwen2Config(
        vocab_size=vocabulary.vocab_size,
        hidden_size=width,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1_024,
        rms_norm_eps=1e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 5_000.0},
        tie_word_embeddings=False,
        use_sliding_window=False,
    )
    decoder = spread(transformers.Qwen2ForCausalLM(text), seed=3)
    images = siglip_images.Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=MOST)
    directory = tmp_path_factory.mktemp("peer") / "model"
    siglip.save_pretrained(directory / "vision_tower")
    weights = dict(decoder.state_dict())
    weights |= {f"model.mm_projector.{n}": t for n, t in projector.state_dict().items()}
    safetensors_torch.save_file(weights, directory / "model.safetensors")
    config = text.to_dict() | {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        "mm_hidden_size": 32,
        "vision_config": siglip.config.vision_config.to_dict(),
        "image_token_id": vocabulary.token_id("<|image_pad|>"),
    }
    (directory / "config.json").write_text(json.dumps(config))
    images.save_pretrained(directory)
    (directory / "tokenizer.json").write_bytes(vocabulary.to_bytes())
    ours = load(directory, ladder=[RUNG], rows=(4,)).answerer
    return Peer(siglip.vision_model, projector, decoder, images, ours, directory)


def examples_of(peer: Peer, mix: str) -> list[tuple[list[np.ndarray], Example]]:
    prompts = [[photograph(size) for size in sizes] for sizes in MIXES[mix]]
    return [(images, prompt(peer.ours, images, "native")) for images in prompts]


def seen(peer: Peer, images: Sequence[np.ndarray], **settings: Any) -> Any:
    return peer.images(images=[Image.fromarray(i) for i in images], return_tensors="pt", **settings)


@torch.no_grad()
def features(peer: Peer, images: Sequence[np.ndarray]) -> Any:
    """Of the patches of all pictures, one behind the other."""
    inputs = seen(peer, images)
    mask = inputs["pixel_attention_mask"].bool()
    out = peer.tower(inputs["pixel_values"], mask, inputs["spatial_shapes"]).last_hidden_state
    return torch.cat([rows[keep] for rows, keep in zip(out, mask, strict=True)])


@pytest.mark.parametrize("mix", MIXES)
def test_pixels_and_features_are_theirs(peer, mix):
    made = examples_of(peer, mix)
    packed = jax.tree.map(jnp.asarray, pack([example for _, example in made], RUNG))
    ours = tower_features(peer.ours.model, packed)
    start, largest = 0, 0.0
    for images, example in made:
        if not images:
            continue
        raw = seen(peer, images, do_rescale=False, do_normalize=False)
        shapes = raw["spatial_shapes"].tolist()
        assert [list(grid[1:]) for grid in example.grids] == shapes
        keep = raw["pixel_attention_mask"].bool()
        theirs = raw["pixel_values"][keep].numpy().reshape(-1, PATCH, PATCH, 3)
        rows = example.patches.reshape(-1, 3, PATCH, PATCH).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(rows, theirs)
        expected = features(peer, images).numpy()
        difference = np.abs(ours[start : start + len(expected)] - expected).max()
        largest, start = max(largest, float(difference)), start + len(expected)
        assert np.abs(expected).max() > 1
    print(f"largest difference {largest:.3g}")
    assert largest <= FEATURE_TOLERANCE


def tower_features(model: Any, packed: Any) -> np.ndarray:
    return np.asarray(nnx.jit(lambda m, p: m.vision.features(p).last)(model, packed))


@pytest.mark.parametrize("mix", MIXES)
def test_logits_and_greedy_text_are_theirs(peer, mix):
    made = examples_of(peer, mix)
    packed = jax.tree.map(jnp.asarray, pack([example for _, example in made], RUNG))
    ours, spec = scores(peer.ours.model, packed), peer.ours.spec
    completions, _ = Generator(peer.ours.model, spec, rows=(4,)).generate(
        packed,
        [str(i) for i in range(len(made))],
        rung=RUNG,
        sampling=Sampling(max_new_tokens=NEW_TOKENS),
    )
    slices = example_slices(np.asarray(packed.segment_ids))
    for where, (images, example), (completion,) in zip(slices, made, completions, strict=True):
        theirs = arguments(peer, example, images)
        with torch.no_grad():
            logits = peer.text(**theirs).logits[0].numpy()
        assert 3 < np.abs(logits).max() < 40
        difference = float(np.abs(ours[where] - logits).max())
        print(f"largest logit difference {difference:.3g}")
        assert difference <= TOLERANCE
        tokens, gap = greedy(peer.text, theirs, spec, NEW_TOKENS)
        assert gap > CLEAR
        assert list(completion.token_ids) == tokens


@torch.no_grad()
def arguments(peer: Peer, example: Example, images: Sequence[np.ndarray]) -> dict[str, Any]:
    tokens = torch.from_numpy(example.tokens[None].astype(np.int64))
    embedded = peer.text.get_input_embeddings()(tokens)
    if images:
        visual = peer.projector(features(peer, images))
        places = (tokens == peer.ours.spec.image_token_id)[..., None]
        embedded = embedded.masked_scatter(places.expand_as(embedded), visual)
    return {
        "inputs_embeds": embedded,
        "attention_mask": torch.ones_like(tokens),
    }


def test_their_sizes_over_2000_pictures():
    rng = np.random.default_rng(0)
    theirs = siglip_images.get_image_size_for_max_num_patches
    for height, width in np.exp(rng.uniform(0, 8.5, (2_000, 2))).astype(int).tolist():
        most = int(rng.integers(1, 1_025))
        ours = naflex_size(height, width, stride=16, max_tokens=most)
        assert ours == theirs(height, width, 16, most)


@pytest.mark.parametrize(("num_in", "num_out"), [(16, 16), (16, 40), (16, 5), (7, 1), (1, 7)])
def test_an_axis_is_resized_as_by_torch(num_in, num_out):
    x = np.random.default_rng(0).normal(size=(1, 1, num_in, num_in)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(x), size=(num_out, num_out), mode="bilinear", antialias=True
    )
    matrix = resize_matrix(num_out, num_in, "linear_antialias")
    np.testing.assert_allclose(matrix @ x[0, 0] @ matrix.T, theirs[0, 0].numpy(), atol=1e-5)


def test_what_we_write_goes_back_into_their_tower(peer, tmp_path):
    loaded = load_model(peer.directory)
    export_hf(loaded, tmp_path / "out")
    tensors = safetensors_torch.load_file(tmp_path / "out" / "model.safetensors")
    prefix = "model.vision_tower.vision_tower.vision_model."
    ours = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    theirs = {n: t for n, t in peer.tower.state_dict().items() if not n.startswith("head.")}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    again = load_model(tmp_path / "out")
    assert (again.config, again.spec) == (loaded.config, loaded.spec)


def test_the_tower_is_read_by_itself_for_a_new_model(peer):
    state = nnx.state(peer.ours.model, nnx.Param)
    flat = [(path, x) for path, x in nnx.to_flat_state(state) if path[0] == "vision"]
    found = flatten(load_part(str(peer.directory / "vision_tower"), nnx.from_flat_state(flat)))
    for path, variable in flat:
        np.testing.assert_array_equal(found[".".join(map(str, path))], variable.get_value())

"""SmolVLM2 beside live transformers, tiny random weights: pixels, prompts, logits, text, files."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jinja2
import numpy as np
import pytest
from peers import spread
from picture_peers import greedy, photograph, prompt, scores
from PIL import Image
from smol_peers import RUNG, SHAPES, Peer, make_peer, seen

from mres_jax import testing
from mres_jax.data.packing import example_slices, pack
from mres_jax.data.splits import split_views
from mres_jax.data.types import Example, Rung
from mres_jax.geometry import Size
from mres_jax.inference import load
from mres_jax.inference.generate import Generator
from mres_jax.models.registry import FAMILIES, export_hf, load_model
from mres_jax.models.smolvlm.config import smolvlm2
from mres_jax.protocols import Sampling

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("chatter")]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
smol_images = pytest.importorskip(
    "transformers.models.smolvlm.image_processing_pil_smolvlm", reason="needs transformers 5.x"
)
smol_processing = pytest.importorskip("transformers.models.smolvlm.processing_smolvlm")

TOLERANCE = 2e-4  # of logits up to about 10 in float32, through up to five layers
CLEAR = 1e-4  # gap of the two best scores; above the largest difference measured
NEW_TOKENS = 12


# Heights and widths: several in one prompt, none, strips, one square, odd sides, nine squares.
PROMPTS = [
    [(30, 50)],
    [(90, 90)],
    [(7, 80)],
    [(80, 3)],
    [(23, 24), (60, 41)],
    [],
    [(1, 1)],
    [(25, 70), (70, 25), (12, 12)],
]


@pytest.fixture(scope="module", params=SHAPES)
def peer(request, tmp_path_factory) -> Peer:
    return make_peer(request.param, tmp_path_factory.mktemp("peer") / "model")


def arguments(peer: Peer, example: Example, images: Sequence[np.ndarray]) -> dict[str, Any]:
    tokens = torch.from_numpy(example.tokens[None].astype(np.int64))
    out = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if images:
        theirs = seen(peer, images)
        out |= {name: theirs[name] for name in ("pixel_values", "pixel_attention_mask")}
    return out


def their_tokens(peer: Peer, images: Sequence[np.ndarray], rows: Any, columns: Any) -> list[int]:
    """The prompt through their chat template, their expansion of pictures and the tokenizer."""
    parts = [{"type": "image"}] * len(images) + [{"type": "text", "text": "what is the total?"}]
    text = jinja2.Template(smol_processing.DEFAULT_CHAT_TEMPLATE).render(
        messages=[{"role": "user", "content": parts}], add_generation_prompt=True
    )
    spec = peer.ours.spec
    first, *others = text.split("<image>")
    for row, column, rest in zip(rows, columns, others, strict=True):
        first += smol_processing.get_image_prompt_string(
            row,
            column,
            (spec.image_size // spec.stride) ** 2,
            fake_token_around_image="<fake_token_around_image>",
            image_token="<image>",
            global_image_token="<global-img>",
        )
        first += rest
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(peer.directory / "tokenizer.json")
    )
    return fast(first)["input_ids"]


@pytest.mark.parametrize("mode", ["split", "split,mode=whole"])
def test_pixels_and_prompts_are_theirs(peer, mode):
    for sizes in PROMPTS:
        images = [photograph(size) for size in sizes]
        example = prompt(peer.ours, images, mode)
        if not images:
            assert example.tokens.tolist() == their_tokens(peer, [], [], [])
            continue
        theirs = seen(
            peer,
            images,
            do_image_splitting=mode == "split",
            do_rescale=False,
            do_normalize=False,
        )
        rows, columns = theirs["rows"][0], theirs["cols"][0]
        assert example.tokens.tolist() == their_tokens(peer, images, rows, columns)
        np.testing.assert_array_equal(pixels(peer, example), shown(peer, theirs["pixel_values"]))


def pixels(peer: Peer, example: Example) -> np.ndarray:
    """All views as pictures, `[n 3 H W]`, out of patch rows in block order."""
    spec = peer.ours.spec
    patch, merge = spec.patch_size, spec.merge_size
    blocks = spec.image_size // spec.stride
    rows = example.patches.reshape(-1, blocks, blocks, merge, merge, 3, patch, patch)
    rows = rows.transpose(0, 5, 1, 3, 6, 2, 4, 7)
    return rows.reshape(len(rows), 3, spec.image_size, spec.image_size)


def shown(peer: Peer, values: Any) -> np.ndarray:
    """The pixels of theirs that their convolution sees."""
    side = peer.ours.spec.image_size
    return values[0, :, :, :side, :side].numpy()


def test_visual_tokens_are_theirs(peer):
    """Pictures of all prompts in one pack, through tower, pixel shuffle and connector."""
    pictures = [[photograph(size) for size in sizes] for sizes in PROMPTS]
    packed = pack([prompt(peer.ours, images) for images in pictures], RUNG)
    ours = np.asarray(jax.jit(lambda p: peer.ours.model.encode(p).tokens)(packed))
    start = 0
    for images in filter(len, pictures):
        theirs = seen(peer, images)
        with torch.no_grad():
            out = peer.model.model.get_image_features(
                theirs["pixel_values"], theirs["pixel_attention_mask"]
            )
        expected = torch.cat(list(out.pooler_output)).numpy()
        np.testing.assert_allclose(ours[start : start + len(expected)], expected, atol=1e-4)
        start += len(expected)


def test_logits_and_greedy_text_are_theirs(peer):
    """Eight prompts in one pack."""
    pictures = [[photograph(size) for size in sizes] for sizes in PROMPTS]
    examples = [prompt(peer.ours, images) for images in pictures]
    packed = jax.tree.map(jnp.asarray, pack(examples, RUNG))
    ours, spec = scores(peer.ours.model, packed), peer.ours.spec
    completions, _ = Generator(peer.ours.model, spec, rows=(8,)).generate(
        packed,
        [str(i) for i in range(len(examples))],
        rung=RUNG,
        sampling=Sampling(max_new_tokens=NEW_TOKENS),
    )
    largest = 0.0
    for where, example, images, (completion,) in zip(
        example_slices(np.asarray(packed.segment_ids)),
        examples,
        pictures,
        completions,
        strict=True,
    ):
        theirs = arguments(peer, example, images)
        with torch.no_grad():
            logits = peer.model(**theirs).logits[0].numpy()
        assert 3 < np.abs(logits).max() < 40
        largest = max(largest, float(np.abs(ours[where] - logits).max()))
        tokens, gap = greedy(peer.model, theirs, spec, NEW_TOKENS)
        assert gap > CLEAR
        assert list(completion.token_ids) == tokens
    print(f"{peer.name}: largest logit difference {largest:.3g}")
    assert largest <= TOLERANCE


@pytest.mark.parametrize("size", ["256m", "2.2b"])
def test_the_tower_at_its_true_width(size, tmp_path):
    """Squares, channels, heads and patches as released, two layers of them, and the connector."""
    released = smolvlm2(size)
    config = dataclasses.replace(
        released,
        vision_config=dataclasses.replace(released.vision_config, num_hidden_layers=2),
        text_config=dataclasses.replace(
            released.text_config, num_hidden_layers=1, intermediate_size=64, vocab_size=512
        ),
        image_token_id=testing.tiny_smolvlm_tokenizer().token_id("<image>"),
    )
    content = FAMILIES["smolvlm"].config_to_hf(config)
    del content["architectures"]
    theirs = spread(
        transformers.SmolVLMForConditionalGeneration(transformers.SmolVLMConfig(**content))
    )
    side = config.vision_config.image_size
    images = smol_images.SmolVLMImageProcessorPil(
        size={"longest_edge": 2 * side}, max_image_size={"longest_edge": side}
    )
    theirs.save_pretrained(tmp_path)
    images.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(testing.tiny_smolvlm_tokenizer().to_bytes())
    ours = load(tmp_path).answerer
    picture = photograph((300, 700))
    example = prompt(ours, [picture])
    seen = images(images=[[Image.fromarray(picture)]], return_tensors="pt")
    with torch.no_grad():
        out = theirs.model.get_image_features(seen["pixel_values"], seen["pixel_attention_mask"])
    expected = torch.cat(list(out.pooler_output)).numpy()
    patches = -(-len(example.patches) // 128) * 128
    rung = Rung(max_patches=patches, max_tokens=512, max_views=4, max_examples=1)
    found = np.asarray(jax.jit(lambda p: ours.model.encode(p).tokens)(pack([example], rung)))
    assert example.num_visual_tokens == len(expected) == 3 * (64 if size == "256m" else 81)
    difference = float(np.abs(found[: len(expected)] - expected).max())
    print(
        f"{size}: largest difference {difference:.3g} of values up to {np.abs(expected).max():.3g}"
    )
    assert difference <= 1e-4


def test_what_we_write_is_read_by_them(peer, tmp_path):
    loaded = load_model(peer.directory)
    export_hf(loaded, tmp_path / "out")
    again = type(peer.model).from_pretrained(tmp_path / "out").eval()
    ours, theirs = again.state_dict(), peer.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    made = loaded.family.config_to_hf(loaded.config)
    assert loaded.family.config_from_hf(made) == loaded.config
    fresh = type(peer.model.config)(**{k: v for k, v in made.items() if k != "architectures"})
    assert fresh.vision_config.to_dict() == peer.model.config.vision_config.to_dict()
    assert fresh.text_config.rope_parameters == peer.model.config.text_config.rope_parameters
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert loaded.family.config_from_hf(written) == loaded.config


def test_squares_are_theirs_over_500_sizes():
    """Rows and columns at the released sizes, 256M and 2.2B."""
    rng = np.random.default_rng(1)
    for side in (512, 384):
        images = smol_images.SmolVLMImageProcessorPil(
            size={"longest_edge": 4 * side}, max_image_size={"longest_edge": side}
        )
        rule = testing.tiny_smolvlm().spec.split
        rule = type(rule)(**vars(rule) | {"side": side, "shown": side, "longest": 4 * side})
        for height, width in np.exp(rng.uniform(0, 8.2, (250, 2))).astype(int).tolist():
            count, *_ = images.get_number_of_image_patches(height, width)
            views = split_views(0, Size(height, width), rule, longest=rule.longest)
            assert len(views) == max(count, 1), (height, width)

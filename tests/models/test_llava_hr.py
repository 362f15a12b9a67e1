"""The dual tower: adapters that begin as nothing, the released numbers, and what is refused."""

import dataclasses
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax import testing
from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.packing import pack
from mres_jax.data.types import Pack, Rung
from mres_jax.geometry import Size
from mres_jax.models.clip.config import ClipConfig
from mres_jax.models.convnext.config import ConvNeXtConfig
from mres_jax.models.key_table import expected_shapes, flatten
from mres_jax.models.llava_hr.config import DualConfig, LlavaHRConfig
from mres_jax.models.llava_hr.convert import VISION, key_table
from mres_jax.models.llava_hr.processor import make_spec
from mres_jax.models.llava_hr.tower import DualTower
from mres_jax.resolution.policies import parse_policy

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "llava_hr_tower.npz"
SIDE = 128


def rung(side: int, views: int, per_view: int) -> Rung:
    return Rung(
        max_patches=views * per_view,
        max_tokens=views * per_view + 64,
        max_views=views,
        max_examples=1,
        canvases=((side, side),),
    )


def conversation(tiny: testing.TinyModel, num_images: int = 2, *, views: int = 3) -> Pack:
    """Pictures padded to squares, a question and an answer; one canvas stays empty."""
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (90, 50 + 90 * i, 3), np.uint8) for i in range(num_images)]
    sizes = [Size(*image.shape[:2]) for image in images]
    shown = parse_policy(tiny.spec.default_policy)(sizes, "", tiny.spec)
    messages = prompt_messages("what is the total", num_images=num_images, answer="blue")
    example = assemble(images, shown, messages, tiny.spec, tiny.tokenizer, label_mask="answer")
    return jax.tree.map(jnp.asarray, pack([example], rung(SIDE, views, 16)))


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["high_to_low", "low_to_high"])
def test_a_fresh_tower_is_the_one_without_adapters_bit_for_bit(direction):
    packed = conversation(testing.tiny_llava_hr())
    config = testing.tiny_dual_config(direction=direction)
    tower = nnx.jit(lambda: DualTower(config, rngs=nnx.Rngs(0)))()
    plain = nnx.eval_shape(
        lambda: DualTower(dataclasses.replace(tower.config, num_adapters=0), rngs=nnx.Rngs(0))
    )
    state = nnx.state(tower, nnx.Param)
    del state["adapters"]
    nnx.update(plain, state)
    np.testing.assert_array_equal(features(tower, packed), features(plain, packed))


def features(tower: DualTower, packed: Pack) -> np.ndarray:
    graphdef, state = nnx.split(tower)
    return np.asarray(jax.jit(lambda s: nnx.merge(graphdef, s).features(packed).last)(state))


@pytest.mark.slow
def test_a_picture_among_others_is_what_it_is_alone():
    """Within rounding. A pack has an unused canvas, a pack of one has two."""
    tiny = testing.tiny_llava_hr()
    together, alone = (features(tiny.model.vision, conversation(tiny, n)) for n in (2, 1))
    np.testing.assert_allclose(together[:16], alone[:16], atol=2e-5)
    assert not together[32:].any()
    assert not alone[16:].any()


# The released code was run once (HEAD 1212ffb, timm 0.9.11, transformers 4.31.0, torch 2.13,
# float32 on a CPU) as a tower of these sizes: ViT of 8 layers, 32 channels, 2 heads, feed-forward
# 64, 14-pixel patches, a table for 336 px; ConvNeXt of 1, 2, 3 and 1 layers with 8, 12, 16 and 24
# channels, epsilon 1e-6, layer scale on. Every tensor was drawn from NumPy's default generator,
# seeded with the CRC-32 of its full key: normal, divided by the square root of the product of all
# extents but the first; those of one axis a tenth of it, and 1 more where the key ends in `weight`.
# The picture: integers 0 to 255, `[side side 3]`, generator seeded with `side`, normalised with
# CLIP's mean and std. Kept: 16 rows of the output at equal distances, first and last among them.
# `384_frozen` is the tower of the first stage, without adapters.
@pytest.mark.parametrize(
    "name",
    ["384", *(pytest.param(n, marks=pytest.mark.slow) for n in ("384_frozen", "768", "1024"))],
)
def test_the_tower_is_the_released_one(name):
    side = int(name.partition("_")[0])
    low = ClipConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=8,
        num_attention_heads=2,
        feature_layer=-1,
        class_token=False,
        position_resize="bicubic_antialias",
    )
    high = ConvNeXtConfig(depths=(1, 2, 3, 1), hidden_sizes=(8, 12, 16, 24))
    dual = DualConfig(
        low=low, high=high, input_image_size=side, num_adapters=0 if "frozen" in name else 3
    )
    tower = drawn(dual)
    tokenizer = testing.tiny_tokenizer()
    config = LlavaHRConfig(
        vision_config=dual, text_config=testing.tiny_llama_config(tokenizer), image_token_index=5
    )
    spec = make_spec(config, tokenizer.token_id)
    image = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    views = parse_policy(spec.default_policy)([Size(side, side)], "", spec)
    example = assemble([image], views, prompt_messages("a", num_images=1), spec, tokenizer)
    count = dual.grid_side**2
    packed = jax.tree.map(jnp.asarray, pack([example], rung(side, 1, count)))
    ours = features(tower, packed)
    theirs = np.load(GOLDEN)[name]
    rows = np.linspace(0, count - 1, len(theirs)).astype(int)
    difference = np.abs(ours[rows] - theirs).max() / np.abs(theirs).max()
    print(f"largest relative difference {difference:.3g}")
    assert difference <= 1e-4


def drawn(dual: DualConfig) -> DualTower:
    """The tower with the weights of the recipe above, by the keys of the released files."""
    tokenizer = testing.tiny_tokenizer()
    config = LlavaHRConfig(
        vision_config=dual, text_config=testing.tiny_llama_config(tokenizer), image_token_index=5
    )
    tower = nnx.eval_shape(lambda: DualTower(dual, rngs=nnx.Rngs(0)))
    leaves = {f"vision.{name}": leaf for name, leaf in flatten(tower).items()}
    table = key_table(config)
    keys = {key.ours: key for key in table.keys}
    shapes = expected_shapes(leaves, table)
    values = []
    for path, variable in nnx.to_flat_state(nnx.state(tower, nnx.Param)):
        key = keys["vision." + ".".join(map(str, path))]
        assert key.hf.startswith(VISION)
        names = [key.hf]
        if key.stacked:
            names = [key.hf.replace("{i}", str(i)) for i in range(variable.shape[0])]
        tensors = [key.to_ours(draw(name, shapes[name])) for name in names]
        array = np.stack(tensors) if key.stacked else tensors[0]
        values.append((path, variable.replace(jnp.asarray(array))))
    nnx.update(tower, nnx.from_flat_state(values))
    return tower


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if len(shape) > 1:
        return x / np.float32(np.prod(shape[1:])) ** np.float32(0.5)
    return np.float32(0.1) * x + np.float32(name.endswith("weight"))


def test_visual_tokens_and_layers_are_the_article_s():
    sides = {384: 24, 768: 24, 1_024: 32, 1_536: 48}
    for side, grid in sides.items():
        dual = DualConfig(
            high=ConvNeXtConfig(depths=(1,) * 4, hidden_sizes=(8,) * 4), input_image_size=side
        )
        assert dual.grid_side == grid


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"input_image_size": 1_000},
            r"input_image_size=1000 px; have multiples of 32 from 768 on",
        ),
        ({"input_image_size": 672}, r"and 32, 64, 96, 128, 192, 256, 384: the 21 x 21 positions"),
        ({"num_adapters": 4}, r"num_adapters=4 cannot stand between equal groups of the ViT's 24"),
        (
            {"direction": "low_to_high", "num_adapters": 5},
            r"num_adapters=5, but the ConvNeXt has 4",
        ),
        ({"low": ClipConfig()}, r"the ViT has no class token"),
        (
            {"direction": "low_to_high", "input_image_size": 256},
            r"the 24 x 24 patches of the ViT cannot tell a map of 16 x 16 positions. Use 768 px",
        ),
    ],
)
def test_towers_that_cannot_be_are_refused(changes, message):
    high = ConvNeXtConfig(depths=(1, 1, 1, 1), hidden_sizes=(8, 8, 8, 8))
    with pytest.raises(ValueError, match=message):
        DualConfig(**{"high": high} | changes)

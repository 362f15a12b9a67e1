"""CLIP over packs: class tokens, positions of any grid. Live transformers: tests/parity."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax import testing
from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import Message
from mres_jax.data.packing import pack
from mres_jax.data.types import Pack, Rung
from mres_jax.errors import PromptError
from mres_jax.geometry import Size
from mres_jax.models.clip.config import ClipConfig
from mres_jax.models.clip.model import ClipTower
from mres_jax.models.llava.config import LlavaConfig
from mres_jax.resolution.policies import parse_policy

RUNG = Rung(max_patches=96, max_tokens=128, max_views=5, max_examples=1)
SIZES = [Size(16, 16), Size(8, 24), Size(28, 20)]  # px: 16, 12 and 35 patches


@pytest.fixture(scope="module")
def tiny() -> testing.TinyModel:
    return testing.tiny_llava(input_image_size=None)


@pytest.fixture(scope="module")
def run(tiny):
    graphdef, state = nnx.split(tiny.model.vision)
    compiled = jax.jit(lambda packed: nnx.merge(graphdef, state).features(packed).last)
    return lambda packed: np.asarray(compiled(packed))


def picture(size: Size, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *size]).integers(0, 256, (*size, 3), np.uint8)


def packed(tiny, pictures) -> Pack:
    sizes = [Size(*image.shape[:2]) for image in pictures]
    views = parse_policy("native")(sizes, "", tiny.spec)
    messages = [Message(role="user", parts=tuple(range(len(pictures))))]
    example = assemble(pictures, views, messages, tiny.spec, tiny.tokenizer)
    return jax.tree.map(jnp.asarray, pack([example], RUNG))


def test_a_view_among_others_is_what_it_is_alone(tiny, run):
    """Within rounding: sums over blocks of another length are taken in another order."""
    images = [picture(size) for size in SIZES]
    together = run(packed(tiny, images))
    start = 0
    for image in images:
        count = image.shape[0] * image.shape[1] // 16
        alone = run(packed(tiny, [image]))[:count]
        np.testing.assert_allclose(together[start : start + count], alone, atol=2e-5)
        start += count
    assert not together[start:].any()


def test_another_picture_changes_no_bit_of_a_view(tiny, run):
    first = run(packed(tiny, [picture(size) for size in SIZES]))
    others = [picture(SIZES[0]), *(picture(size, seed=1) for size in SIZES[1:])]
    second = run(packed(tiny, others))
    np.testing.assert_array_equal(first[:16], second[:16])
    assert np.abs(first[16:63] - second[16:63]).max() > 1e-2


def test_patches_see_the_class_token(tiny, run):
    """Without it the features are others, by far more than rounding."""
    inputs = packed(tiny, [picture(SIZES[0])])
    config = dataclasses.replace(tiny.model.config.vision_config, class_token=False)
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: ClipTower(config, rngs=nnx.Rngs(0))))
    _, state = nnx.split(tiny.model.vision)
    bare = jax.jit(lambda packed: nnx.merge(graphdef, state).features(packed).last)(inputs)
    assert np.abs(run(inputs)[:16] - np.asarray(bare)[:16]).max() > 1e-2


def test_positions_of_the_table_s_own_grid_are_the_table(tiny):
    inputs = packed(tiny, [picture(SIZES[0])])
    tower = tiny.model.vision
    weights = inputs.position_weights
    blank = jnp.zeros((96, 48))
    embedded = tower.embed_patches(blank, weights)[:16]
    np.testing.assert_array_equal(embedded, tower.positions[...][1:])


def test_one_compile_serves_every_mix_of_sizes(tiny):
    traces = []

    @jax.jit
    def count(state, inputs):
        traces.append(1)
        return nnx.merge(graphdef, state).features(inputs).last

    graphdef, state = nnx.split(tiny.model.vision)
    for sizes in (SIZES, SIZES[:1], [Size(4, 60), Size(12, 4)]):
        count(state, packed(tiny, [picture(size) for size in sizes]))
    assert len(traces) == 1


def test_a_table_that_is_not_resized_takes_its_own_grid_alone(tiny):
    rule = dataclasses.replace(tiny.spec.positions, resize="none")
    fixed = tiny._replace(spec=dataclasses.replace(tiny.spec, positions=rule))
    packed(fixed, [picture(SIZES[0])])
    with pytest.raises(
        PromptError, match="a view of 5 x 7 patches, but the model's positions are a"
    ):
        packed(fixed, [picture(SIZES[2])])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_layer": -5}, r"feature_layer=-5 of 3 layers; have -4 to 3"),
        ({"image_size": 18}, r"image_size=18 is not whole patches of 4 px"),
        ({"num_attention_heads": 3}, r"num_attention_heads=3 does not divide hidden_size=16"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(testing.tiny_clip_config(), **changes)


def test_a_side_over_the_table_is_refused_where_the_table_is_not_resized():
    parts = testing.tiny_llava().model.config
    vision = dataclasses.replace(parts.vision_config, position_resize="none")
    with pytest.raises(
        ValueError, match=r"input_image_size=32, but the table of positions is for 16"
    ):
        dataclasses.replace(parts, vision_config=vision, input_image_size=32)
    with pytest.raises(
        ValueError, match=r"input_image_size=30 is not whole patches of 4 px. Use 32"
    ):
        dataclasses.replace(parts, input_image_size=30)


def test_the_layers_before_the_last_are_those_that_run():
    assert ClipConfig().num_layers_run == 23
    assert ClipConfig(feature_layer=-1).num_layers_run == 24
    assert LlavaConfig.__dataclass_fields__["input_image_size"].default == 336

"""LLaVA-HR at native aspect ratio: a square is the released model's, nothing else is paid for."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, strategies as st

import mres_jax
from mres_jax import testing
from mres_jax.data.assemble import assemble
from mres_jax.data.canvases import narrowed
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.packing import example_slices, pack
from mres_jax.data.types import Example, Pack, Rung
from mres_jax.errors import CheckpointError
from mres_jax.geometry import Size
from mres_jax.models import registry
from mres_jax.models.convnext.config import ConvNeXtConfig
from mres_jax.models.llava_hr.processor import native_canvases
from mres_jax.resolution.policies import parse_policy
from mres_jax.training.losses import next_token_sums

SIDE, STRIDE = 128, 32
WIDE, TALL, SQUARE = (96, 160), (160, 96), (SIDE, SIDE)  # px


def tiny(aspect: str = "native", **changes: Any) -> testing.TinyModel:
    """Two layers of the ViT with an adapter between them."""
    low = dataclasses.replace(testing.tiny_dual_config().low, num_hidden_layers=2)
    high = ConvNeXtConfig(depths=(1, 1, 1, 1), hidden_sizes=(8, 8, 12, 16))
    parts = {"low": low, "high": high, "num_adapters": 1} | changes
    return testing.tiny_llava_hr(image_aspect_ratio=aspect, **parts)


def rung(*canvases: tuple[int, int], views: int = 2) -> Rung:
    return Rung(max_patches=64, max_tokens=128, max_views=views, max_examples=2, canvases=canvases)


def make_example(model: testing.TinyModel, size: tuple[int, int], seed: int, policy="") -> Example:
    """A question about a random picture, and its answer."""
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    views = parse_policy(policy or model.spec.default_policy)([Size(*size)], "", model.spec)
    messages = prompt_messages("what is the total", num_images=1, answer="blue")
    return assemble([image], views, messages, model.spec, model.tokenizer, label_mask="answer")


@pytest.fixture(scope="module")
def model() -> testing.TinyModel:
    return tiny()


TRACES = []


@nnx.jit
def visual_tokens(model, packed):
    TRACES.append(1)
    return model.encode(jax.tree.map(jnp.asarray, packed)).tokens


def test_a_square_is_what_the_released_model_makes_of_it_bit_for_bit(model):
    """A picture that is one, and any other that is padded."""
    square = tiny("pad")
    for size, policy in (((300, 300), "native"), ((90, 160), square.spec.default_policy)):
        examples = make_example(model, size, 0, policy), make_example(square, size, 0)
        packs = [pack([example], rung(SQUARE, views=1)) for example in examples]
        for a, b in zip(*map(jax.tree.leaves, packs), strict=True):
            np.testing.assert_array_equal(a, b)
        ours, theirs = (visual_tokens(m.model, packs[0]) for m in (model, square))
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_picture_with_a_margin_among_others_is_what_it_is_alone_without(model):
    """Within rounding: a convolution may sum in another order on another canvas."""
    sizes = [(64, 160), TALL]
    examples = [make_example(model, size, i) for i, size in enumerate(sizes)]
    together = visual_tokens(model.model, pack(examples, rung(WIDE, TALL)))
    alone = visual_tokens(model.model, pack(examples[:1], rung(sizes[0], views=1)))
    count = examples[0].num_visual_tokens
    assert count == 10
    np.testing.assert_allclose(together[:count], alone[:count], atol=5e-5)


def test_another_picture_changes_no_bit_of_its_neighbour_and_compiles_nothing(model):
    """Of one shape and of another; the canvases that it leaves empty are skipped."""
    b, seen = make_example(model, TALL, 1), []
    for size in (WIDE, TALL, (32, 64), (96, 128)):
        packs = [pack([make_example(model, size, seed), b], rung(WIDE, TALL)) for seed in (2, 3)]
        count = b.num_visual_tokens
        start = packs[0].patch_segment_ids.tolist().index(2)
        one, other = (np.asarray(visual_tokens(model.model, packed)) for packed in packs)
        np.testing.assert_array_equal(one[start : start + count], other[start : start + count])
        assert np.abs(one - other)[:start].max() > 1e-3
        seen.append(len(TRACES))
    assert len(set(seen)) == 1


def test_a_wide_picture_costs_less_than_its_square(model):
    """A picture of 4 x 2 is seen as finely as in a square, by half of the work."""
    wide = make_example(model, (64, 128), 0)
    padded = make_example(model, (64, 128), 0, f"fixed:{SIDE},mode=pad")
    assert (wide.num_visual_tokens, padded.num_visual_tokens) == (8, 16)
    assert wide.canvases[0].shape == (64, 128, 3)
    graphdef, state = nnx.split(model.model.vision)
    program = jax.jit(lambda s, p: nnx.merge(graphdef, s).features(p).last)
    flops = []
    for example, canvas in ((wide, (64, 128)), (padded, SQUARE)):
        lengths = dataclasses.replace(rung(canvas), max_patches=2 * example.num_visual_tokens)
        lowered = program.lower(state, pack([example, example], lengths))
        flops.append((lowered.cost_analysis() or {})["flops"])
    assert flops[0] == pytest.approx(0.5 * flops[1], rel=0.1)  # attention alone is not linear
    config = model.model.config
    assert config.encoder_flops([8]) == pytest.approx(0.5 * config.encoder_flops([16]), rel=0.05)


@pytest.mark.slow
def test_no_gradient_reaches_the_pixels_of_another_picture(model):
    """Through patches and canvases, of one shape and of another; logits keep every bit."""
    run, b = whole_model(model), make_example(model, TALL, 1)
    for size in (WIDE, TALL):
        packs = [pack([make_example(model, size, seed), b], rung(WIDE, TALL)) for seed in (2, 3)]
        where = example_slices(packs[0].segment_ids)[1]
        (one, gradient), (other, _) = (run(packed, where) for packed in packs)
        np.testing.assert_array_equal(one[where], other[where])
        assert np.abs(one - other).max() > 1e-3
        patches, (wide, tall) = gradient
        assert not patches[packs[0].patch_segment_ids == 1].any()
        assert patches[packs[0].patch_segment_ids == 2].any()
        of_a, of_b = (wide[0], tall[0]) if size == WIDE else tall
        assert not of_a.any()
        assert of_b.any()


def whole_model(model: testing.TinyModel):
    """Logits, and the gradients of the loss at some tokens by pixels of either pathway."""
    graphdef, state = nnx.split(model.model)

    @jax.jit
    def compute(packed, mask):
        def loss(pixels):
            patches, canvases = pixels
            seen = [c._replace(pixels=p) for c, p in zip(packed.canvases, canvases, strict=True)]
            inputs = packed._replace(patches=patches, canvases=tuple(seen))
            whole = nnx.merge(graphdef, state)
            logits = whole.logits(whole.hidden(inputs))
            return next_token_sums(lambda x: x, logits, packed.targets, mask).nll, logits

        pixels = packed.patches, [c.pixels for c in packed.canvases]
        (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(pixels)
        return logits, gradient

    def run(packed: Pack, where: slice):
        packed = jax.tree.map(jnp.asarray, packed)
        mask = jnp.zeros_like(packed.loss_mask).at[where].set(packed.loss_mask[where])
        floats = [c._replace(pixels=c.pixels.astype(jnp.float32) / 128) for c in packed.canvases]
        return jax.tree.map(np.asarray, compute(packed._replace(canvases=tuple(floats)), mask))

    return run


sides = st.integers(1, 5_000)


@given(
    sides, sides, st.sampled_from(["native", "budget:10", "scale:1.7", f"fixed:{SIDE},mode=keep"])
)
def test_every_view_fits_a_canvas_and_the_square_s_pixels(height, width, policy):
    (view,) = parse_policy(policy)([Size(height, width)], "", SPEC)
    assert {extent % STRIDE for extent in view.size} == {0}
    assert view.size.area <= SIDE**2
    shapes = native_canvases(SIDE, STRIDE)
    assert any(view.size.height <= h and view.size.width <= w for h, w in shapes)


SPEC = tiny().spec


def test_no_canvas_is_larger_than_the_square():
    for side in (32, 128, 768, 1_024, 1_536):
        shapes = native_canvases(side, STRIDE)
        assert shapes[0] == (side, side)
        assert max(shape.area for shape in shapes) == side**2
        assert all(Size(width, height) in shapes for height, width in shapes)
        assert not any(extent % STRIDE for shape in shapes for extent in shape)


def test_a_rung_full_of_views_that_are_alike_has_their_canvas_alone():
    pictures = [np.zeros((*size, 3), np.uint8) for size in ((64, 160), (96, 32))]
    shapes = rung(SQUARE, WIDE, TALL)
    assert narrowed(shapes, pictures) == rung(WIDE)
    mixed = [*pictures[:1], np.zeros((*TALL, 3), np.uint8)]
    assert narrowed(shapes, mixed) == shapes
    assert narrowed(shapes, pictures[:1]) == shapes


@pytest.mark.slow
def test_a_checkpoint_says_how_pictures_are_shown_and_answers_so(tmp_path):
    made = tiny()
    config = made.model.config
    loaded = registry.LoadedModel(**made._asdict())
    registry.save_model(loaded, tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"no num_adapters=1 and no image_aspect_ratio=nat"):
        registry.family_of(config).check_export(config)
    again = mres_jax.load(tmp_path / "model")
    assert again.spec == made.spec
    answer = again.answer([np.zeros((70, 140, 3), np.uint8)], "what", max_new_tokens=1)
    assert [view.size for view in answer.views] == [(64, 128)]
    assert answer.cost.visual_tokens == 8


@pytest.mark.parametrize(
    "changes",
    [{"direction": "low_to_high", "num_adapters": 2}, {"side": 64}],
    ids=["low_to_high", "side"],
)
def test_maps_that_would_be_resized_take_squares_only(changes):
    with pytest.raises(ValueError, match=r"Use at least 128 px and high_to_low"):
        tiny(**changes)
    square = tiny("pad", **changes)
    example = make_example(square, SQUARE, 0)
    with pytest.raises(ValueError, match=r"a canvas of 160 x 160 px, but maps that have to be"):
        square.model.vision(jax.tree.map(jnp.asarray, pack([example], rung((160, 160), views=1))))

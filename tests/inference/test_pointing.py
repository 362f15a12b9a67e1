"""Where a model looks: slopes against differences, packs against prompts alone, places by hand."""

import dataclasses

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax.coordinates import COORD_FRAMES
from mres_jax.data.types import Rung
from mres_jax.errors import PolicyError, RunError
from mres_jax.geometry import Box, Size, View
from mres_jax.inference import cost
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.generate import Generator
from mres_jax.inference.pointing import PLACES, places_text, relevance_map
from mres_jax.inference.reduction import TokenReduction
from mres_jax.inference.remote import RemoteAnswerer
from mres_jax.protocols import Request, Sampling
from mres_jax.resolution.zoom import find_places
from mres_jax.testing import tiny_llava, tiny_llava_hr, tiny_llava_next, tiny_smolvlm

RUNG = Rung(max_patches=128, max_tokens=256, max_views=8, max_examples=4)
LADDER = (Rung(max_patches=256, max_tokens=384, max_views=8, max_examples=4),)
GRIDS = (((2, 3),), ((3, 4),), ((1, 2),))


def relevance(maker, *examples, rung=RUNG):
    generator = Generator(maker.tiny.model, maker.tiny.spec)
    return generator.relevance(maker.pack(*examples, rung=rung), rung=rung)[0]


def differences(maker, example, step=1e-2):
    """The same norms without a gradient: every number of every visual token a little up and down.

    `float64 [v]`; the token that is likeliest stays the same one.
    """
    model, packed = maker.tiny.model, jax.tree.map(jnp.asarray, maker.pack(example))
    visual, last = nnx.jit(type(model).encode)(model, packed), len(example.tokens) - 1
    forbidden = Generator(model, maker.tiny.spec).forbidden

    flat, unflatten = jax.flatten_util.ravel_pytree(visual)

    def scores(flat):
        logits = model.logits(model.hidden(packed, unflatten(flat))[last])
        return jax.nn.log_softmax(jnp.where(forbidden, -jnp.inf, logits))

    best = int(jax.jit(scores)(flat).argmax())

    @jax.jit
    def slopes(places):
        change = lambda place: jnp.zeros_like(flat).at[place].set(step)  # noqa: E731
        rise = lambda d: (scores(flat + d)[best] - scores(flat - d)[best]) / (2 * step)  # noqa: E731
        return jax.lax.map(lambda place: rise(change(place)), places)

    owners = jax.tree.map(
        lambda x: jnp.broadcast_to(jnp.arange(x.shape[-2])[:, None], x.shape), visual
    )
    owner = np.asarray(jax.flatten_util.ravel_pytree(owners)[0])
    (places,) = np.nonzero(owner < example.num_visual_tokens)
    squares = np.asarray(slopes(places), np.float64) ** 2
    return np.sqrt(np.bincount(owner[places], weights=squares))


def test_relevance_is_the_slope_of_the_first_token(qwen):
    example = qwen.prompt(1, grids=((1, 2),))
    (found,) = relevance(qwen, example)
    # differences of float32 scores of about 5 over a step of 0.01 round by 5e-5 each, 32 of them
    np.testing.assert_allclose(found, differences(qwen, example), rtol=1e-2, atol=5e-4)


@pytest.mark.slow
def test_what_is_added_behind_the_first_layers_counts(later):
    example = later.prompt(1, grids=((1, 1),))
    (found,) = relevance(later, example)
    np.testing.assert_allclose(found, differences(later, example), rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_a_pack_tells_of_each_prompt_what_it_tells_alone(maker):
    examples = [maker.prompt(seed, grids=grids) for seed, grids in enumerate(GRIDS)]
    together = relevance(maker, *examples)
    assert [len(x) for x in together] == [6, 12, 2]
    for example, found in zip(examples, together, strict=True):
        (alone,) = relevance(maker, example)
        np.testing.assert_allclose(found, alone, rtol=1e-4)
        assert (found > 0).all()


def test_a_gradient_that_is_no_number_is_an_error(qwen):
    example = qwen.prompt(0)
    bad = qwen.pack(example)
    head = qwen.tiny.model.text.norm.scale
    kept = head[...]
    try:
        head[...] = kept.at[0].set(jnp.nan)
        with pytest.raises(RunError, match="gradient of a visual token is not a number"):
            Generator(qwen.tiny.model, qwen.tiny.spec).relevance(bad, rung=RUNG)
    finally:
        head[...] = kept


PICTURE = Size(120, 240)


def view_of(spec, rows, columns, **changes):
    size = Size(rows * spec.stride, columns * spec.stride)
    return View(item=0, crop=Box(0, 0, *PICTURE), size=size, **changes)


def places(text, view, frame):
    found = find_places(text, view=view, coord_frame=frame, picture=PICTURE)
    assert found.problem == ""
    return [place.centre for place in found.places]


@pytest.mark.parametrize("frame", COORD_FRAMES)
def test_peaks_are_named_highest_first_in_any_convention(qwen, frame):
    cells = np.zeros((3, 6), np.float32)
    cells[0, 1], cells[0, 2], cells[2, 5] = 2.0, 1.9, 3.0  # the second is no peak of its own
    view = view_of(qwen.tiny.spec, 3, 6)
    found = relevance_map(cells.ravel(), view, qwen.tiny.spec)
    near = places(places_text(found, view, frame), view, frame)
    np.testing.assert_allclose(near, [(100, 220), (20, 60)], atol=0.25)  # cells of 40 px, digits


def test_a_flat_or_empty_map_names_no_place_twice():
    cells = np.ones((5, 7), np.float32)
    view = View(item=0, crop=Box(0, 0, 50, 70), size=Size(50, 70))
    named = places_text(cells, view, "relative_1000")
    assert named.count("(") == PLACES
    assert places_text(0 * cells, view, "relative_1000") == ""


def test_margins_of_a_canvas_are_never_pointed_at(qwen):
    spec = qwen.tiny.spec
    stride = spec.stride
    view = view_of(spec, 2, 4, canvas=Size(4 * stride, 4 * stride))  # a margin above and below
    cells = np.arange(16, dtype=np.float32)
    found = relevance_map(cells, view, spec)
    np.testing.assert_array_equal(found, cells.reshape(4, 4) * [[0], [1], [1], [0]])


def test_tokens_that_are_no_grid_are_refused(qwen):
    with pytest.raises(PolicyError, match="7 of them in 2 rows and 3 columns"):
        relevance_map(np.ones(7, np.float32), view_of(qwen.tiny.spec, 2, 3), qwen.tiny.spec)


@pytest.fixture(scope="module")
def answerer(makers):
    return LocalAnswerer(*makers["nativeres_llava"].tiny, ladder=LADDER, rows=(1, 4))


def asked(i=0, policy="zoom,source=gradient,window=0.5,coarse=12"):
    image = np.random.default_rng(i).integers(0, 256, (70 + 9 * i, 90, 3), np.uint8)
    return Request(id=f"{i}", images=[image], question="what is the total", policy=policy)


@pytest.mark.slow
def test_a_zoom_by_gradient_looks_where_the_first_token_hangs(answerer):
    requests = [asked(i) for i in range(3)]
    answers = answerer.answer(requests, sampling=Sampling(max_new_tokens=4))
    for request, (answer,) in zip(requests, answers, strict=True):
        first, second = answer.passes
        picture = Size(*request.images[0].shape[:2])
        assert answer.note == ""
        (view,) = first.views
        assert (view.crop, first.cost.new_tokens) == (Box(0, 0, *picture), 0)
        frame = answerer.spec.coord_frame
        place = find_places(first.text, view=view, coord_frame=frame, picture=picture).places[0]
        (window,) = second.views
        assert window.crop.top <= place.top < window.crop.bottom
        assert window.crop.left <= place.left < window.crop.right
        assert window.crop.size == Size(round(picture.height / 2), 45)
        assert answer.cost.visual_tokens == sum(p.cost.visual_tokens for p in answer.passes)
        tokens = first.cost.visual_tokens + first.cost.text_tokens
        config = answerer.model.config
        back = first.cost.flops - cost.encoder_flops(config, [view.grid(answerer.spec.patch_size)])
        assert back == cost.relevance_flops(config.text_config, tokens)
        assert set(first.cost.ms) == {"host", "gradient"}


def test_the_question_is_asked_as_it_is_and_other_windows_are_the_next_peaks(answerer):
    policy = "zoom,source=gradient,window=0.3,coarse=12,candidates=2,prompts=boxes"
    ((answer,),) = answerer.answer([asked(policy=policy)], sampling=Sampling(max_new_tokens=4))
    first, _ = answer.passes
    alone = answerer.point([asked(policy="window:0.0.70.90,fine=12")])[0]
    assert first.text == alone.text
    assert len({view.crop for view in answer.views}) == 2


def test_who_has_no_gradients_says_so(makers):
    with pytest.raises(PolicyError, match="a server does not send"):
        RemoteAnswerer("http://127.0.0.1:9/v1#x").answer([asked()])
    tiny = makers["nativeres_llava"].tiny
    fewer = LocalAnswerer(
        *tiny, ladder=LADDER, reduction=TokenReduction(method="tome", retention=0.5)
    )
    with pytest.raises(PolicyError, match=r"drops some \(tome\)"):
        fewer.answer([asked()])


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_llava, tiny_llava_next, tiny_llava_hr, tiny_smolvlm])
def test_every_other_family_points_into_the_whole_picture(make):
    """Towers of one size, tiles with ends of rows, two pathways, numbered squares."""
    ((answer,),) = LocalAnswerer(*make()).answer([asked()], sampling=Sampling(max_new_tokens=2))
    first, second = answer.passes
    assert (answer.note, second.views[0].crop.size) == ("", Size(35, 45))
    assert first.text.startswith("(")


def test_several_views_are_refused(answerer):
    two = dataclasses.replace(
        asked(policy="budget:4"), images=[asked(0).images[0], asked(1).images[0]]
    )
    with pytest.raises(PolicyError, match=r"request '0': .* one view, but there are 2"):
        answerer.point([two])

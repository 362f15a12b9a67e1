"""What stands in one pack never meets: not in the forward pass, not in a gradient, not in a bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax import ops, testing
from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.packing import example_slices, pack
from mres_jax.data.types import Pack, Rung
from mres_jax.geometry import Size
from mres_jax.models import vlm
from mres_jax.models.qwen2_vl import model as qwen2_vl_model
from mres_jax.nn.patch_embed import normalise
from mres_jax.resolution.policies import parse_policy
from mres_jax.training.losses import next_token_loss

MODELS = {"qwen2_vl": testing.tiny_qwen2_vl, "nativeres_llava": testing.tiny_nativeres_llava}
RUNG = Rung(max_patches=512, max_tokens=256, max_views=8, max_examples=4)
SIZES = [(24, 40), (8, 8), (16, 56), (40, 16)]  # px, of the four pictures: two for A, two for B


@pytest.fixture(params=MODELS)
def tiny(request) -> testing.TinyModel:
    return MODELS[request.param]()


def make_pack(tiny: testing.TinyModel, *, seed: int = 0) -> Pack:
    """Two conversations with two pictures each; `seed` redraws the first one's pictures."""
    examples = []
    for example in range(2):
        rng = np.random.default_rng(seed if example == 0 else 99)
        images = [rng.integers(0, 256, (*s, 3), np.uint8) for s in SIZES[2 * example :][:2]]
        views = parse_policy("native")([Size(*i.shape[:2]) for i in images], "", tiny.spec)
        messages = prompt_messages("what is the total", num_images=2, answer="blue")
        examples.append(
            assemble(images, views, messages, tiny.spec, tiny.tokenizer, label_mask="answer")
        )
    return jax.tree.map(jnp.asarray, pack(examples, RUNG))


def logits_of(tiny: testing.TinyModel, packed: Pack) -> jax.Array:
    return nnx.jit(lambda model, p: model.logits(model.hidden(p)))(tiny.model, packed)


def test_another_picture_in_a_leaves_the_logits_of_b_bit_identical(tiny):
    packs = [make_pack(tiny, seed=seed) for seed in (0, 1)]
    a, b = example_slices(np.asarray(packs[0].segment_ids))
    one, other = (np.asarray(logits_of(tiny, p)) for p in packs)
    assert not np.array_equal(one[a], other[a])
    np.testing.assert_array_equal(one[b], other[b])


def test_another_text_in_a_leaves_the_logits_of_b_bit_identical(tiny):
    packed = make_pack(tiny)
    a, b = example_slices(np.asarray(packed.segment_ids))
    swapped = packed._replace(tokens=packed.tokens.at[a.stop - 3].set(5))
    one, other = (np.asarray(logits_of(tiny, p)) for p in (packed, swapped))
    assert not np.array_equal(one[a], other[a])
    np.testing.assert_array_equal(one[b], other[b])


def gradient_of_b(tiny: testing.TinyModel, packed: Pack) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of B's loss with respect to the normalised patches: those of A, those of B."""
    _, b = example_slices(np.asarray(packed.segment_ids))
    only_b = jnp.zeros_like(packed.loss_mask).at[b].set(packed.loss_mask[b])
    floats = normalise(packed.patches, tiny.spec.mean, tiny.spec.std)

    @nnx.jit
    def gradient(model, patches):
        def loss(patches):
            logits = model.logits(model.hidden(packed._replace(patches=patches)))
            return next_token_loss(logits, packed.targets, only_b)[0]

        return jax.grad(loss)(patches)

    rows = np.asarray(gradient(tiny.model, floats))
    ids = np.asarray(packed.patch_segment_ids)
    return rows[(ids == 1) | (ids == 2)], rows[(ids == 3) | (ids == 4)]


def test_the_gradient_of_b_with_respect_to_the_patches_of_a_is_exactly_zero(tiny):
    of_a, of_b = gradient_of_b(tiny, make_pack(tiny))
    np.testing.assert_array_equal(of_a, 0)
    assert (of_b != 0).any()


@pytest.mark.parametrize("room", ["vision", "text"])
def test_without_the_segment_mask_isolation_breaks(tiny, room, monkeypatch):
    """The two laws above are able to fail."""

    def one_segment(*, segment_ids, **kwargs):
        return ops.make_plan(segment_ids=jnp.minimum(segment_ids, 1), **kwargs)

    class Blind:
        def __getattr__(self, name):
            return one_segment if name == "make_plan" else getattr(ops, name)

    monkeypatch.setattr({"vision": qwen2_vl_model, "text": vlm}[room], "ops", Blind())
    packs = [make_pack(tiny, seed=seed) for seed in (0, 1)]
    _, b = example_slices(np.asarray(packs[0].segment_ids))
    one, other = (np.asarray(logits_of(tiny, p)) for p in packs)
    assert not np.array_equal(one[b], other[b])
    assert (gradient_of_b(tiny, packs[0])[0] != 0).any()


def test_a_pack_answers_as_its_examples_do_alone(tiny):
    """Within rounding: sums over blocks of another length are taken in another order."""
    packed = make_pack(tiny)
    together = np.asarray(logits_of(tiny, packed))
    a, b = example_slices(np.asarray(packed.segment_ids))
    patches = example_slices(np.asarray(packed.patch_segment_ids))
    for where, views in ((a, patches[:2]), (b, patches[2:])):
        rows = slice(views[0].start, views[-1].stop)
        first = rows.start // tiny.spec.merge_size**2
        alone = packed._replace(
            patches=_shift(packed.patches, rows),
            patch_positions=_shift(packed.patch_positions, rows),
            patch_segment_ids=_renumber(_shift(packed.patch_segment_ids, rows)),
            tokens=_shift(packed.tokens, where),
            segment_ids=_renumber(_shift(packed.segment_ids, where)),
            positions=_shift(packed.positions.T, where).T,
            visual_index=jnp.maximum(_shift(packed.visual_index + 1, where) - first, 0) - 1,
        )
        length = where.stop - where.start
        np.testing.assert_allclose(
            np.asarray(logits_of(tiny, alone))[:length], together[where], rtol=0, atol=2e-4
        )


def _shift(x: jax.Array, where: slice) -> jax.Array:
    """The rows of `where` at the front of zeros."""
    return jnp.zeros_like(x).at[: where.stop - where.start].set(x[where])


def _renumber(ids: jax.Array) -> jax.Array:
    return jnp.where(ids > 0, ids - ids[0] + 1, 0)

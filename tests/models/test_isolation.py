"""What stands in one pack never meets: not in the forward pass, not in a gradient, not in a bit."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax import testing
from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.packing import example_slices, pack
from mres_jax.data.types import Example, Pack, Rung
from mres_jax.geometry import Size
from mres_jax.nn.patch_embed import normalise
from mres_jax.resolution.policies import parse_policy
from mres_jax.training.losses import next_token_sums

MODELS = {
    "qwen2_vl": testing.tiny_qwen2_vl,
    "qwen2_5_vl": testing.tiny_qwen2_5_vl,
    "qwen3_vl": testing.tiny_qwen3_vl,
    "nativeres_llava": testing.tiny_nativeres_llava,
    "smolvlm": testing.tiny_smolvlm,
    "naflex": testing.tiny_naflex,
}
NIGHTLY = ("qwen2_vl", "qwen2_5_vl", "nativeres_llava", "naflex")  # layers and decoders alike
RUNG = Rung(max_patches=192, max_tokens=288, max_views=8, max_examples=4)
SIZES = [(24, 40), (8, 8), (16, 56), (40, 16)]  # px, of the four pictures: two for A, two for B


class Subject(NamedTuple):
    """A tiny model, and what it makes of a pack; one compile serves all tests."""

    tiny: testing.TinyModel
    run: Callable[[Pack, slice], tuple[np.ndarray, np.ndarray]]
    count_compiles: Callable[[], int]


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.slow] if n in NIGHTLY else []) for n in MODELS],
)
def subject(request) -> Subject:
    tiny = MODELS[request.param]()
    graphdef, state = nnx.split(tiny.model)

    @jax.jit
    def compute(state, packed, mask):
        def loss(patches):
            model = nnx.merge(graphdef, state)
            logits = model.logits(model.hidden(packed._replace(patches=patches)))
            sums = next_token_sums(lambda x: x, logits, packed.targets, mask)
            return sums.nll, logits

        (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(packed.patches)
        return logits, gradient

    def run(packed, where):
        """Logits, and the gradient of the loss at tokens `where` by the normalised patches."""
        mask = jnp.zeros_like(packed.loss_mask).at[where].set(packed.loss_mask[where])
        floats = normalise(packed.patches, tiny.spec.mean, tiny.spec.std)
        logits, gradient = compute(state, packed._replace(patches=floats), mask)
        return np.asarray(logits), np.asarray(gradient)

    return Subject(tiny, run, compute._cache_size)


def make_example(tiny: testing.TinyModel, sizes: Sequence[tuple[int, int]], seed: int) -> Example:
    """A conversation about random pictures."""
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    policy = "native" if tiny.spec.split is None else f"split:{tiny.spec.split.side}"
    views = parse_policy(policy)([Size(*size) for size in sizes], "", tiny.spec)
    messages = prompt_messages("what is the total", num_images=len(sizes), answer="blue")
    return assemble(images, views, messages, tiny.spec, tiny.tokenizer, label_mask="answer")


def make_examples(tiny: testing.TinyModel, *, seed: int = 0) -> list[Example]:
    """Two conversations with two pictures each; `seed` redraws the first one's pictures."""
    return [make_example(tiny, SIZES[2 * i :][:2], s) for i, s in enumerate((seed, 99))]


def make_pack(tiny: testing.TinyModel, *, seed: int = 0) -> Pack:
    return fill(make_examples(tiny, seed=seed))


def fill(examples: Sequence[Example]) -> Pack:
    return jax.tree.map(jnp.asarray, pack(examples, RUNG))


def rows_of(packed: Pack) -> tuple[slice, slice, slice, slice]:
    """Tokens of A and of B, then patches of A and of B."""
    a, b = example_slices(np.asarray(packed.segment_ids))
    views = example_slices(np.asarray(packed.patch_segment_ids))
    return a, b, slice(views[0].start, views[1].stop), slice(views[2].start, views[3].stop)


def assert_only_a_differs(packs, subject, a, b, patches):
    """Logits of A differ between two packs; those of B and its gradients are the same bits."""
    one, other = (subject.run(p, b) for p in packs)
    assert not np.array_equal(one[0][a], other[0][a])
    np.testing.assert_array_equal(one[0][b], other[0][b])
    np.testing.assert_array_equal(one[1][patches], other[1][patches])


def test_another_picture_in_a_leaves_the_logits_of_b_bit_identical(subject):
    packs = [make_pack(subject.tiny, seed=seed) for seed in (0, 1)]
    a, b, _, patches = rows_of(packs[0])
    assert_only_a_differs(packs, subject, a, b, patches)


def test_another_text_in_a_leaves_the_logits_of_b_bit_identical(subject):
    packed = make_pack(subject.tiny)
    a, b, _, patches = rows_of(packed)
    swapped = packed._replace(tokens=packed.tokens.at[a.stop - 3].set(5))
    assert_only_a_differs((packed, swapped), subject, a, b, patches)


def test_the_gradient_of_b_with_respect_to_the_patches_of_a_is_exactly_zero(subject):
    packed = make_pack(subject.tiny)
    _, b, of_a, of_b = rows_of(packed)
    _, gradient = subject.run(packed, b)
    np.testing.assert_array_equal(gradient[of_a], 0)
    assert (gradient[of_b] != 0).any(axis=1).all()


@pytest.mark.parametrize("room", ["patch_segment_ids", "segment_ids"], ids=["vision", "text"])
def test_without_the_segment_mask_isolation_breaks(subject, room):
    """The laws above are able to fail: here all rows of one room are one segment."""
    packs = [make_pack(subject.tiny, seed=seed) for seed in (0, 1)]
    _, b, patches_of_a, _ = rows_of(packs[0])
    ids = getattr(packs[0], room)
    mixed = [p._replace(**{room: jnp.minimum(ids, 1)}) for p in packs]
    one, other = (subject.run(p, b) for p in mixed)
    assert not np.array_equal(one[0][b], other[0][b])
    assert (one[1][patches_of_a] != 0).any(axis=1).all()


def test_a_pack_answers_as_its_examples_do_alone(subject):
    """Within rounding: sums over blocks of another length are taken in another order."""
    examples = make_examples(subject.tiny)
    packed = fill(examples)
    a, b, *_ = rows_of(packed)
    together, _ = subject.run(packed, b)
    for where, example in zip((a, b), examples, strict=True):
        own = slice(0, where.stop - where.start)
        logits, _ = subject.run(fill([example]), own)
        np.testing.assert_allclose(logits[own], together[where], rtol=0, atol=2e-4)


def test_one_compile_serves_every_mix_of_sizes(subject):
    for mix in ([], [(8, 8)], [(8, 120)], [(120, 8), (8, 8)], [(48, 40)], 3 * [(16, 24)]):
        subject.run(fill([make_example(subject.tiny, mix, seed=1)]), slice(0, 4))
    assert subject.count_compiles() == 1

"""Visual tokens stand in their places, once, and nothing else moves."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, strategies as st

from mres_jax.ops import scatter_visual

TOKENS, VISUAL, SIZE = 12, 5, 3
PLACES = st.permutations(range(TOKENS)).flatmap(
    lambda order: st.integers(0, VISUAL).map(lambda count: sorted(order[:count]))
)
TEXT = -1 - np.arange(TOKENS * SIZE, dtype=np.float32).reshape(TOKENS, SIZE)
SEEN = 1 + np.arange(VISUAL * SIZE, dtype=np.float32).reshape(VISUAL, SIZE)


def index_of(places: list[int]) -> np.ndarray:
    """The first visual tokens at these positions, in order; -1 elsewhere."""
    index = np.full(TOKENS, -1, np.int32)
    index[places] = np.arange(len(places))
    return index


@jax.jit
def scatter(text, visual, index):
    """The result, and how much of each input stands in it."""

    def total(text, visual):
        out = scatter_visual(text, visual, index)
        return out.sum(), out

    shares, out = jax.grad(total, argnums=(0, 1), has_aux=True)(text, visual)
    return out, *shares


@given(PLACES)
def test_each_visual_token_stands_once_and_the_text_is_left(places):
    out, text_share, visual_share = map(np.asarray, scatter(TEXT, SEEN, index_of(places)))
    np.testing.assert_array_equal(out[places], SEEN[: len(places)])
    others = np.setdiff1d(np.arange(TOKENS), places)
    np.testing.assert_array_equal(out[others], TEXT[others])
    placed = np.arange(VISUAL) < len(places)
    np.testing.assert_array_equal(visual_share, np.repeat(placed[:, None], SIZE, axis=1))
    kept = np.isin(np.arange(TOKENS), others)
    np.testing.assert_array_equal(text_share, np.repeat(kept[:, None], SIZE, axis=1))


def test_visual_tokens_take_the_type_of_the_text():
    text = jnp.asarray(TEXT, jnp.bfloat16)
    out = scatter_visual(text, jnp.asarray(SEEN), jnp.asarray(index_of([2])))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out[2], SEEN[0])


def test_without_visual_tokens_the_text_is_left():
    text = jnp.asarray(TEXT)
    none = jnp.zeros((0, SIZE))
    np.testing.assert_array_equal(scatter_visual(text, none, jnp.asarray(index_of([]))), TEXT)

"""Views on canvases, and what their patches show."""

import numpy as np
import pytest

from mres_jax import testing
from mres_jax.data.assemble import assemble
from mres_jax.data.canvases import fill_canvases
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.packing import empty_pack, pack
from mres_jax.data.types import Rung
from mres_jax.errors import PackingError
from mres_jax.geometry import Size
from mres_jax.resolution.policies import parse_policy

RUNG = Rung(
    max_patches=64, max_tokens=256, max_views=3, max_examples=2, canvases=((128, 128), (64, 256))
)


def picture(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_each_view_lies_on_the_smallest_canvas_that_holds_it():
    views = [picture(64, 128, 1), picture(96, 128, 2), picture(64, 160, 3), picture(128, 128, 4)]
    wide, square = fill_canvases(
        views,
        Rung(
            max_patches=0,
            max_tokens=16,
            max_views=4,
            max_examples=1,
            canvases=((64, 320), (128, 128)),
        ),
    )
    assert square.views.tolist() == [1, 2, 4, 0]
    assert square.sizes.tolist() == [[64, 128], [96, 128], [128, 128], [0, 0]]
    assert wide.views.tolist() == [3, 0, 0, 0]
    assert (wide.pixels[0, :, :160] == 3).all()
    for margin in (wide.pixels[0, :, 160:], square.pixels[0, 64:], square.pixels[3]):
        assert not margin.any()


def test_a_view_that_no_canvas_holds_is_named():
    with pytest.raises(
        PackingError, match="view 1 is 300 x 32 px, but the rung has 128 x 128, 256"
    ):
        fill_canvases([picture(32, 32, 1), picture(32, 300, 1)], RUNG)
    bare = Rung(max_patches=0, max_tokens=16, max_views=4, max_examples=1)
    with pytest.raises(PackingError, match="but the rung has no canvas at all"):
        fill_canvases([picture(32, 32, 1)], bare)


def example(tiny, size: Size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    views = parse_policy(tiny.spec.default_policy)([size], "", tiny.spec)
    return assemble(
        [image], views, prompt_messages("what", num_images=1), tiny.spec, tiny.tokenizer
    )


def test_patches_show_the_canvas_smaller_and_normalised():
    """A picture of one colour is that colour at any size."""
    tiny = testing.tiny_llava_hr()
    views = parse_policy("fixed:128")([Size(50, 90)], "", tiny.spec)
    seen = assemble(
        [picture(50, 90, 51)], views, prompt_messages("a", num_images=1), tiny.spec, tiny.tokenizer
    )
    assert (seen.patches.shape, seen.patches.dtype) == ((16, 48), np.float32)
    colour = (0.2 - np.array(tiny.spec.mean)) / np.array(tiny.spec.std)
    expected = np.repeat(colour, 16)[None]
    np.testing.assert_allclose(seen.patches, np.tile(expected, (16, 1)), atol=1e-5)
    (canvas,) = seen.canvases
    assert canvas.shape == (128, 128, 3)
    assert (canvas == 51).all()


def test_padding_alone_is_packed_as_examples_are():
    tiny = testing.tiny_llava_hr()
    some, none = pack([example(tiny, Size(40, 70))], RUNG), empty_pack(RUNG, tiny.spec)
    for name, there, nothing in zip(some._fields, some, none, strict=True):
        for a, b in zip(leaves(there), leaves(nothing), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype), name
    assert not none.patch_segment_ids.any()
    assert not none.canvases[0].views.any()


def leaves(tree) -> list[np.ndarray]:
    if tree is None or isinstance(tree, np.ndarray):
        return [] if tree is None else [tree]
    children = tree.values() if isinstance(tree, dict) else tree
    return [leaf for child in children for leaf in leaves(child)]

"""Tiles as LLaVA-NeXT reads them; live transformers is asked in tests/parity."""

import dataclasses

import numpy as np
import pytest

from mres_jax import testing
from mres_jax.data.assemble import assemble, measure
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.tiles import best_canvas, tile_layout, tile_views, unpadded
from mres_jax.data.types import NEWLINE
from mres_jax.errors import PromptError
from mres_jax.geometry import Size
from mres_jax.models.llava_next.config import PINPOINTS
from mres_jax.resolution.cost import retention_ratio, visual_tokens

CANVASES = [Size(*pair) for pair in PINPOINTS]
# Height and width of a picture; tiles with the whole; tokens. Computed with the functions of
# transformers 5.23 (`image_size_to_num_patches`, `unpad_image`, the processor's own count).
REFERENCE = {
    (336, 336): (3, 1_176),
    (480, 640): (5, 2_340),
    (640, 480): (5, 2_352),
    (1_024, 1_024): (5, 2_928),
    (1_080, 1_920): (5, 1_948),
    (1_920, 1_080): (5, 1_968),
    (300, 900): (4, 2_328),
    (900, 300): (4, 2_376),
    (2_000, 500): (4, 1_944),
    (200, 2_000): (4, 1_160),
    (1_536, 1_024): (5, 2_160),
    (500, 333): (3, 1_476),
    (337, 336): (3, 1_176),
    (1_316, 640): (4, 1_826),
}


@pytest.fixture(scope="module")
def released():
    """The host side of the released model: tiles of 336 px, patches of 14."""
    tiny = testing.tiny_llava_next()
    rule = dataclasses.replace(tiny.spec.tiles, side=336, canvases=tuple(CANVASES))
    return dataclasses.replace(tiny.spec, patch_size=14, tiles=rule)


@pytest.mark.parametrize("size", REFERENCE)
def test_tiles_and_tokens_are_the_reference_s(size, released):
    views = tile_views(0, Size(*size), best_canvas(Size(*size), CANVASES), side=336)
    layout = tile_layout(views, released)
    assert (len(views), len(layout)) == REFERENCE[size]
    assert layout.num_encoded == len(views) * 576


def test_windows_cut_the_canvas_into_tiles_by_row():
    whole, *tiles = tile_views(3, Size(300, 500), Size(32, 48), side=16)
    assert whole.tile is None
    assert whole.size == (16, 16)
    seen = np.zeros((32, 48), int)
    for number, view in enumerate(tiles):
        assert view.tile == number
        assert view.item == 3
        top, left, bottom, right = view.window
        seen[top:bottom, left:right] += 1
        assert (top // 16, left // 16) == divmod(number, 3)
    assert (seen == 1).all()


def test_a_token_stands_where_its_patch_is_in_the_picture():
    """The picture's pixels name their own place; patches in prompt order must rise by row."""
    tiny = testing.tiny_llava_next()
    spec = tiny.spec
    views = tile_views(0, Size(32, 32), Size(32, 32), side=16)
    rows, columns = np.indices((32, 32)).astype(np.uint8)
    image = np.stack([rows, columns, 0 * rows], axis=-1)
    example = assemble([image], views, prompt_messages("what", num_images=1), spec, tiny.tokenizer)
    slots = example.slots[(example.slots >= 16) | (example.slots == NEWLINE)].reshape(8, 9)
    assert (slots[:, -1] == NEWLINE).all()
    first = example.patches.reshape(-1, 3, 16)[slots[:, :-1], :2, 0]  # upper left pixel
    expected = 4 * np.stack(np.indices((8, 8)), axis=-1)
    np.testing.assert_array_equal(first, expected)
    assert example.num_encoded == 80
    assert example.num_visual_tokens == 16 + 8 * 9


def test_rows_and_columns_of_padding_alone_have_no_tokens():
    assert unpadded(Size(100, 400), Size(24, 24)) == (slice(9, 15), slice(0, 24))
    assert unpadded(Size(400, 100), Size(24, 24)) == (slice(0, 24), slice(9, 15))
    assert unpadded(Size(9, 9), Size(24, 24)) == (slice(0, 24), slice(0, 24))


def test_a_view_by_itself_is_the_whole_and_one_end():
    spec = testing.tiny_llava_next().spec
    (whole, *_) = tile_views(0, Size(20, 30), Size(16, 32), side=16)
    layout = tile_layout([whole], spec)
    assert layout.slots == (*range(16), NEWLINE)


def test_what_is_measured_is_what_is_assembled_and_what_is_reported():
    tiny = testing.tiny_llava_next()
    sizes = [Size(20, 61), Size(40, 33)]
    views = [
        view
        for item, size in enumerate(sizes)
        for view in tile_views(item, size, best_canvas(size, tiny.spec.tiles.canvases), side=16)
    ]
    messages = prompt_messages("what is the total", num_images=2)
    images = [np.zeros((*size, 3), np.uint8) for size in sizes]
    example = assemble(images, views, messages, tiny.spec, tiny.tokenizer)
    assert example.size == measure(views, messages, tiny.spec, tiny.tokenizer)
    assert example.num_visual_tokens == visual_tokens(views, tiny.spec)
    assert retention_ratio(views, sizes, tiny.spec) == 1


def test_tiles_that_are_not_all_there_are_refused():
    spec = testing.tiny_llava_next().spec
    views = tile_views(2, Size(20, 30), Size(16, 32), side=16)
    for wrong in (views[1:], views[:-1], [views[0], views[2], views[1]]):
        with pytest.raises(PromptError, match="of picture 2 are not the whole picture at 16 x 16"):
            tile_layout(wrong, spec)

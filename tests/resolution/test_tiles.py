"""Tiles for models that know them, and as separate pictures for those that do not."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mres_jax import testing
from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import prompt_messages
from mres_jax.errors import PolicyError
from mres_jax.geometry import Size
from mres_jax.models.qwen2_vl import processor
from mres_jax.resolution.policies import check_policy, parse_policy

TINY = testing.tiny_qwen2_vl()
SPEC = dataclasses.replace(TINY.spec, min_pixels=8 * 8, max_pixels=512 * 512)
NEXT = testing.tiny_llava_next().spec
SIDE = st.integers(1, 3_000)


@given(SIDE, SIDE, st.integers(1, 12))
def test_tiles_of_a_native_model_are_the_whole_and_then_all_of_the_picture(height, width, most):
    size = Size(height, width)
    whole, *tiles = parse_policy(f"tiles:64,max={most}")([size], "", SPEC)
    assert whole.tile is None
    assert whole.crop.size == size
    assert len(tiles) <= most
    assert len(tiles) != 1
    area, corner = 0, (0, 0)
    for number, view in enumerate(tiles):
        assert (view.tile, view.item, view.canvas) == (number, 0, None)
        assert (view.crop.top, view.crop.left) >= corner  # by row
        corner = (view.crop.top, view.crop.left)
        area += view.crop.size.area
    assert not tiles or area == size.area  # they touch, and do not overlap
    for view in (whole, *tiles):
        assert view.size.area <= 64 * 64
        assert view.size.height % SPEC.stride == view.size.width % SPEC.stride == 0


def test_a_picture_that_one_tile_shows_best_is_not_cut():
    assert len(parse_policy("tiles:64")([Size(60, 60)], "", SPEC)) == 1
    assert len(parse_policy("tiles:64")([Size(60, 128)], "", SPEC)) == 3
    assert len(parse_policy("tiles:64")([Size(640, 640)], "", SPEC)) == 5
    assert len(parse_policy("tiles:64,max=1")([Size(640, 640)], "", SPEC)) == 1


def test_a_native_model_reads_tiles_as_separate_pictures():
    """Each with its own frame and its own place in the positions, in order, nothing between."""
    size = Size(64, 128)
    views = parse_policy("tiles:64,max=2")([size], "", SPEC)
    image = np.zeros((*size, 3), np.uint8)
    example = assemble([image], views, prompt_messages("what", num_images=1), SPEC, TINY.tokenizer)
    opening = TINY.tokenizer.token_id("<|vision_start|>")
    closing = TINY.tokenizer.token_id("<|vision_end|>")
    starts, ends = (np.flatnonzero(example.tokens == t) for t in (opening, closing))
    assert [tuple(grid[1:]) for grid in example.grids] == [(10, 22), (16, 16), (16, 16)]
    assert (ends - starts - 1).tolist() == [55, 64, 64]
    assert (starts[1:] == ends[:-1] + 1).all()
    rows = example.positions[:, starts + 1]  # of the first visual token of each
    assert (rows[0] == rows[1]).all()
    assert (rows[0] == rows[2]).all()
    assert (np.diff(rows[0]) > 0).all()


def test_a_model_with_tiles_gets_the_canvases_it_knows():
    (whole, *tiles) = parse_policy("tiles")([Size(30, 33)], "", NEXT)
    assert whole.size == (16, 16)
    assert len(tiles) == 4
    assert {view.canvas for view in tiles} == {Size(32, 32)}
    assert len(parse_policy("tiles,max=2")([Size(30, 33)], "", NEXT)) == 3


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("tiles", testing.tiny_llava().spec, r"the model takes image, not tiles. Use fixed:16,mo"),
        ("tiles:32", NEXT, r"the model's tiles have 16 px. Use tiles:16"),
        ("tiles,max=1", NEXT, r"knows no canvas of so few tiles. Use max=2"),
        ("tiles:60", SPEC, r"60 px is not a multiple of the 8 px of a visual token. Use tiles:64"),
        (
            "tiles:1024",
            SPEC,
            r"tiles of 1024 x 1024 px are more than the model's max_pixels=262144",
        ),
        ("native", NEXT, r"the model takes only 16 x 16 px. Use fixed:16"),
    ],
)
def test_tiles_that_the_model_cannot_take_are_refused(text, spec, message):
    with pytest.raises(PolicyError, match=message):
        check_policy(parse_policy(text), spec)


def test_no_tiles_at_all_are_refused():
    with pytest.raises(PolicyError, match=r"policy tiles: max=0 must be at least 1"):
        parse_policy("tiles,max=0")


def test_native_models_take_tiles():
    assert "tile" in TINY.spec.accepts
    assert processor.make_spec(TINY.model.config, TINY.tokenizer.token_id).accepts >= {"tile"}

"""A table of positions in the tower: zeros change nothing, waves tell places apart."""

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
from mres_jax.data.spec import PositionTable
from mres_jax.data.types import Rung
from mres_jax.errors import CheckpointError
from mres_jax.geometry import Box, Size, View
from mres_jax.models.qwen2_vl.config import VisionConfig
from mres_jax.models.qwen2_vl.model import VisionTower
from mres_jax.models.registry import FAMILIES
from mres_jax.training.initial import init_positions

PLAIN = VisionConfig(depth=2, embed_dim=16, num_heads=2, hidden_size=16, patch_size=4)
PLACED = dataclasses.replace(PLAIN, num_position_embeddings=9)
RUNG = Rung(max_patches=64, max_tokens=64, max_views=2, max_examples=2)


@pytest.fixture(scope="module")
def packs():
    """One flat picture, as towers without and with a table get it."""
    model = testing.tiny_nativeres_llava()
    picture = np.full((16, 24, 3), 90, np.uint8)
    view = View(item=0, crop=Box(0, 0, 16, 24), size=Size(16, 24))
    turns = [Message(role="user", parts=(0, "x"))]
    made = []
    for side in (0, 3):
        table = PositionTable(side=side, resize="linear_corners") if side else None
        spec = dataclasses.replace(model.spec, patch_size=4, positions=table)
        example = assemble([picture], [view], turns, spec, model.tokenizer)
        made.append(jax.tree.map(jnp.asarray, pack([example], RUNG)))
    return made


@pytest.mark.slow
def test_a_table_of_zeros_changes_nothing_and_one_of_waves_tells_places_apart(packs):
    plain, placed = VisionTower(PLAIN, rngs=nnx.Rngs(0)), VisionTower(PLACED, rngs=nnx.Rngs(0))
    state = nnx.to_flat_state(nnx.state(plain))
    nnx.update(placed, nnx.from_flat_state(state))
    placed.pos_embed.embedding[...] = jnp.zeros((9, 16))
    np.testing.assert_array_equal(placed(packs[1]).tokens, plain(packs[0]).tokens)
    tokens = np.asarray(plain(packs[0]).tokens)[:6]  # of 2 x 3 blocks of a flat picture
    np.testing.assert_allclose(tokens, tokens[:1].repeat(6, 0), atol=1e-5)  # no place is known
    init_positions(placed)
    tokens = np.asarray(placed(packs[1]).tokens)[:6]
    apart = np.linalg.norm(tokens[:, None] - tokens[None], axis=-1)
    assert apart[~np.eye(6, dtype=bool)].min() > 1e-2


@pytest.mark.slow
def test_a_place_between_two_cells_reads_a_mixture_of_their_names():
    placed = VisionTower(
        dataclasses.replace(PLAIN, embed_dim=128, hidden_size=128, num_position_embeddings=256),
        rngs=nnx.Rngs(0),
    )
    init_positions(placed)
    table = np.asarray(placed.pos_embed.embedding[...]).reshape(16, 16, 128)
    rows, columns = table.mean(1) - table.mean((0, 1)), table.mean(0) - table.mean((0, 1))
    np.testing.assert_allclose(
        table, table.mean((0, 1)) + rows[:, None] + columns[None], atol=1e-4
    )  # a name for the row and one for the column, and nothing else
    named = (table[3, 5] + table[3, 6]) / 2 - table.mean((0, 1)) - rows[3]
    likeness = columns @ named / np.linalg.norm(columns, axis=1)
    assert set(np.argsort(likeness)[-2:]) == {5, 6}


def test_a_pack_without_weights_of_positions_is_refused(packs):
    with pytest.raises(ValueError, match="no position_weights"):
        VisionTower(PLACED, rngs=nnx.Rngs(0))(packs[0])


def test_tables_that_are_no_square_and_exports_without_room_are_refused():
    with pytest.raises(ValueError, match="num_position_embeddings=8 is no square"):
        dataclasses.replace(PLAIN, num_position_embeddings=8)
    model = testing.tiny_qwen2_vl()
    vision = dataclasses.replace(model.model.config.vision_config, num_position_embeddings=4)
    config = dataclasses.replace(model.model.config, vision_config=vision)
    with pytest.raises(CheckpointError, match="table of positions in its tower"):
        FAMILIES["qwen2_vl"].check_export(config)

"""An allocator comes back as it went, and a damaged one is named."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

from mres_jax.errors import CheckpointError, MresError
from mres_jax.resolution.allocator.store import (
    CARD,
    CONFIG,
    WEIGHTS,
    load_allocator,
    save_allocator,
)


@pytest.fixture
def saved(network, tmp_path):
    save_allocator(tmp_path / "a", network, features="mres-tiny", facts={"steps": 250})
    return tmp_path / "a"


def test_what_comes_back_is_bit_for_bit_the_same(saved, network):
    back = load_allocator(saved)
    assert back.network.config == network.config
    assert (back.features, back.facts) == ("mres-tiny", {"steps": 250})
    pairs = zip(
        jax.tree.leaves(nnx.state(network, nnx.Param)),
        jax.tree.leaves(nnx.state(back.network, nnx.Param)),
        strict=True,
    )
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)


def test_the_card_says_what_it_is(saved):
    card = (saved / CARD).read_text()
    assert "mres-tiny" in card
    assert "steps: 250" in card


def damage_weights(path):
    content = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(content[: len(content) // 2])


def change_config(path, edit):
    content = json.loads((path / CONFIG).read_text())
    edit(content)
    (path / CONFIG).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_weights, "not a whole safetensors file"),
        (lambda p: (p / WEIGHTS).unlink(), "not a whole safetensors file"),
        (lambda p: (p / CONFIG).unlink(), "Name a directory that `save_allocator` wrote"),
        (lambda p: (p / CONFIG).write_text("{"), "not valid JSON"),
        (lambda p: (p / CONFIG).write_text("[]"), "not an allocator's configuration"),
        (lambda p: change_config(p, lambda c: c.pop("features")), "no eyes"),
        (
            lambda p: change_config(p, lambda c: c["config"].update(hidden_size=32)),
            r"frame_proj.kernel is \(8, 16\), the configuration says \(8, 32\)",
        ),
        (
            lambda p: change_config(p, lambda c: c["config"].update(num_layers=3)),
            r"layers\.2\.\S+ is missing",
        ),
        (lambda p: change_config(p, lambda c: c["config"].update(depth=3)), "depth"),
    ],
)
def test_a_damaged_allocator_is_named(saved, damage, message):
    damage(saved)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_allocator(saved)
    assert str(saved) in str(caught.value)


def test_a_file_in_the_way_is_not_overwritten(network, tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(MresError, match="is a file"):
        save_allocator(tmp_path / "a", network, features="mres-tiny")

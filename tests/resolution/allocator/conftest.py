"""A small allocator and features of a few clips, made once."""

import numpy as np
import pytest
from flax import nnx

from mres_jax.resolution.allocator.config import TOKENS_PER_FRAME, AllocatorConfig
from mres_jax.resolution.allocator.network import AllocatorNetwork

SIZES = {
    "frame_size": 8,
    "question_size": 6,
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "num_temporal_heads": 1,
    "head_dim": 8,
}


@pytest.fixture(scope="module")
def config() -> AllocatorConfig:
    return AllocatorConfig(**SIZES)


@pytest.fixture(scope="module")
def network(config) -> AllocatorNetwork:
    """Every parameter is moved, so that nothing is hidden behind a zero."""
    network = AllocatorNetwork(config, rngs=nnx.Rngs(0))
    draw = np.random.default_rng(1)
    state = nnx.state(network, nnx.Param)
    for _, leaf in nnx.to_flat_state(state):
        value = leaf.get_value()
        leaf.set_value(value + 0.3 * draw.normal(size=value.shape).astype(np.float32))
    nnx.update(network, state)
    return network


@pytest.fixture(scope="module")
def clips():
    """Frames and question of three clips of 3, 1 and 4 frames."""
    draw = np.random.default_rng(0)
    return [
        (
            draw.normal(size=(frames, TOKENS_PER_FRAME, SIZES["frame_size"])).astype(np.float32),
            draw.normal(size=(words, SIZES["question_size"])).astype(np.float32),
        )
        for frames, words in [(3, 4), (1, 2), (4, 5)]
    ]

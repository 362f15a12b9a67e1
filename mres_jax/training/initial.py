"""A start from which small models learn to read soon; released weights never pass through here."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mres_jax.models.qwen2_vl.model import VisionTower
from mres_jax.models.tower import Tower

SHARPNESS = 4.0  # nats by which the patch one step off the wanted one falls behind
FREQUENCIES = 3  # the highest of each axis; lower ones cannot tell neighbours apart
CONTENT = 0.1  # of the usual query and key weights: what a patch shows decides little at first
LOUDNESS = 5.0  # root mean square of a table of positions: a third of a trained tower's features

Offset = tuple[int, int]  # rows down, columns right
CROSS: tuple[Offset, ...] = ((0, -1), (0, 1), (-1, 0), (1, 0))


def init_local_attention(
    tower: Tower, offsets: Sequence[Sequence[Offset | None]] | None = None
) -> None:
    """Sets query and key biases so that each head starts out looking at one neighbour.

    A character that lies across patches can only be named by a patch that looks at its neighbours,
    and finding the rotary phases that do so costs a randomly initialised tower most of its
    training. The biases of query and key are turned against each other by the phase of the wanted
    offset, so their product peaks there; everything stays trainable. The same idea for
    convolution-like heads: d'Ascoli et al., 2021, "ConViT", arXiv:2103.10697, section 3.

    Args:
      tower: changed in place.
      offsets: per layer and head, patches to look away; None leaves a head as it is. The default
        looks left, right, up and down in the lower half of the layers.
    """
    config = tower.config
    if offsets is None:
        rows = [CROSS if layer < config.depth // 2 else () for layer in range(config.depth)]
        offsets = [[*(row * config.num_heads)[: config.num_heads]] for row in rows]
    linear = tower.blocks.attn.qkv
    heads = (config.depth, 3, config.num_heads, config.head_dim)
    assert linear.bias is not None
    bias = np.zeros(heads, np.float32)
    is_set = np.zeros(heads, bool)
    factor = np.ones((config.depth, 1, *heads[1:]), np.float32)
    for layer, row in enumerate(offsets):
        for head, offset in enumerate(row):
            if offset is not None:
                bias[layer, :2, head] = _query_and_key(offset, config.head_dim)
                is_set[layer, :2, head] = True
                factor[layer, :, :2, head] = CONTENT
    rows = (config.depth, -1)
    old, kernel = linear.bias[...], linear.kernel[...]
    linear.bias[...] = jnp.where(is_set.reshape(rows), bias.reshape(rows), old)
    linear.kernel[...] = kernel * factor.reshape(config.depth, 1, -1)


def init_positions(tower: Tower) -> None:
    """Lets a table behind the last layer, if there is one, start with names of rows and columns.

    Between two cells the names are mixed as the table is read. Linear heads told twentieths of a
    view in 0.66 of visual tokens after 250 steps; with slow waves in their place, in 0.31 after 210
    (experiments/2026-11-mres-tiny).

    Args:
      tower: changed in place.
    """
    if not (isinstance(tower, VisionTower) and tower.config.position_side):
        return
    table = tower.pos_embed
    cells, width = table.embedding[...].shape
    side = round(cells**0.5)
    names = np.random.default_rng(0).standard_normal((2, side, width)) / np.sqrt(2)
    both = names[0][:, None] + names[1][None]
    table.embedding[...] = jnp.asarray(LOUDNESS * both.reshape(cells, width), jnp.float32)


def _query_and_key(offset: Offset, head_dim: int) -> np.ndarray:
    """Biases `[2, head_dim]` whose rotated product is largest `offset` patches away."""
    count = head_dim // 4
    frequencies = 10_000.0 ** (-np.arange(count) / count)
    step_down = (1 - np.cos(frequencies[:FREQUENCIES])).sum()
    amplitude = np.sqrt(SHARPNESS * np.sqrt(head_dim) / step_down)
    weight = amplitude * (np.arange(count) < FREQUENCIES)
    phase = np.concatenate([frequencies * steps for steps in offset])
    weight = np.concatenate([weight, weight])
    query = np.concatenate([weight, 0 * weight])
    key = np.concatenate([weight * np.cos(phase), -weight * np.sin(phase)])
    return np.stack([query, key])

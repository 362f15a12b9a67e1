"""A start from which small models learn to read soon; released weights never pass through here."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mres_jax.models.tower import Tower

SHARPNESS = 4.0  # nats by which the patch one step off the wanted one falls behind
FREQUENCIES = 3  # the highest of each axis; lower ones cannot tell neighbours apart
CONTENT = 0.1  # of the usual query and key weights: what a patch shows decides little at first
WAVES = (0.5, 1.0, 2.0, 4.0)  # half turns over a side of the table
LOUDNESS = 3.0  # of each wave; all together a quarter of what patches are embedded with

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


def init_smooth_positions(tower: Tower) -> None:
    """Lets a table of positions, if the tower has one, start as slow waves along both sides.

    Places nearby then look alike from the first step on, and between the points of the table.

    Args:
      tower: changed in place.
    """
    table = getattr(tower, "pos_embed", None)
    if table is None:
        return
    cells, width = table.embedding[...].shape
    side = round(cells**0.5)
    angles = np.pi * np.outer(np.linspace(0, 1, side), WAVES)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # [side, 2 * waves]
    rows, columns = np.repeat(waves, side, axis=0), np.tile(waves, (side, 1))
    both = np.concatenate([rows, columns], axis=1)
    directions = np.random.default_rng(0).standard_normal((both.shape[1], width)) / np.sqrt(width)
    table.embedding[...] = jnp.asarray(LOUDNESS * both @ directions, jnp.float32)


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

"""Blocks of patches: which patches make a visual token, and in which order."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mres_jax import nn
from mres_jax.data.patches import block_positions
from mres_jax.geometry import Grid

GRID, MERGE, SIZE = Grid(1, 4, 6), 2, 3


def features() -> tuple[np.ndarray, np.ndarray]:
    """Random features of every patch of a grid: by row and column, and in the order of a pack."""
    raster = np.random.default_rng(0).standard_normal((GRID.h, GRID.w, SIZE), np.float32)
    row, column = block_positions(GRID, merge_size=MERGE).T
    return raster, raster[row, column]


def blocks_of(raster: np.ndarray) -> np.ndarray:
    """The 2 x 2 patches of every visual token, row by row, `float64 [v 4 d]`."""
    blocks = [
        [raster[i, j], raster[i, j + 1], raster[i + 1, j], raster[i + 1, j + 1]]
        for i in range(0, GRID.h, MERGE)
        for j in range(0, GRID.w, MERGE)
    ]
    return np.array(blocks, np.float64)


def test_average_pooling_is_the_mean_over_2_by_2_patches_row_by_row():
    raster, rows = features()
    pooled = nn.AveragePooling(merge_size=MERGE)(jnp.asarray(rows))
    # a few units in the last place of float32: four summands
    np.testing.assert_allclose(pooled, blocks_of(raster).mean(axis=1), rtol=0, atol=5e-7)


def test_patch_merger_reads_a_block_row_by_row_and_normalises_each_patch(rngs):
    raster, rows = features()
    merger = nn.PatchMerger(
        in_size=SIZE, out_size=5, merge_size=MERGE, dtype=jnp.float32, rngs=rngs
    )
    rng = np.random.default_rng(1)
    graphdef, state = nnx.split(merger)
    state = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), jnp.float32), state)
    weights = jax.tree.map(np.asarray, nnx.to_pure_dict(state))
    blocks = blocks_of(raster)
    centred = blocks - blocks.mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-6)
    normed = normed * weights["norm"]["scale"] + weights["norm"]["bias"]
    wide = normed.reshape(len(blocks), -1) @ weights["up"]["kernel"] + weights["up"]["bias"]
    gelu = wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2))) / 2
    expected = gelu @ weights["down"]["kernel"] + weights["down"]["bias"]
    # float32 against float64: sums of 12 products twice
    found = nnx.merge(graphdef, state)(jnp.asarray(rows))
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6)

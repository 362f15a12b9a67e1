"""How the patches of a view read a square table of learned positions, made on the host.

Axes: p patches, o rows or columns of the table.
"""

from collections.abc import Sequence

import numpy as np

from mres_jax.data.patches import block_positions
from mres_jax.data.resampling import resize_matrix
from mres_jax.data.spec import PositionTable
from mres_jax.errors import PromptError
from mres_jax.geometry import Grid


def position_weights(grids: Sequence[Grid], table: PositionTable, *, merge_size: int) -> np.ndarray:
    """Returns `float32 [p 2 o]`: what each row and each column counts for the position of a patch.

    Their outer product weighs the cells of the table. Views stand one behind the other, patches in
    block order.

    Args:
      grids: of the views, whole merge blocks.
      table: of the model.
      merge_size: patches per side of one visual token.

    Raises:
      PromptError: a view whose grid is not the table's, where the table is not resized.

    Example:
      >>> table = PositionTable(side=2, resize="linear_corners")
      >>> position_weights([Grid(1, 1, 3)], table, merge_size=1).tolist()
      [[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]]
    """
    parts = [np.zeros((0, 2, table.side), np.float32)]
    for grid in grids:
        if table.resize == "none" and (grid.h, grid.w) != (table.side, table.side):
            raise PromptError(
                f"assemble: a view of {grid.w} x {grid.h} patches, but the model's positions are a "
                f"table of {table.side} x {table.side} that it does not resize. Use the model's "
                "own policy, which gives such views."
            )
        places = np.tile(block_positions(grid, merge_size=merge_size), (grid.t, 1))
        rule = "linear_corners" if table.resize == "none" else table.resize
        axes = [
            resize_matrix(extent, table.side, rule)[places[:, axis]]
            for axis, extent in enumerate((grid.h, grid.w))
        ]
        parts.append(np.stack(axes, axis=1))
    return np.concatenate(parts)

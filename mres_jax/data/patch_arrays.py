"""Arrays beside the patches that some families ask for, one row per patch, made on the host.

Axes: p patches, o rows or columns of a learned table.
"""

from collections.abc import Sequence

import numpy as np

from mres_jax.data.patches import block_positions
from mres_jax.data.resampling import resize_matrix
from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import PromptError
from mres_jax.geometry import Grid

POSITION_WEIGHTS = "position_weights"


def patch_arrays(grids: Sequence[Grid], spec: ProcessorSpec) -> dict[str, np.ndarray]:
    """Returns what the family asks for, of all views one after the other.

    `position_weights`: `float32 [p 2 o]`, what each row and each column of a learned table counts
    for the position of a patch (see `PositionTable`); their outer product weighs its cells.

    Raises:
      PromptError: a view whose grid is not the table's, where the table is not resized.
    """
    if spec.positions is None:
        return {}
    side, resize = spec.positions.side, spec.positions.resize
    parts = [np.zeros((0, 2, side), np.float32)]
    for grid in grids:
        if resize == "none" and (grid.h, grid.w) != (side, side):
            raise PromptError(
                f"assemble: a view of {grid.w} x {grid.h} patches, but the model's positions are a "
                f"table of {side} x {side} that it does not resize. Use {spec.default_policy}."
            )
        places = block_positions(grid, merge_size=spec.merge_size)
        rule = "bicubic_antialias" if resize == "none" else resize
        axes = [
            resize_matrix(extent, side, rule)[places[:, axis]]
            for axis, extent in enumerate((grid.h, grid.w))
        ]
        parts.append(np.stack(axes, axis=1))
    return {POSITION_WEIGHTS: np.concatenate(parts)}

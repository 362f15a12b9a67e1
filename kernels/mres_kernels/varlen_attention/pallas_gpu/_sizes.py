"""How large a tile is: what the registers and the shared memory of a multiprocessor hold.

Not tuned on a GPU: large sizes that compile for sm_90 with next to no registers spilled
(`kernels/aot/cuda.py`).
"""

from typing import Literal, NamedTuple

Pass = Literal["forward", "d_q", "d_kv"]


class Tiles(NamedTuple):
    """Sizes of one block.

    Attributes:
      warpgroups: that compute, of 64 rows each.
      inner: rows of the other side that are visited at once.
      slots: inner tiles in shared memory.
    """

    warpgroups: int
    inner: int
    slots: int


# Up to this head size, these tiles.
TILES: dict[Pass, dict[int, Tiles]] = {
    "forward": {128: Tiles(2, 128, 2), 256: Tiles(2, 64, 2)},
    "d_q": {128: Tiles(2, 64, 2), 256: Tiles(1, 32, 2)},
    "d_kv": {96: Tiles(2, 64, 2), 128: Tiles(2, 32, 3), 256: Tiles(1, 32, 2)},
}


def choose(which: Pass, width: int) -> Tiles:
    """The tiles for a head size."""
    return next(tiles for most, tiles in TILES[which].items() if width <= most)

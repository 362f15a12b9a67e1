"""How large a tile is: what the registers and the shared memory of a multiprocessor hold.

Not tuned on a GPU: large sizes that compile for sm_80 and sm_90 with next to no registers spilled
(`kernels/aot/cuda.py`).
"""

from typing import Literal, NamedTuple

from mres_kernels._typing import Array

Pass = Literal["forward", "d_q", "d_kv"]


class Tiles(NamedTuple):
    """Sizes of one program.

    Attributes:
      outer: rows of the side whose results it makes: queries, or keys for `d_kv`.
      inner: rows of the other side that it visits at once.
      warps: of 32 threads.
      stages: inner tiles in flight.
    """

    outer: int
    inner: int
    warps: int
    stages: int


# Up to this head size, these tiles.
TILES: dict[Pass, dict[int, Tiles]] = {
    "forward": {64: Tiles(128, 64, 4, 3), 128: Tiles(128, 64, 8, 3), 256: Tiles(64, 64, 8, 2)},
    "d_q": {64: Tiles(128, 64, 8, 2), 128: Tiles(128, 32, 8, 2), 256: Tiles(64, 32, 8, 2)},
    "d_kv": {
        64: Tiles(128, 64, 8, 2),
        80: Tiles(128, 32, 8, 2),
        128: Tiles(64, 64, 8, 2),
        256: Tiles(32, 64, 8, 2),  # 64 keys do not fit the memory of sm_100
    },
}


def choose(which: Pass, q: Array) -> Tiles:
    """The tiles for a head size, cut down to what divides the length."""
    t, _, width = q.shape
    tiles = next(tiles for most, tiles in TILES[which].items() if width <= most)
    if q.dtype.itemsize > 2:  # products of float32 are not for tensor cores, and take registers
        tiles = Tiles(32, 16, 4, 2)
    return tiles._replace(outer=_divisor(t, tiles.outer))


def _divisor(length: int, most: int) -> int:
    """The largest power of 2 that divides the length and is at most `most`."""
    return min(length & -length, most)

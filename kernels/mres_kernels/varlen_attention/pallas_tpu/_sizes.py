"""How large a step is: tuned sizes, made to fit the call and the memory of the chip."""

import functools
import json
import pathlib
from typing import Literal, NamedTuple

import jax
from jax import Array
from jax.experimental.pallas import tpu as pltpu

from mres_kernels._target import target

LANES = 128  # rows of a tile come in multiples of it
LARGEST = 1024  # rows of a tile
SMEM_ITEMS = 200_000  # of the work list; scalar memory is 1 MiB
TUNED = pathlib.Path(__file__).with_name("tiles.json")  # made by kernels/aot/tune.py
Pass = Literal["forward", "backward"]
# Of fast memory: the most that query and key rows of one head of a step may take. Found with the
# compiler on a v4, kernels/aot/budgets.py has cases at the edge.
SHARE = {"forward": 1 / 10, "backward": 1 / 20}


class Tiles(NamedTuple):
    """Sizes of one step.

    Attributes:
      q: query rows.
      kv: keys.
      heads: query heads, at most.
    """

    q: int
    kv: int
    heads: int


def choose(which: Pass, q: Array | jax.ShapeDtypeStruct) -> Tiles:
    """The tuned sizes for this chip and head size, cut down to what divides the length.

    A chip that was not tuned for takes those of v5e.

    Raises:
      NotImplementedError: a pack so long that its tiles have no room in fast memory.
    """
    t, _, width = q.shape
    table = _tuned()
    by_width = table.get(target().kind, table["TPU v5 lite"])[which]
    nearest = next(w for w in sorted(by_width, key=int) if int(w) >= width)
    size_q, size_kv, heads = by_width[nearest]
    if q.dtype.itemsize > 2:
        heads = max(heads // 2, 1)
    if fast_memory() < 32 << 20:
        heads = max(heads // 2, 1)
    tiles = _few(Tiles(_divisor(t, size_q), _divisor(t, size_kv), heads), t)
    if which == "backward":
        tiles = _fit(tiles, width, q.dtype.itemsize)
    taken = (tiles.q + tiles.kv) * -(-width // LANES) * LANES * q.dtype.itemsize
    if taken > SHARE[which] * fast_memory():
        raise NotImplementedError(
            f"pallas_tpu: {t} rows need steps of {tiles.q} by {tiles.kv} rows, which have no room "
            f"in the {fast_memory() / 2**20:.0f} MiB of fast memory with {q.dtype.name} heads of "
            f"{width}; split the pack, or use bfloat16."
        )
    return tiles


def _few(tiles: Tiles, length: int) -> Tiles:
    """Larger tiles of fewer heads, where so many tiles have no room in scalar memory.

    As far as they divide the length; that of a tile of few heads is bounded by `LARGEST`.
    """
    while (length // tiles.q) * (length // tiles.kv) > SMEM_ITEMS:
        sizes = {"kv": 2 * tiles.kv, "q": 2 * tiles.q}
        wider = {k: n for k, n in sizes.items() if n <= LARGEST and length % n == 0}
        if not wider:
            break
        name = min(wider, key=wider.__getitem__)
        tiles = tiles._replace(heads=max(tiles.heads // 2, 1), **{name: wider[name]})
    return tiles


def _fit(tiles: Tiles, width: int, itemsize: int) -> Tiles:
    """As many heads as fast memory holds in the pass for `d_k` and `d_v`, which takes the most.

    With a key/value head for each query head: blocks of four inputs and two results, each twice,
    two sums, and the scores and what is made of them, eight times.
    """
    blocks = 2 * itemsize * (2 * tiles.q + 4 * tiles.kv) + 2 * 4 * tiles.kv
    scores = 8 * 4 * tiles.q * tiles.kv
    heads = tiles.heads
    while heads > 1 and heads * width * blocks + scores > fast_memory():
        heads //= 2
    return tiles._replace(heads=heads)


@functools.cache
def _tuned() -> dict[str, dict[str, dict[str, list[int]]]]:
    return json.loads(TUNED.read_text())


def _divisor(length: int, most: int) -> int:
    """The largest power of 2 times `LANES` that divides the length and is at most `most`."""
    size = LANES
    while size * 2 <= most and length % (size * 2) == 0:
        size *= 2
    return size


def share_heads(h: int, g: int, heads: int) -> tuple[int, int]:
    """Key/value heads of a step, and query heads of each: all of its group, or part of one's."""
    group = h // g
    if heads >= group:
        return _at_most(g, heads // group), group
    return 1, _at_most(group, heads)


def _at_most(count: int, most: int) -> int:
    """The largest divisor of `count` that is at most `most`, and at least 1."""
    return max(n for n in range(1, count + 1) if count % n == 0 and (n == 1 or n <= most))


def fast_memory() -> int:
    """Bytes of VMEM that a kernel may take; 1/16 is left to the compiler."""
    here = target()
    capacity = pltpu.get_tpu_info().vmem_capacity_bytes if here.platform == "tpu" else 128 << 20
    return capacity // 16 * 15

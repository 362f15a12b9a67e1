"""What whole packs cost on TPU, in bundles, beside jax's splash attention on the same packs.

    python kernels/aot/packs.py [CHIP ...]

Both are compiled here. Splash is given the segment ids: it masks with them and skips nothing,
so its steps are all tiles of the pack, and its bundles those of a step's hot part times their
number.
"""

import functools
import json
import sys

import jax
import numpy as np
import tpu
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
    splash_attention_mask as splash_mask,
)
from mres_kernels import _work, make_plan
from mres_kernels.varlen_attention.pallas_tpu import Tiles
from mres_kernels.varlen_attention.pallas_tpu._common import key_major, query_major

PACKS = ("28 of 576", "256 to 1024", "1024 to 4096")
LENGTH = 16_384  # rows of a pack
STEP = 230  # bundles of a step with nothing to do, measured on v5e
SPLASH_BLOCK = 512


def lengths_of(pack: str) -> list[int]:
    """Rows of each picture of a pack, the same on every run."""
    if pack == "28 of 576":
        return [576] * 28
    low, high = (int(word) for word in pack.split(" to "))
    draw, lengths = np.random.default_rng(0), []
    while sum(lengths) + high <= LENGTH:
        lengths.append(int(draw.integers(low // 16, high // 16 + 1)) * 16)
    return lengths


@functools.cache
def steps(pack: str, which: str, q: int, kv: int) -> tuple[int, int, int]:
    """Full steps, masked steps and outer tiles of a pack."""
    cu = np.cumsum([0, *lengths_of(pack)]).astype(np.int32)
    plan = make_plan(cu_seqlens=cu, length=LENGTH)
    make_list = query_major if which == "forward" else key_major
    work = make_list(plan, Tiles(q, kv, 1))
    flags = _work.flags_of(np.asarray(work.items)[: int(work.num_items)])
    full, empty = (int(((flags & bit) != 0).sum()) for bit in (_work.FULL, _work.EMPTY))
    return full, flags.size - full - empty, LENGTH // (q if which == "forward" else kv)


def useful(pack: str) -> int:
    """Scores that the pack asks for."""
    return sum(length**2 for length in lengths_of(pack))


def bundles(program: tpu.Program, which: str, pack: str) -> float:
    """Of one head over a whole pack."""
    tiles = program.tiles
    full, masked, outer = steps(pack, which, tiles.q, tiles.kv)
    total = full * program.full + masked * program.masked + (full + masked) * STEP
    return (total + outer * max(program.rest - STEP, 0)) / tiles.heads


def splash_bundles(chip: str, width: int) -> float:
    """Of one head over a pack of `LENGTH` rows, whatever it holds."""
    block = SPLASH_BLOCK
    mask = splash_mask.MultiHeadMask([splash_mask.FullMask((LENGTH, LENGTH))] * 4)
    sizes = splash.BlockSizes(block_q=block, block_kv=block, block_kv_compute=block)
    kernel = splash.make_splash_mha(mask, head_shards=1, q_seq_shards=1, block_sizes=sizes)

    def run(q, k, v, ids):
        return kernel(q, k, v, segment_ids=splash.SegmentIds(ids, ids))

    array = jax.ShapeDtypeStruct((4, LENGTH, width), "bfloat16")
    ids = jax.ShapeDtypeStruct((LENGTH,), "int32")
    tpu.clear()
    tpu.compile_for(chip, run, (array, array, array, ids))
    return tpu.hottest("*splash*") * (LENGTH / block) ** 2


def main(chips: list[str]) -> None:
    tpu.load_compiler(dump=True)
    for chip in chips or ("v5e", "v6e", "tpu7x"):
        for width in (80, 128):
            programs = {
                which: tpu.measure(tpu.Case(chip, which, width, 16, 16))
                for which in ("forward", "backward")
            }
            peer = splash_bundles(chip, width)
            for pack in PACKS:
                row = {"chip": chip, "head_dim": width, "pack": pack}
                for which, program in programs.items():
                    spent = bundles(program, which, pack)
                    operations = 2 * tpu.PRODUCTS[which] * useful(pack) * width
                    share = operations / spent / tpu.CHIPS[chip].operations
                    row[f"{which}_share_of_peak"] = round(share, 3)
                    if which == "forward":
                        row["splash_over_ours"] = round(peer / spent, 1)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What whole packs cost on TPU, in bundles, beside other libraries' splash attention.

    .venv-aot/bin/pip install tokamax==0.0.12
    .venv-aot/bin/python kernels/aot/packs.py [CHIP ...]

All are compiled here. Splash attention takes a pack in two ways. Segment ids are an input like
ours: it masks with them and skips nothing, so its steps are all tiles of the pack. A mask is part
of the program: it skips empty tiles then, and compiles anew for every mix of pictures.

Bundles of splash are those of a step's matrix products and what goes with them, in tiles of the
side that is cheapest for the pack; what it spends on beginning a step is left out, ours has it in.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax
import numpy as np
import tpu
from jax.experimental.pallas.ops.tpu import splash_attention
from mres_kernels import _work, make_plan
from mres_kernels.varlen_attention.pallas_tpu import Tiles
from mres_kernels.varlen_attention.pallas_tpu._common import key_major, query_major

PACKS = ("28 of 576", "256 to 1024", "1024 to 4096")
LENGTH = 16_384  # rows of a pack
STEP = 230  # bundles of a step with nothing to do, measured on v5e
HEADS = 4  # that splash is compiled with; a step is one head's
SIDES = (256, 512, 1024)  # of its tiles
TOKAMAX = "tokamax._src.ops.experimental.tpu.splash_attention"
Which = Literal["forward", "backward"]


class Peer(NamedTuple):
    """Splash attention of a library, and how it is told what belongs together."""

    name: str
    make: Callable
    is_compiled_in: bool


def lengths_of(pack: str) -> list[int]:
    """Rows of each picture of a pack, the same on every run."""
    if pack == "28 of 576":
        return [576] * 28
    low, high = (int(word) for word in pack.split(" to "))
    draw, lengths = np.random.default_rng(0), []
    while sum(lengths) + high <= LENGTH:
        lengths.append(int(draw.integers(low // 16, high // 16 + 1)) * 16)
    return lengths


def mask_of(pack: str) -> np.ndarray:
    """Which rows of a pack see which; those after its pictures see each other."""
    lengths = lengths_of(pack)
    ids = np.repeat(np.arange(len(lengths) + 1), [*lengths, LENGTH - sum(lengths)])
    return ids[:, None] == ids


@functools.cache
def steps(pack: str, which: Which, q: int, kv: int) -> tuple[int, int, int]:
    """Full steps, masked steps and outer tiles of a pack."""
    cu = np.cumsum([0, *lengths_of(pack)]).astype(np.int32)
    plan = make_plan(cu_seqlens=cu, length=LENGTH)
    make_list = query_major if which == "forward" else key_major
    work = make_list(plan, Tiles(q, kv, 1))
    flags = _work.flags_of(np.asarray(work.items)[: int(work.num_items)])
    full, empty = (int(((flags & bit) != 0).sum()) for bit in (_work.FULL, _work.EMPTY))
    return full, flags.size - full - empty, LENGTH // (q if which == "forward" else kv)


@functools.cache
def tiles_of(pack: str, side: int) -> tuple[int, int]:
    """Square tiles of a pack that are visible in full, and in part."""
    n = LENGTH // side
    seen = mask_of(pack).reshape(n, side, n, side)
    full = int(seen.all((1, 3)).sum())
    return full, int(seen.any((1, 3)).sum()) - full


def useful(pack: str) -> int:
    """Scores that the pack asks for."""
    return sum(length**2 for length in lengths_of(pack))


def bundles(program: tpu.Program, which: Which, pack: str) -> float:
    """Of one head over a whole pack."""
    tiles = program.tiles
    full, masked, outer = steps(pack, which, tiles.q, tiles.kv)
    total = full * program.full + masked * program.masked + (full + masked) * STEP
    return (total + outer * max(program.rest - STEP, 0)) / tiles.heads


def peers() -> Iterator[Peer]:
    """Segment ids of both libraries, then masks of both."""
    for is_compiled_in in (False, True):
        yield Peer("jax", make_of_jax, is_compiled_in)
        yield Peer("tokamax", make_of_tokamax, is_compiled_in)


def make_of_jax(mask: np.ndarray | None, side: int) -> Callable:
    """A kernel of jax that is given segment ids, or knows its mask."""
    kernels, masks = (
        splash_attention.splash_attention_kernel,
        splash_attention.splash_attention_mask,
    )
    one = masks.FullMask((LENGTH, LENGTH)) if mask is None else masks.NumpyMask(mask)
    sizes = kernels.BlockSizes(
        **dict.fromkeys(("block_q", "block_kv", "block_kv_compute"), side),
        **dict.fromkeys(("block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute"), side),
        use_fused_bwd_kernel=True,
    )
    heads = masks.MultiHeadMask([one] * HEADS)
    kernel = kernels.make_splash_mha(heads, head_shards=1, q_seq_shards=1, block_sizes=sizes)
    return _with_ids(kernel, kernels.SegmentIds) if mask is None else kernel


def make_of_tokamax(mask: np.ndarray | None, side: int) -> Callable:
    """The same of tokamax."""
    kernels, masks, base = (
        importlib.import_module(f"{TOKAMAX}.{name}")
        for name in ("splash_attention_kernel", "splash_attention_mask", "base")
    )
    config = kernels.SplashConfig(
        **dict.fromkeys(("block_q", "block_kv", "block_q_dkv", "block_kv_dkv"), side)
    )
    one = masks.FullMask((LENGTH, LENGTH)) if mask is None else masks.NumpyMask(mask)
    kernel = kernels.make_splash_mha(one, config=config, q_seq_shards=1)
    return _with_ids(kernel, base.SegmentIds) if mask is None else kernel


def _with_ids(kernel: Callable, ids_type: Callable) -> Callable:
    def run(q, k, v, ids):
        return kernel(q, k, v, segment_ids=ids_type(ids, ids))

    return run


@functools.cache
def peer_step(peer: Peer, chip: str, which: Which, width: int, side: int) -> tuple[int, int] | None:
    """Bundles of a full and of a masked tile; None where it does not compile."""
    mask = mask_of(PACKS[-1]) if peer.is_compiled_in else None  # any that has both sorts of tiles
    kernel = peer.make(mask, side)

    def forward(*arrays):
        return kernel(*arrays)

    def backward(q, k, v, *ids):
        return jax.grad(lambda *x: kernel(*x, *ids).astype("float32").sum(), (0, 1, 2))(q, k, v)

    array = jax.ShapeDtypeStruct((HEADS, LENGTH, width), "bfloat16")
    ids = () if peer.is_compiled_in else (jax.ShapeDtypeStruct((LENGTH,), "int32"),)
    tpu.clear()
    try:
        function = forward if which == "forward" else backward
        tpu.compile_for(chip, function, (array, array, array, *ids))
    except jax.errors.JaxRuntimeError as error:  # more memory than the core has
        reason = str(error).splitlines()[0]
        print(f"{peer.name}, {chip}, {which}, tiles of {side}: {reason}", file=sys.stderr)
        return None
    bodies, _ = tpu.bodies_of("*splash*fwd*" if which == "forward" else "*splash*dkv*")
    return bodies[0], bodies[-1]


def peer_bundles(peer: Peer, chip: str, which: Which, width: int, pack: str) -> float:
    """Of one head over a whole pack, at the best of `SIDES`."""
    spent = []
    for side in SIDES:
        if step := peer_step(peer, chip, which, width, side):
            full, masked = tiles_of(pack, side)
            if not peer.is_compiled_in:
                full, masked = 0, (LENGTH // side) ** 2
            spent.append(full * step[0] + masked * step[1])
    return min(spent)


def main(chips: list[str]) -> None:
    tpu.load_compiler(dump=True)
    others = list(peers())
    for chip in chips or ("v5e", "v6e", "tpu7x"):
        for width in (80, 128):
            programs: dict[Which, tpu.Program] = {
                which: tpu.measure(tpu.Case(chip, which, width, 16, 16))
                for which in ("forward", "backward")
            }
            for pack in PACKS:
                cells = [f"{chip}, {width}", pack]
                ours = {w: bundles(program, w, pack) for w, program in programs.items()}
                for which, spent in ours.items():
                    operations = 2 * tpu.PRODUCTS[which] * useful(pack) * width
                    cells.append(f"{operations / spent / tpu.CHIPS[chip].operations:.0%}")
                for peer in others:
                    theirs = [peer_bundles(peer, chip, w, width, pack) / ours[w] for w in ours]
                    cells.append(" / ".join(f"{ratio:.1f}" for ratio in theirs))
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Chooses the sizes of a step for each TPU generation: `python kernels/aot/tune.py` [CHIP ...].

Each candidate is compiled and weighed with the steps that three packs of pictures make of it:
large tiles cost less each, small ones fit segments better. Writes `pallas_tpu/tiles.json`, which is
kept in the repository: sizes change the order of sums, so they are never chosen at run time.
"""

import collections
import itertools
import json
import math
import sys

import jax
import tpu
from mres_kernels.varlen_attention.pallas_tpu import Tiles
from mres_kernels.varlen_attention.pallas_tpu._sizes import TUNED
from packs import PACKS, bundles

# Not under 256 rows: fewer would read keys and values from memory more often than it can give them.
CANDIDATES = tuple(
    Tiles(*sizes)
    for sizes in ((256, 256, 8), (256, 256, 16), (256, 512, 8), (512, 512, 2), (512, 512, 4))
)
WIDTHS = (80, 128, 256)  # head sizes; one between takes the next


def best(chip: str, which: tpu.Pass, width: int) -> Tiles:
    """The cheapest candidate that compiles."""
    tried = {}
    for tiles in CANDIDATES:
        case = tpu.Case(chip, which, width, 16, 16, length=2048, tiles=tiles)
        try:
            program = tpu.measure(case)
        except jax.errors.JaxRuntimeError:  # too large for the memory of the core
            continue
        costs = [bundles(program, which, pack) for pack in PACKS]
        tried[tiles] = math.exp(sum(map(math.log, costs)) / len(costs))
        print(f"{case.name}: {tuple(tiles)} {tried[tiles]:,.0f}", flush=True)
    return min(tried, key=tried.__getitem__)


def main(chips: list[str]) -> None:
    tpu.load_compiler(dump=True)
    table = collections.defaultdict(dict, json.loads(TUNED.read_text()))
    for chip in chips or tpu.CHIPS:
        kind = tpu.mesh_of(chip).devices.flat[0].device_kind
        for which, width in itertools.product(("forward", "backward"), WIDTHS):
            found = best(chip, which, width)
            table[kind].setdefault(which, {})[str(width)] = list(found)
        TUNED.write_text(render(table))


def render(table) -> str:
    """JSON with one line per chip and pass."""
    chips = []
    for kind, passes in sorted(table.items()):
        lines = [
            f'    "{which}": {json.dumps(dict(sorted(sizes.items(), key=lambda x: int(x[0]))))}'
            for which, sizes in passes.items()
        ]
        chips.append(f'  "{kind}": {{\n' + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(chips) + "\n}\n"


if __name__ == "__main__":
    main(sys.argv[1:])

"""What the TPU kernels may cost: compiles them for chips that are not here and compares.

    python kernels/aot/budgets.py bundles [--grid] [--write] [WORD ...]
    python kernels/aot/budgets.py memory [--write]
    python kernels/aot/budgets.py table

`bundles` counts the instructions of each kernel, `memory` the temporary bytes of forward and
backward together, and of decoding, layout copies included. Measured values are kept for one version
of jax and of the compiler in `budgets/`; what costs over 3 % more fails. Other versions are
compiled and shown, but not compared. `--write` keeps what is measured; `--grid` takes all cases,
not only those of CI; words choose those whose name holds all of them.
`table` prints what is kept as README.md shows it.
"""

import argparse
import importlib.metadata
import itertools
import json
import sys

import jax
import jax.numpy as jnp
import kept
import tpu
from mres_kernels import decode_attention, extend_cache, make_plan, varlen_attention
from mres_kernels.varlen_attention.pallas_tpu import Tiles

VERSIONS = {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
KEPT = kept.FOLDER / f"jax-{VERSIONS['jax']}-libtpu-{VERSIONS['libtpu']}.json"
SHOWN = ("tiles", "share_of_peak", "rest")
LONG = 65_536  # rows

QUICK = (
    *(
        tpu.Case(c, p, d, 16, 16)
        for c in tpu.CHIPS
        for p in ("forward", "backward")
        for d in (80, 128)
    ),
    *(tpu.Case(c, p, 128, 32, 8) for c in ("v5e", "tpu7x") for p in ("forward", "backward")),
    *(tpu.Case(c, p, 128, 16, 16, LONG) for c in ("v4", "v5p", "tpu7x") for p in ("d_kv", "d_q")),
)
LONGER = (  # where tiles have to be larger than those that were tuned
    *(
        tpu.Case(c, p, 80, 16, 16, 262_144)
        for c in ("v4", "v6e")
        for p in ("forward", "d_kv", "d_q")
    ),
    tpu.Case("v4", "d_kv", 256, 1, 1, 262_144),
    tpu.Case("v4", "d_kv", 128, 1, 1, 262_144, "float32"),
)
DECODE = tuple(tpu.Case(chip, "decode", 128, 32, 8) for chip in tpu.CHIPS)
# Full blocks at their best, without regard to how they fit segments.
BEST = tuple(
    tpu.Case(chip, which, width, 16, 16, tiles=tiles)
    for chip, which, width, tiles in (
        *(("v5e", "forward", d, Tiles(512, 512, 2)) for d in (80, 128)),
        *(("v5e", "backward", d, Tiles(512, 512, 1)) for d in (80, 128)),
        *(("v6e", "forward", d, Tiles(256, 256, 8)) for d in (80, 128)),
        *(("v6e", "backward", d, Tiles(512, 512, 1)) for d in (80, 128)),
        *(("tpu7x", "forward", d, Tiles(512, 512, 2)) for d in (80, 128)),
        *(("tpu7x", "backward", d, Tiles(512, 512, 1)) for d in (80, 128)),
    )
)
# One length is enough for the forward pass, which knows none but in its grid.
GRID = tuple(
    tpu.Case(chip, which, width, heads, kv_heads, length, dtype)
    for chip, (which, length), width, (heads, kv_heads), dtype in itertools.product(
        tpu.CHIPS,
        (("forward", 8192), *itertools.product(("backward", "d_kv", "d_q"), (8192, LONG))),
        (64, 72, 80, 128, 256),
        ((16, 16), (32, 8)),
        ("bfloat16", "float32"),
    )
)
DECODED = tuple((chip, *heads) for chip in tpu.CHIPS for heads in ((12, 2, 128), (28, 4, 128)))
LAYERS, ROWS = 4, 4  # of a cache of `LONG` / 4 positions
MEMORY = tuple((chip, *heads) for chip in tpu.CHIPS for heads in ((16, 16, 80), (32, 8, 128)))


def measure_bundles(cases) -> tuple[dict[str, dict], list[str]]:
    """Steps and shares of peak by name of case, and a line for each that does not compile.

    Of passes that attention makes at all.
    """
    tpu.load_compiler(dump=True)
    found, failed = {}, []
    for case in filter(tpu.is_taken, cases):
        try:
            program = tpu.measure(case)
        except Exception as error:
            failed.append(f"{case.name}: {type(error).__name__}: {str(error).splitlines()[0]}")
            print(failed[-1], flush=True)
            continue
        found[case.name] = {
            "tiles": list(program.tiles),
            "full": program.full,
            "masked": program.masked,
            "rest": program.rest,
        }
        if case.which != "decode":  # bound by memory
            found[case.name]["share_of_peak"] = round(program.share_of_peak(case), 3)
        print(case.name, json.dumps(found[case.name]), flush=True)
    return found, failed


def measure_memory() -> dict[str, dict]:
    """Temporary bytes of attention and its gradients over a pack of `LONG` rows; of decoding."""
    tpu.load_compiler(dump=False)
    found = {}
    for chip, h, g, width in MEMORY:
        q, kv = (jax.ShapeDtypeStruct((LONG, n, width), jnp.bfloat16) for n in (h, g))
        ids = jax.ShapeDtypeStruct((LONG,), jnp.int32)

        def train(q, k, v, ids, d_out):
            plan = make_plan(ids)
            call = lambda *x: varlen_attention(*x, plan, implementation="pallas_tpu")  # noqa: E731
            out, pull = jax.vjp(call, q, k, v)
            return out, pull(d_out)

        program = tpu.compile_for(chip, train, (q, kv, kv, ids, q))
        name = f"{chip} heads {h}/{g} of {width}, {LONG} rows"
        found[name] = _temporary(name, program)
    for chip, h, g, width in DECODED:
        new, q = (jax.ShapeDtypeStruct((ROWS, n, width), jnp.bfloat16) for n in (g, h))
        cache = jax.ShapeDtypeStruct((LAYERS, ROWS, g, LONG // 4, width), jnp.bfloat16)
        lengths = jax.ShapeDtypeStruct((ROWS,), jnp.int32)
        program = tpu.compile_for(chip, decode, (q, new, cache, cache, lengths))
        name = f"{chip} decode heads {h}/{g} of {width}, {LAYERS} layers of {ROWS} rows"
        found[name] = _temporary(name, program)
    return found


def decode(q, new, keys, values, lengths):
    """A few tokens through all layers of attention, written down behind the last of them."""

    def token(_, carry):
        q, keys, values, lengths = carry

        def layer(q, index):
            held = keys, values, lengths
            out = decode_attention(q[:, None], new[:, None], new[:, None], *held, layer=index)
            return out[:, 0], new * q[:, :1]

        q, more = jax.lax.scan(layer, q, jnp.arange(LAYERS))
        q, more = jax.lax.optimization_barrier((q, more))
        keys, values = (extend_cache(held, more, lengths) for held in (keys, values))
        return q, keys, values, lengths + 1

    return jax.lax.fori_loop(0, 8, token, (q, keys, values, lengths))


def _temporary(name: str, program: jax.stages.Compiled) -> dict[str, int]:
    found = {"temporary_bytes": program.memory_analysis().temp_size_in_bytes}
    print(name, json.dumps(found), flush=True)
    return found


def render(table: dict[str, dict]) -> str:
    """Share of peak of full steps by kernel and chip, in percent; size of a step in brackets."""
    pairs = [("forward", 80), ("forward", 128), ("backward", 80), ("backward", 128)]
    lines = ["| | " + " | ".join(f"{which}, head of {d}" for which, d in pairs) + " |"]
    lines.append("|---" * (len(pairs) + 1) + "|")
    for cases, label in ((QUICK, "tuned for packs"), (BEST, "full blocks at their best")):
        for chip in tpu.CHIPS:
            cells = []
            for which, width in pairs:
                rows = [
                    table["bundles"][case.name]
                    for case in cases
                    if (case.chip, case.which, case.head_dim) == (chip, which, width)
                    and case.num_heads == case.num_kv_heads
                ]
                best = max(rows, key=lambda row: row["share_of_peak"], default=None)
                sizes = "" if best is None else " x ".join(map(str, best["tiles"]))
                cells.append("" if best is None else f"{best['share_of_peak']:.0%} ({sizes})")
            if any(cells):
                lines.append(f"| {chip}, {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("bundles", "memory", "table"))
    parser.add_argument("words", nargs="*", help="of the names of cases; default: all")
    parser.add_argument("--grid", action="store_true", help="all cases, for half an hour")
    parser.add_argument("--write", action="store_true", help="keep what is measured")
    args = parser.parse_intermixed_args()
    table = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    if args.what == "table":
        print(render(table))
        return 0
    if args.what == "bundles":
        cases = dict.fromkeys((*QUICK, *LONGER, *DECODE, *BEST, *(GRID if args.grid else ())))
        cases = [case for case in cases if all(word in case.name for word in args.words)]
        found, lines = measure_bundles(cases)
    else:
        found, lines = measure_memory(), []
    compiled = f"{len(found)} cases compiled, {len(lines)} not"
    if args.write:
        table[args.what] = table.get(args.what, {}) | found
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(kept.render(table) + "\n")
        print(compiled)
    elif not table:
        print(f"{compiled}; no budgets for {VERSIONS}, nothing compared")
    else:
        over = kept.over_budget(table.get(args.what, {}), found, shown=SHOWN)
        lines += over
        print(*lines, sep="\n")
        print(f"{compiled}, {len(over)} over budget")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())

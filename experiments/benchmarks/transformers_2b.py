"""Speed at Qwen2-VL-2B size against `transformers` on the same threads, each side in a process.

python experiments/benchmarks/transformers_2b.py [--peer-python .venv-parity/bin/python]

One prompt of 1,000 tokens: eight pictures of 3,944 patches and 14 tokens of text; then 64 tokens
more. And eight prompts at once, one about each picture, of 23 to 328 tokens, with 64 tokens more
each. Weights are random. Sides take turns and are never in memory together (12 GB are needed).
Every process adds a line to `--rounds-file`, so a run that `--minutes` cut short goes on there.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from measure import ROOT, medians, write_result
from peer_2b import GRIDS, PARTS

STEPS = 64
SIDES = ("mres_jax", "transformers")
BATCH = ("tower", "batch prefill", "batch decode")  # its parts; the pictures are the same
TITLE = "Qwen2-VL-2B against transformers"
ABOUT = """\
One prompt at Qwen2-VL-2B size: the tower over eight pictures of mixed sizes (3,944 patches), the \
prefill of its 1,000 tokens, and 64 tokens more, one at a time. Then a batch of eight prompts, one \
about each picture, of 23 to 328 tokens, with 64 tokens more each: packed by us, padded on the \
left to the longest by `transformers`, as its `generate` takes them; the line "batch" is tower, \
prefill and decoding together. Random weights, one process a side \
in turn, the second of two calls timed in each. Speed is `transformers`' seconds divided by ours. \
Layers run: {} of 32 in the tower, {} of 28 in the decoder."""
CHECK = "Before that both ran the same weights at reduced depth, float32: largest difference, as a \
share of the largest value, tower {tower:.1e}, scores after the prefill {prefill:.1e}, those of \
the batch {batch:.1e}."
COMPILES = "We compiled {} ({} while the clock ran)."
LIMIT = 1e-4  # float32 sums of up to 8,960 products in another order, through two layers


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--peer-python", default=str(ROOT / ".venv-parity/bin/python"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--layers", type=int, nargs=2, default=(32, 28), metavar=("TOWER", "TEXT"))
    parser.add_argument("--minutes", type=float, default=600, help="start nothing after that")
    default = pathlib.Path(tempfile.gettempdir()) / "transformers_2b.jsonl"
    parser.add_argument("--rounds-file", type=pathlib.Path, default=default)
    parser.add_argument("--results", type=pathlib.Path, help="folder; default: beside this script")
    args = parser.parse_args()
    start = time.monotonic()
    done = read(args.rounds_file)
    if not any("check" in line for line in done):
        append(args.rounds_file, {"check": check(args)})
    for job in jobs(args):
        if any(job.items() <= line.items() for line in done):
            continue
        if time.monotonic() - start > 60 * args.minutes:
            sys.exit(f"Out of time; the same command goes on with {args.rounds_file}.")
        append(args.rounds_file, job | {"result": measure(args, job)})
    report(args, read(args.rounds_file))
    args.rounds_file.unlink()


def jobs(args: argparse.Namespace):
    """What each process measures, in order."""
    for number in range(args.rounds):
        for dtype in args.dtypes:
            for side in SIDES:
                yield {"round": number, "dtype": dtype, "side": side, "layers": list(args.layers)}


def measure(args: argparse.Namespace, job: dict[str, Any]) -> dict[str, Any]:
    """Seconds by part, and the versions of what ran, from a process of its own."""
    words = [job["dtype"], *map(str, job["layers"]), str(STEPS)]
    return json.loads(child(args, job["side"], "time", *words).splitlines()[-1])


def check(args: argparse.Namespace) -> dict[str, float]:
    """Largest differences of both sides with the same weights, as a share of the largest value."""
    with tempfile.TemporaryDirectory() as folder:
        child(args, SIDES[1], "check", folder)  # writes the weights
        differences = json.loads(child(args, SIDES[0], "check", folder).splitlines()[-1])
    if max(differences.values()) > LIMIT:
        sys.exit(f"The two sides do not compute the same: {differences}.")
    return differences


def child(args: argparse.Namespace, side: str, *words: str) -> str:
    """What a side's script prints."""
    mine = side == SIDES[0]
    script = pathlib.Path(__file__).with_name("ours_2b.py" if mine else "peer_2b.py")
    python = sys.executable if mine else args.peer_python
    return subprocess.run(
        [python, script, *words], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def report(args: argparse.Namespace, lines: list[dict[str, Any]]) -> None:
    """The table: a row per part and dtype, and the best dtype of each side."""
    seconds: dict[tuple[str, str, str], list[float]] = {}
    versions: dict[str, str] = {}
    compiles: dict[str, None] = {}
    for line in lines:
        if "result" in line and line["layers"] == list(args.layers):
            result = line["result"]
            versions |= result["versions"]
            times = result["seconds"]
            times |= {"batch": sum(times[part] for part in BATCH)}
            for part, taken in times.items():
                seconds.setdefault((part, line["dtype"], line["side"]), []).append(taken)
            if counts := result.get("compiles"):
                what = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
                compiles[COMPILES.format(what, result["compiles_while_timed"])] = None
    middle: Any = medians(seconds)  # type: ignore[arg-type]
    rows = []
    for part in (*PARTS, "batch"):
        best = {side: min(middle[part, d, side] for d in args.dtypes) for side in SIDES}
        for dtype in args.dtypes:
            rows.append(row(part, dtype, *(middle[part, dtype, side] for side in SIDES)))
        rows.append(row(part, "best of each", *best.values()))
    differences = next(line["check"] for line in lines if "check" in line)
    write_result(
        "transformers_2b",
        rows,
        title=TITLE,
        about=ABOUT.format(*args.layers),
        dtype=" and ".join(args.dtypes),
        notes=[CHECK.format(**differences), *compiles, *NOTES],
        results=args.results,
        details=lines,
        versions=versions,
    )


def row(part: str, dtype: str, ours: float, theirs: float) -> dict[str, Any]:
    """One line of the table."""
    rates = {}
    if part.endswith("decode"):
        tokens = STEPS * (len(GRIDS) if part.startswith("batch") else 1)
        rates = {"tokens_per_s": round(tokens / ours, 2), "theirs": round(tokens / theirs, 2)}
    return {
        "part": part,
        "dtype": dtype,
        "mres_jax_s": round(ours, 2),
        "transformers_s": round(theirs, 2),
        "speed": round(theirs / ours, 2),
        **rates,
    }


def read(file: pathlib.Path) -> list[dict[str, Any]]:
    """The lines so far."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def append(file: pathlib.Path, line: dict[str, Any]) -> None:
    """One line more."""
    print(json.dumps(line), flush=True)
    with file.open("a") as out:
        out.write(json.dumps(line) + "\n")


NOTES: tuple[str, ...] = ()

if __name__ == "__main__":
    main()

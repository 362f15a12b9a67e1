"""Makes data sets of rows and times their index, with the memory that it takes.

python experiments/2026-11-rows/run.py pictures DIR [--rows 20000]
python experiments/2026-11-rows/run.py text DIR [--rows 665298]
"""

import argparse
import json
import pathlib
import random
import resource
import shutil
import time

import numpy as np
from PIL import Image

from mres_jax.cli._report import find_model
from mres_jax.data.rows import RowSet, open_rows, prepare_rows
from mres_jax.models.registry import load_processor
from mres_jax.resolution.policies import parse_policy

WORDS = [
    "what",
    "is",
    "the",
    "total",
    "colour",
    "of",
    "this",
    "invoice",
    "and",
    "where",
    "does",
    "it",
    "say",
    "so",
    "red",
    "blue",
    "sign",
]


def make(folder: pathlib.Path, rows: int, *, pictures: bool) -> pathlib.Path:
    """Writes LLaVA-like rows of six turns, each with a picture of its own if wanted."""
    path = folder / "rows.json"
    if path.exists():
        return path
    rng, noise = random.Random(0), np.random.default_rng(0)
    pixels = noise.integers(0, 256, (30, 40, 3), np.uint8)
    with path.open("w") as file:
        for i in range(rows):
            name = f"{i // 1000:03d}/{i:06d}.jpg"
            if pictures:
                size = (rng.randrange(200, 400), rng.randrange(200, 400))
                (folder / name).parent.mkdir(exist_ok=True)
                Image.fromarray(pixels).resize(size).save(folder / name, quality=60)
            row = {"id": f"{i:012d}"} | ({"image": name} if pictures else {})
            row["conversations"] = [
                {
                    "from": "gpt" if turn % 2 else "human",
                    "value": ("<image>\n" if pictures and not turn else "")
                    + " ".join(rng.choices(WORDS, k=rng.randrange(10, 60))),
                }
                for turn in range(6)
            ]
            file.write(("[\n" if not i else ",\n") + json.dumps(row))
        file.write("\n]\n")
    return path


def peak() -> float:
    """Largest resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(name: str, count: int, call):
    """Calls and prints how long it took, processor time of all threads beside."""
    wall, cpu, memory = time.perf_counter(), time.process_time(), peak()
    result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{name}: {wall:.2f} s, {count / wall:,.0f} rows/s; {cpu:.2f} s of processor; "
        f"memory {memory:,.0f} -> {peak():,.0f} MiB",
        flush=True,
    )
    return result


def main() -> None:
    """Prints one line for each step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("pictures", "text"))
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--shards", action="store_true", help="also prepare and read shards")
    parser.add_argument("--make", action="store_true", help="only write the files")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    path = make(args.folder, args.rows, pictures=args.kind == "pictures")
    if args.make:
        return
    processor = load_processor(find_model(None).directory)
    print(f"{path.stat().st_size / 1e6:,.0f} MB of rows")

    def opened(index: str) -> RowSet:
        return open_rows(path, spec=processor.spec, tokenizer=processor.tokenizer, index=index)

    rows = timed("index", args.rows, lambda: opened("rebuild"))
    timed("open again", args.rows, lambda: opened("refuse"))
    print(f"{sum(f.stat().st_size for f in path.with_name('rows.json.index').iterdir()):,} bytes")
    for policy in ("native", "budget:64"):
        timed(f"sizes under {policy}", len(rows), lambda p=policy: rows.measure(parse_policy(p)))
    picks = random.Random(1).choices(range(len(rows)), k=10_000)
    timed("10,000 rows at random", len(picks), lambda: [rows.row(i) for i in picks])
    if args.shards:
        time_shards(rows, path.with_name("shards"), picks[:2_000])


def time_shards(rows: RowSet, target: pathlib.Path, picks: list[int]) -> None:
    """Shards of the same rows: to write, to open, and rows with their pictures decoded."""
    shutil.rmtree(target, ignore_errors=True)
    timed("shards", len(rows), lambda: prepare_rows(rows, target))
    print(f"{sum(f.stat().st_size for f in target.glob('rows-*')):,} bytes of shards")

    def opened(index: str) -> RowSet:
        return open_rows(target, spec=rows.spec, tokenizer=rows.tokenizer, index=index)

    shards = timed("open shards", len(rows), lambda: opened("refuse"))
    for name, some in (("files", rows), ("shards", shards)):
        timed(
            f"pictures at random, {name}", len(picks), lambda s=some: [s.images(i) for i in picks]
        )
    timed("index of shards", len(rows), lambda: opened("rebuild"))


if __name__ == "__main__":
    main()

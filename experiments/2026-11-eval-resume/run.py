"""Kills an evaluation of generated samples again and again, and compares it with a whole one.

python experiments/2026-11-eval-resume/run.py [--questions 1000] [--kills 5] [--policy native]
"""

import argparse
import collections
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time


def start(out: pathlib.Path, args: argparse.Namespace) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "import sys; from mres_jax.cli import main; sys.exit(main())"]
    command += ["eval", f"generated:{args.questions}", "-o", str(out), "--seed", str(args.seed)]
    for policy in args.policy:
        command += ["-p", policy]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(out: pathlib.Path, args: argparse.Namespace) -> None:
    process = start(out, args)
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"the evaluation failed:\n{said.decode()[-3000:]}")


def lines_of(out: pathlib.Path) -> dict[str, list[bytes]]:
    """Lines of every arm, of one that is cut off too."""
    files = sorted(out.rglob("samples.jsonl"))
    return {file.parent.name: file.read_bytes().splitlines(keepends=True) for file in files}


def count(out: pathlib.Path) -> int:
    return sum(map(len, lines_of(out).values()))


def kill(out: pathlib.Path, args: argparse.Namespace, wanted: int, rng: random.Random) -> str:
    """Starts it, waits for so many lines and a moment more, and kills it."""
    process = start(out, args)
    while count(out) < wanted and process.poll() is None:
        time.sleep(0.05)
    time.sleep(rng.uniform(0.0, 1.0))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        return "had ended by itself"
    return f"killed with {count(out)} lines there"


def without_clock(line: bytes) -> str:
    content = json.loads(line)
    del content["ms"]
    return json.dumps(content)


def compare(whole: pathlib.Path, cut: pathlib.Path, args: argparse.Namespace) -> None:
    there, again = lines_of(whole), lines_of(cut)
    if there.keys() != again.keys():
        sys.exit(f"arms differ: {sorted(there)}, {sorted(again)}")
    for arm, lines in there.items():
        same = [without_clock(line) for line in lines] == [without_clock(x) for x in again[arm]]
        counts = collections.Counter(json.loads(line)["id"] for line in again[arm])
        twice = sum(n > 1 for n in counts.values())
        print(f"{arm}: {len(lines):,} and {len(again[arm]):,} lines, same: {same}, twice: {twice}")
        if not same or twice or len(counts) != args.questions:
            sys.exit("they differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policy", action="append")
    args = parser.parse_args()
    args.policy = args.policy or ["native"]
    begin, rng = time.monotonic(), random.Random(args.seed)
    total = args.questions * len(args.policy)
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = pathlib.Path(folder, "whole"), pathlib.Path(folder, "cut")
        for wanted in sorted(rng.randrange(total * 9 // 10) for _ in range(args.kills)):
            print(kill(cut, args, wanted, rng), flush=True)
        finish(cut, args)
        finish(whole, args)
        compare(whole, cut, args)
    print(f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()

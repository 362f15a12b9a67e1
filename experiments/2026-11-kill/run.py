"""Kills a training run ten times, restarts it, and compares its curve with that of a whole run.

python experiments/2026-11-kill/run.py [--kills 10] [--seed 0]
"""

import argparse
import itertools
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from mres_jax.testing.runs import rows_without_clocks

RUN = pathlib.Path(__file__).with_name("tiny.py")


def start(directory: pathlib.Path, num_workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mres_jax.cli._main", "train", str(RUN)]
    command += [f"--checkpoint.dir={directory}", f"--num_workers={num_workers}"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )


def finish(directory: pathlib.Path, num_workers: int) -> None:
    process = start(directory, num_workers)
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"the run failed:\n{output[-3000:]}")


def kill_one(directory: pathlib.Path, num_workers: int, rng: random.Random) -> str:
    """Starts the run and kills it some steps after it has begun."""
    process = start(directory, num_workers)
    assert process.stdout is not None
    seen = 0
    wanted = rng.randint(1, 9)
    for line in process.stdout:
        seen += line.startswith("step")
        if seen == wanted:
            time.sleep(rng.uniform(0.0, 0.3))
            break
    process.send_signal(signal.SIGKILL)
    process.stdout.read()
    process.wait()
    if process.returncode != -signal.SIGKILL:
        return "had ended by itself"
    return f"killed after {len(rows_without_clocks(directory))} steps in the log"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = pathlib.Path(folder, "whole"), pathlib.Path(folder, "cut")
        finish(whole, num_workers=0)
        for number in range(args.kills):
            num_workers = 2 if number == args.kills // 2 else 0
            print(f"{number + 1}, {num_workers} workers: {kill_one(cut, num_workers, rng)}")
        finish(cut, num_workers=1)
        expected, seen = rows_without_clocks(whole), rows_without_clocks(cut)
    places = [(row["epoch"], row["pack"]) for row in seen]
    assert places == sorted(set(places)), "a pack was repeated"
    for (epoch, pack), after in itertools.pairwise(places):
        assert after in ((epoch, pack + 1), (epoch + 1, 0)), "a pack was lost"
    differing = [a["step"] for a, b in zip(expected, seen, strict=True) if a != b]
    if differing:
        sys.exit(f"{len(differing)} of {len(seen)} steps differ, the first is {differing[0]}")
    print(
        f"{len(seen)} steps over {len({epoch for epoch, _ in places})} epochs, every pack once; "
        f"all {len(seen[0])} columns of metrics.jsonl but clocks are bit for bit those of the "
        "whole run"
    )


if __name__ == "__main__":
    main()

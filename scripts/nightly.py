"""What takes too long for every change, each suite with its row in docs/nightly.md.

python scripts/nightly.py                 all suites, one after the other
python scripts/nightly.py NAME [NAME...]  these; the rows of the others stay as they are

A row says of which commit and day it is, so a night may be spread over several.
"""

import datetime
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "nightly.md"
HEAD = ("suite", "jax", "result", "minutes", "date", "commit")
# `make nightly ARGS=...` is not to reach the `make` of a suite.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "ARGS"))}
HERE = "not gpu and not tpu and not parity"
SUMMARY = re.compile(
    r"^=*\s*((?:\d+ (?:failed|passed)|\d+ steps over|\d+ cases).*?)(?: in [\d.]+s.*)?$"
)


class Suite(NamedTuple):
    """What is run, one line of shell after the other, and the environment that it is run in."""

    venv: str
    lines: tuple[str, ...]


def tests_on(version: str) -> Suite:
    """Every test that needs neither an accelerator nor torch, slow ones included."""
    venv = f".venv-{version}"
    return Suite(
        venv,
        (
            f"PYTHON=$(scripts/find_python.sh {version}) scripts/setup.sh {venv} dev",
            f'{venv}/bin/pytest -n 2 -m "{HERE}"',
        ),
    )


SUITES = {
    "python-3.11": tests_on("3.11"),
    "python-3.12": tests_on("3.12"),
    "parity": Suite(".venv-parity", ("make parity",)),
    "demo": Suite(".venv", ("make demo",)),
    "notebooks": Suite(".venv", ("make notebooks",)),
    "documents": Suite(".venv", ("make docs",)),
    "tpu-kernels": Suite(".venv-aot", ('make aot ARGS="--grid"',)),
    "gpu-kernels": Suite(".venv-aot-cuda", ('make aot-cuda ARGS="--grid"',)),
    "harnesses": Suite(".venv-lmms", ("make harnesses",)),
    "kills": Suite(".venv", (".venv/bin/python experiments/2026-11-kill/run.py",)),
}


def run(name: str, suite: Suite) -> tuple[bool, list[str]]:
    """Runs a suite in view of all; returns whether it passed, and its row."""
    start, found, passed = time.monotonic(), [], True
    for line in suite.lines:
        print(f"== {name}: {line}", flush=True)
        with subprocess.Popen(
            ["bash", "-c", line],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            for text in process.stdout:
                print(text, end="", flush=True)
                if summary := SUMMARY.match(text.strip()):
                    found.append(summary[1].strip())
        if process.returncode:
            passed = False
            break
    minutes = round((time.monotonic() - start) / 60)
    result = "; ".join(found) or ("passed" if passed else "no summary")
    result = result if passed else f"**failed**: {result}"
    today = datetime.datetime.now(datetime.UTC).date()
    return passed, [name, jax_of(suite), result, str(minutes), str(today), commit()]


def jax_of(suite: Suite) -> str:
    """The version of jax in the environment of a suite."""
    ask = "from importlib.metadata import version; print(version('jax'))"
    python = ROOT / suite.venv / "bin" / "python"
    if not python.exists():
        return "-"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout.strip()


def commit() -> str:
    """The commit that is checked out; with a plus where files differ from it."""
    name, changes = (
        subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain"])
    )
    return name + "+" * bool(changes.replace("M docs/nightly.md", ""))


def rows() -> dict[str, list[str]]:
    """Rows of the page, by suite."""
    lines = PAGE.read_text().splitlines() if PAGE.exists() else []
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: row for row in cells if row[0] in SUITES and len(row) == len(HEAD)}


def write(table: dict[str, list[str]]) -> None:
    """Writes the page, suites in their order."""
    lines = [HEAD, ["---"] * len(HEAD), *(table[name] for name in SUITES if name in table)]
    PAGE.write_text(
        f"# Nightly\n\n`make nightly`, {os.cpu_count()} cores.\n\n"
        + "".join(f"| {' | '.join(line)} |\n" for line in lines)
    )


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        print(f"nightly: no suite {', '.join(unknown)}; there are {', '.join(SUITES)}.")
        return 2
    table, failed = rows(), []
    for name in names or SUITES:
        passed, table[name] = run(name, SUITES[name])
        write(table)
        failed += [] if passed else [name]
    print(PAGE.read_text(), end="")
    if failed:
        print(f"nightly: failed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

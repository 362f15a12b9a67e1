"""What the benchmarks share: timing in turn, and the dated result file that the page is made from.

jax is never imported here, so that a benchmark's other side can run in a process without it.
"""

import datetime
import json
import math
import os
import pathlib
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = {  # import name -> distribution; those in use are recorded
    "jax": "jax",
    "flax": "flax",
    "numpy": "numpy",
    "PIL": "pillow",
    "grain": "grain",
    "safetensors": "safetensors",
    "torch": "torch",
    "transformers": "transformers",
}
Run = Callable[[], Any]  # does the work once and waits for it


def write_result(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str,
    about: str,
    dtype: str,
    notes: Sequence[str] = (),
    details: Any = None,
    versions: Mapping[str, str] | None = None,
    results: pathlib.Path | None = None,
) -> pathlib.Path:
    """Writes `<results>/<device>/<date>-<name>.json`; `table.py` makes docs/benchmarks.md from it.

    Args:
      name: of the benchmark's script, without `.py`.
      rows: the table, a mapping of column to value each; units stand in the column's name.
      title: heading of the section.
      about: what is compared and how, in a sentence or two of Markdown.
      dtype: of the arithmetic.
      notes: sentences under the table: what falls short, and why.
      details: anything else worth keeping (rounds, profiles); not shown.
      versions: of packages that only another process used, by name.
      results: folder; that beside the running script by default.
    """
    script = pathlib.Path(sys.argv[0]).resolve()
    record = {
        "name": name,
        "title": title,
        "about": about,
        "date": datetime.date.today().isoformat(),
        "command": command_line(script),
        "commit": commit(),
        "device": device_name(),
        "cores": os.cpu_count(),
        "dtype": dtype,
        "versions": loaded_versions() | dict(versions or {}),
        "rows": list(rows),
        "notes": list(notes),
        "details": details,
    }
    folder = (results or script.parent / "results") / device_name()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{record['date']}-{name}.json"
    file.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {file}")
    return file


def device_name() -> str:
    """The device as a folder name: `cpu-amd-epyc-2-cores-avx2`, `nvidia-h200`.

    Processors of one name multiply matrices three times as fast with AVX-512 as without; a name
    with nothing behind the cores has it.
    """
    device = sys.modules["jax"].devices()[0] if "jax" in sys.modules else None
    name = device.device_kind if device else ""
    if device is None or device.platform == "cpu":
        info = pathlib.Path("/proc/cpuinfo")
        text = info.read_text() if info.exists() else ""
        found = re.search(r"model name\s*: (.*)", text)
        name = f"cpu {found[1] if found else platform.machine()} {os.cpu_count()} cores"
        name += " avx2" if " avx2" in text and " avx512f" not in text else ""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def loaded_versions() -> dict[str, str]:
    """Returns the versions of the packages that this process has imported, and of Python."""
    used = [name for module, name in PACKAGES.items() if module in sys.modules]
    return {"python": platform.python_version()} | {n: metadata.version(n) for n in used}


def commit() -> str:
    """The commit that was measured; with a `+` where tracked Python files differ from it."""
    head = _git("rev-parse", "--short=10", "HEAD")
    return head + ("+" if _git("status", "--porcelain", "-uno", "--", "*.py") else "")


def command_line(script: pathlib.Path) -> str:
    """How the running script was called, from the root of the repository."""
    words = [pathlib.Path(w).name if pathlib.Path(w).is_absolute() else w for w in sys.argv[1:]]
    return shlex.join(["python", os.path.relpath(script, ROOT), *words])


def peak_memory() -> int:
    """Largest resident memory of this process so far, bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def time_in_turn(
    runs: Mapping[str, Run], rounds: int, *, min_seconds: float = 0.0
) -> dict[str, list[float]]:
    """Seconds per call of each, round by round, so that a busy machine slows all alike.

    Each is called once beforehand, which compiles it; those shorter than `min_seconds` are called
    several times a round.
    """
    calls = {}
    for name, run in runs.items():
        run()
        calls[name] = math.ceil(min_seconds / max(timed(run), 1e-6)) if min_seconds else 1
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(timed(run, calls[name]))
    return seconds


def timed(run: Run, calls: int = 1) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The middle of each list."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def _git(*words: str) -> str:
    run = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True)
    return run.stdout.strip() or ("" if run.returncode == 0 else "unknown")


def run_side(
    check: Callable[[pathlib.Path], None], time: Callable[[str, tuple[int, int], int], None]
) -> None:
    """Does what the command line of one side asks: `check FOLDER`, or `time DTYPE LAYERS LAYERS
    STEPS`."""
    if sys.argv[1] == "check":
        check(pathlib.Path(sys.argv[2]))
    else:
        time(sys.argv[2], (int(sys.argv[3]), int(sys.argv[4])), int(sys.argv[5]))

"""Makes docs/benchmarks.md from the newest result of each benchmark on each device.

python experiments/benchmarks/table.py            write the page
python experiments/benchmarks/table.py --check    say whether it is up to date
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/benchmarks.md"
FOLDERS = (ROOT / "experiments/benchmarks/results", ROOT / "kernels/bench/results")
HEAD = """\
# Benchmarks

Made by `python experiments/benchmarks/table.py` from the newest result of each benchmark; change
those, not this page. Each is one command, and compares its sides in turn, round after round, so
that a busy machine slows all alike; medians are given. How to add one:
[experiments/benchmarks](../experiments/benchmarks/README.md).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when stale")
    check = parser.parse_args().check
    if not check:
        PAGE.write_text(page())
    elif not PAGE.exists() or PAGE.read_text() != page():
        sys.exit("docs/benchmarks.md is stale. Run: python experiments/benchmarks/table.py")


def page() -> str:
    """The whole page, Markdown."""
    sections = (section(file, json.loads(file.read_text())) for file in newest_results())
    return "\n".join([HEAD, *sections])


def newest_results() -> list[pathlib.Path]:
    """One file per device and benchmark: names start with their date."""
    newest = {}
    for file in sorted(file for folder in FOLDERS for file in folder.glob("*/*.json")):
        newest[file.parts[-2], file.stem[len("2026-11-21-") :]] = file
    return sorted(newest.values(), key=lambda file: (file.stem[len("2026-11-21-") :], file.parts))


def section(file: pathlib.Path, record: dict[str, Any]) -> str:
    """Heading, what is compared, the table, notes, and where the numbers come from."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    source = f"../{file.relative_to(ROOT)}"
    lines = [
        f"## {record['title']}",
        "",
        record["about"],
        "",
        *table(record["rows"]),
        "",
        *(f"- {note}" for note in record["notes"]),
        *([""] if record["notes"] else []),
        f"`{record['command']}`, {record['device']}, {record['dtype']}, {record['date']}, "
        f"commit {record['commit']}; {versions}; [result]({source}).",
        "",
    ]
    return "\n".join(lines)


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The rows, with the columns of all of them in order of appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    yield _line(columns)
    yield "|" + "---|" * len(columns)
    yield from (_line([_cell(row.get(column)) for column in columns]) for row in rows)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int | float) else str(value)


if __name__ == "__main__":
    main()

"""The locked versions: one list in pyproject.toml, read by uv itself and handed to pip from here.

python scripts/lock.py write        resolves again and replaces the list (needs uv; `make lock`)
python scripts/lock.py export DIR   writes DIR/constraints.txt and DIR/<group>.txt for pip

uv's own lock file would name the package index of whoever made it, so it is not kept.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
PYPROJECT = ROOT / "pyproject.toml"
LOCKED_GROUPS = ("dev", "docs", "notebooks")
HEADER = "[tool.uv] # locked versions, written by `make lock`; read by uv and by the Makefile"


def export(directory: pathlib.Path) -> None:
    """Writes the locked versions and the dependency groups as files that any pip reads."""
    tables = tomllib.loads(PYPROJECT.read_text())
    files = {"constraints": tables["tool"]["uv"]["constraint-dependencies"]}
    for name, lines in (files | tables["dependency-groups"]).items():
        (directory / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def write() -> None:
    """Resolves for all Pythons and systems at once and puts the result into pyproject.toml."""
    unlocked, _, _ = PYPROJECT.read_text().partition(HEADER)
    options = ["--universal", "--quiet", "--no-header", "--no-annotate", "--python-version=3.11"]
    options += ["--no-emit-index-url", "--no-emit-find-links"]
    options += [f"--group={group}" for group in LOCKED_GROUPS]
    command = ["uv", "pip", "compile", *options, "pyproject.toml"]
    with tempfile.TemporaryDirectory() as folder:  # where the old versions constrain nothing
        pathlib.Path(folder, "pyproject.toml").write_text(unlocked)
        run = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    pins = [re.sub(r"\s+", " ", line) for line in run.stdout.splitlines() if "==" in line]
    listed = "".join(f'  "{pin}",\n' for pin in pins)
    PYPROJECT.write_text(f"{unlocked}{HEADER}\nconstraint-dependencies = [\n{listed}]\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write"]:
            write()
        case ["export", directory]:
            export(pathlib.Path(directory))
        case _:
            sys.exit(__doc__)
